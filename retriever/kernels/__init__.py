"""MaxSim, the score of late interaction: one function, several implementations, chosen once or by name.

    score(query, page) = sum over query tokens of the largest inner product with a token of the page

(ColBERT, Khattab and Zaharia 2020, section 3.3). Ragged in, nothing padded; a page with no tokens scores -inf.
Importing this imports no torch; handing it tensors does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index.ragged import Codes, Ragged, offsets_of
from retriever.kernels.reference import maxsim_reference

IMPLEMENTATIONS = ("auto", "reference", "torch")


def maxsim(query: Any, pages: Ragged | Codes, impl: str = "auto", threads: int | None = None) -> Any:
    """Scores of n pages for one query or for b of them.

    query: (m, d) float array or tensor, or a Ragged of b queries. pages: Ragged or Codes of n pages, their values an
    array or a tensor. Returns (n,) or (b, n) float32, a tensor where the query is one. impl: `reference` (numpy),
    `torch` (the operator octavo::maxsim), or `auto`: torch for tensors, else numpy. threads: for implementations that
    take it; numpy's and torch's own settings rule theirs.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl is one of {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
    batch = query if isinstance(query, Ragged) else Ragged(query, offsets_of([len(query)]))
    if batch.values.shape[1:] != pages.values.shape[1:]:
        found = f"{tuple(batch.values.shape)} and {tuple(pages.values.shape)}"
        raise ValueError(f"query and page tokens must be (m, d) and (t, d) of one d; got {found}")
    array = isinstance(batch.values, np.ndarray)
    if impl == "reference" or (impl == "auto" and array):
        scores: Any = maxsim_reference(batch, pages)
    else:
        from retriever.kernels.operator import maxsim_torch

        scores = maxsim_torch(batch, pages)
        scores = scores.numpy() if array else scores
    return scores if isinstance(query, Ragged) else scores[0]
