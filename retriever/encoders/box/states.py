"""Pieces to states: the transformer of multilingual-e5-small through onnxruntime, and the rows of its pieces.

A window of pieces is one run of the session, never padded and never batched with another, so a state depends on its
own text only. Rows of common pieces lie in 4 bits, those of rarer ones in 2, and are dequantised as they are looked up;
the layers' weights stay in 4 bits in memory, or for pages in 8 (`passages`). Either session is made when it is first
asked. This module does not tokenise and does not project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from retriever.encoders.box.passages import given
from retriever.encoders.box.pieces import BOS, EOS

WIDTH = 384
POSITIONS = 512
WINDOW, OVERLAP = 128, 32  # pieces of a page read together: longer ones find less (benchmarks/LOG.md)
LEVELS = np.array([-1.51, -0.4528, 0.4528, 1.51], np.float32)
"""Of 2-bit codes: the best four for a normal distribution (Max 1960), which the values of a row follow."""


def spans(n: int, window: int = WINDOW, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """Windows over n pieces: as few as can be, equally long to within one, each sharing `overlap` with the next."""
    if n <= window:
        return [(0, n)]
    count = -(-(n - overlap) // (window - overlap))
    length = -(-(n + (count - 1) * overlap) // count)
    starts = np.rint(np.linspace(0, n - length, count)).astype(int)
    return [(int(start), int(start) + length) for start in starts]


def session(model: bytes, threads: int, weights: Mapping[str, np.ndarray] | None = None) -> Any:
    """An onnxruntime session over `model` with `threads` intra-op threads that do not spin while they wait. weights:
    what the model leaves to be given."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def dequantise(rows: np.ndarray) -> np.ndarray:
    """4-bit rows (m, blocks, 18) uint8 -> (m, blocks x 32) float32: fp16 scale, then nibbles, low halves first."""
    scale = np.ascontiguousarray(rows[..., :2]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([rows[..., 2:] & 15, rows[..., 2:] >> 4], axis=-1).astype(np.float32)
    return ((nibbles - 8) * scale).reshape(len(rows), -1)


def dequantise_coarse(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """2-bit rows (m, 98) uint8 -> (m, 384) float32: `mean` (384,) and an fp16 scale times the LEVELS of the codes.

    Byte k of the codes holds those of the values k, k + 96, k + 192 and k + 288, lowest bits first.
    """
    scale = np.ascontiguousarray(rows[:, :2]).view("<f2").astype(np.float32)
    codes = np.concatenate([rows[:, 2:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return LEVELS[codes] * scale + mean


class Table:
    """The rows of the pieces: the first of them, which are the commonest, in 4 bits, all others in 2."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        """tensors: `rows.common` (n, 12, 18) and `rows.rare` (m, 98) uint8, `rows.mean` (384,) float32."""
        self._common, self._rare, self._mean = (tensors[f"rows.{name}"] for name in ("common", "rare", "mean"))

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Rows (k, 384) float32 of the pieces `ids` (k,)."""
        rare = ids >= len(self._common)
        rows = np.empty((len(ids), WIDTH), np.float32)
        rows[~rare] = dequantise(self._common[ids[~rare]])
        rows[rare] = dequantise_coarse(self._rare[ids[rare] - len(self._common)], self._mean)
        return rows


class States:
    """Last-layer states of pieces whose rows are in `table`."""

    def __init__(self, model: bytes, passages: Callable[[], bytes], table: Table, threads: int) -> None:
        """model: states.onnx; passages: reads passages.onnx."""
        self._model, self._passages, self._table, self._threads = model, passages, table, threads

    @cached_property
    def _exact(self) -> Any:
        return session(self._model, self._threads)

    @cached_property
    def _fast(self) -> Any:
        graph = self._passages()
        return session(graph, self._threads, given(self._model, graph))

    def of(self, prompt: list[int], ids: np.ndarray, fast: bool = False, window: int = WINDOW) -> np.ndarray:
        """States (n, 384) of the pieces `ids` (n,), read after `prompt` in windows; prompt and specials dropped.

        Where windows overlap each piece is taken from the one in which it stands furthest from an edge. fast: in twice
        the speed, to a cosine of .998.
        """
        running = self._fast if fast else self._exact
        states = np.empty((len(ids), WIDTH), np.float32)
        windows = spans(len(ids), window)
        taken = 0
        for k, (start, end) in enumerate(windows):
            row = self._table.rows(np.concatenate([[BOS], prompt, ids[start:end], [EOS]]).astype(np.int64))
            (out,) = running.run(None, {"rows": row[None]})
            last = end if k + 1 == len(windows) else (windows[k + 1][0] + end + 1) // 2
            skip = 1 + len(prompt) - start
            states[taken:last] = out[0, taken + skip : last + skip]
            taken = last
        return states
