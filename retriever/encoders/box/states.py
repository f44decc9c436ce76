"""Pieces to states: the transformer of multilingual-e5-small through onnxruntime, and its piece table in 4 bits.

A window of pieces is one run of the session, never padded and never batched with another, so a state depends on its
own text only. Rows of the table are dequantised as they are looked up; the layers' weights stay in 4 bits in memory.
This module does not tokenise and does not project.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retriever.encoders.box.pieces import BOS, EOS

WIDTH = 384
POSITIONS = 512
WINDOW = 500
OVERLAP = 100


def spans(n: int, window: int = WINDOW, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """Windows over n pieces: as few as can be, equally long to within one, each sharing `overlap` with the next."""
    if n <= window:
        return [(0, n)]
    count = -(-(n - overlap) // (window - overlap))
    length = -(-(n + (count - 1) * overlap) // count)
    starts = np.rint(np.linspace(0, n - length, count)).astype(int)
    return [(int(start), int(start) + length) for start in starts]


def session(model: bytes, threads: int) -> Any:
    """An onnxruntime session over `model` with `threads` intra-op threads that do not spin while they wait."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def dequantise(rows: np.ndarray) -> np.ndarray:
    """4-bit rows (m, blocks, 18) uint8 -> (m, blocks x 32) float32: fp16 scale, then nibbles, low halves first."""
    scale = np.ascontiguousarray(rows[..., :2]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([rows[..., 2:] & 15, rows[..., 2:] >> 4], axis=-1).astype(np.float32)
    return ((nibbles - 8) * scale).reshape(len(rows), -1)


class States:
    """Last-layer states. table: (n, 12, 18) uint8, the rows of the pieces."""

    def __init__(self, model: bytes, table: np.ndarray, threads: int) -> None:
        self._session = session(model, threads)
        self._table = table

    def of(self, prompt: list[int], ids: np.ndarray) -> np.ndarray:
        """States (n, 384) of the pieces `ids` (n,), read after `prompt` in windows; prompt and specials dropped.

        Where windows overlap each piece is taken from the one in which it stands furthest from an edge.
        """
        states = np.empty((len(ids), WIDTH), np.float32)
        windows = spans(len(ids))
        taken = 0
        for k, (start, end) in enumerate(windows):
            row = dequantise(self._table[np.concatenate([[BOS], prompt, ids[start:end], [EOS]]).astype(np.int64)])
            (out,) = self._session.run(None, {"rows": row[None]})
            last = end if k + 1 == len(windows) else (windows[k + 1][0] + end + 1) // 2
            skip = 1 + len(prompt) - start
            states[taken:last] = out[0, taken + skip : last + skip]
            taken = last
        return states
