"""The text model for pages: the weights of states.onnx in 8 bits, so that a page takes half of the time.

Queries are read in 4-bit weights and full activations. For pages both are cut to 8 bits: the weights of each column by
their largest, to 7 bits, as older processors add pairs of products in 16; the activations of a run by their range. The
inputs of the two products of a feed-forward layer have columns that are much larger than the others, which are made
smaller by a factor that makes their weights larger (Xiao et al. 2023, SmoothQuant); the factors are in passages.onnx,
which is the graph alone. Its weights are made of those of states.onnx as it is opened.
"""

from __future__ import annotations

import numpy as np

from retriever.encoders.box.initialisers import initialisers

LEVELS = 63
"""Of a weight, either way of zero."""


def given(states: bytes, passages: bytes) -> dict[str, np.ndarray]:
    """The weights that the graph `passages` asks for, out of both files: `.w` (k, n) int8 and `.ws` (n,), the step of a
    column, of each product, everything else as it is in states.onnx."""
    stored, smooth = initialisers(states), initialisers(passages)
    found = {name: values for name, values in stored.items() if not name.endswith((".q", ".s.h"))}
    for name in [name.removesuffix(".q") for name in stored if name.endswith(".q")]:
        weights = unpacked(stored[f"{name}.q"], stored[f"{name}.s.h"])
        if f"{name}.smooth" in smooth:
            weights /= smooth[f"{name}.smooth"]
        steps = np.abs(weights).max(axis=1) / LEVELS
        np.rint(np.divide(weights, steps[:, None], out=weights), out=weights)
        found[f"{name}.w"], found[f"{name}.ws"] = np.ascontiguousarray(weights.T.astype(np.int8)), steps
    return found


def unpacked(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Weights (n, k) float32 of 4-bit codes (n, k / 32, 16), even ones in the low halves, and scales (n, k / 32)."""
    values = np.empty((*codes.shape, 2), np.float32)
    values[..., 0], values[..., 1] = codes & 15, codes >> 4
    values -= 8
    values *= scales.astype(np.float32)[..., None, None]
    return values.reshape(len(codes), -1)
