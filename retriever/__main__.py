"""`python -m retriever` is the command `octavo`."""

import sys

from retriever.cli import main

sys.exit(main())
