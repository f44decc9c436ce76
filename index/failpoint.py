"""Named places where a test kills the process, to prove that what was acknowledged survives (tests/test_kill.py).

OCTAVO_FAILPOINT="blocks synced:3" kills at the third passage of that place, with SIGKILL; unset, a place costs one look
into an empty dict.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, int] = {}
if _setting := os.environ.get("OCTAVO_FAILPOINT"):
    _name, _, _passage = _setting.rpartition(":")
    _armed[_name] = int(_passage)


def failpoint(name: str) -> None:
    """Die here if this place is armed and its count has come."""
    if name in _armed:
        _armed[name] -= 1
        if not _armed[name]:
            os.kill(os.getpid(), signal.SIGKILL)
