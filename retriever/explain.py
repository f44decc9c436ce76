"""Where on the page the evidence lies: token weights, heat maps, regions. Pure functions; no model is run.

The index keeps each token's vector and the box on the page that it stands for, so late interaction explains itself: the
page tokens that a query token picked, painted over their boxes. Works alike for words, text pieces and image patches.
Does not render pages and does not decide what to show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from index.ragged import Ragged
from retriever.kernels import maxsim

Box = tuple[float, float, float, float]

_PAINT_SIDE = 1024  # heat is painted at most this many pixels long, then enlarged: a page costs a few milliseconds

# Viridis (van der Walt and Smith 2015, CC0) at 0, 1/8 ... 1: lightness rises evenly, so equal steps of heat look equal,
# in grey and to colour-blind eyes too.
_COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    np.float32,
)


def token_scores(query: ArrayLike, vectors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """What each query token adds to the page's score, and which page token won for it: (m,) float32, (m,) int32.

    query: (m, d) float; vectors: (t, d) float, the page's decoded tokens. Of a page with no tokens: zeros and -1.
    Raises ValueError where the dimensions differ.
    """
    q, v = np.atleast_2d(np.asarray(query, np.float32)), np.atleast_2d(np.asarray(vectors, np.float32))
    winners = maxsim(q, Ragged.of([v]), argmax=True)[1][0]
    scores = np.einsum("ij,ij->i", q, v[winners]) if len(v) else np.zeros(len(q), np.float32)
    return scores, winners


def token_weights(query: ArrayLike, vectors: ArrayLike, token: int | None = None) -> np.ndarray:
    """The evidence that each page token gives, (t,) float32 in [0, 1], the strongest 1 (all 0 where there is none).

    query: (m, d) float, a token's weight being its norm; vectors: (t, d) float, the page's decoded tokens; token: one
    query token (0 to m - 1), None for all of them. A query token's evidence is by how much its similarity exceeds that
    of four fifths of the page's tokens, so that one which the page does not answer (equally similar everywhere) paints
    next to nothing, sharpened so that the winner of MaxSim and its close rivals stand out.
    """
    q, v = np.atleast_2d(np.asarray(query, np.float32)), np.atleast_2d(np.asarray(vectors, np.float32))
    if v.shape[0] == 0 or v.size == 0:
        return np.zeros(0, np.float32)
    if q.shape[1] != v.shape[1]:
        raise ValueError(f"query has {q.shape[1]} dimensions, the page's vectors {v.shape[1]}: not of one encoder")
    if token is not None:
        if not 0 <= token < len(q):
            raise ValueError(f"token {token} of a query of {len(q)} tokens: give 0 to {len(q) - 1}")
        q = q[token : token + 1]
    similarity = q @ v.T
    best = similarity.max(axis=1, keepdims=True)
    floor = np.maximum(np.quantile(similarity, 0.8, axis=1, keepdims=True, method="lower"), 0.0)
    floor = np.where(best - floor > 1e-6, floor, 0.0)
    excess = np.maximum(similarity - floor, 0.0)
    strength = np.maximum(best - floor, 1e-12)
    sharp = (excess / strength) ** (4 if token is None else 2)
    total = (sharp * np.where(best > 0, strength, 0.0)).sum(axis=0)
    peak = float(total.max())
    return (total / peak if peak > 0 else np.zeros_like(total)).astype(np.float32)


def heat(boxes: ArrayLike, weights: ArrayLike, size: tuple[int, int]) -> np.ndarray:
    """The heat of each pixel, (H, W) float32 in [0, 1].

    boxes: (t, 4) x0 y0 x1 y1 as fractions of the page; weights: (t,) float, negative ones count as 0; size: (W, H) in
    pixels. Each token paints its box, the strongest wins where boxes overlap, and a blur of a third of a token's height
    rounds the corners of words and lets neighbouring patches run into each other.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"size {width} x {height}: a picture has at least one pixel each way")
    b, w = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(weights, np.float32).reshape(-1)
    if len(b) != len(w):
        raise ValueError(f"{len(b)} boxes and {len(w)} weights: one weight a box is expected")
    w = np.where(np.isfinite(w), np.clip(w, 0.0, None), 0.0)
    if len(w) == 0 or w.max() <= 0:
        return np.zeros((height, width), np.float32)
    w = w / w.max()
    shrink = min(1.0, _PAINT_SIDE / max(width, height))
    columns, rows = max(1, round(width * shrink)), max(1, round(height * shrink))
    painted = _paint(np.clip(b, 0.0, 1.0), w, columns, rows)
    heights = (b[:, 3] - b[:, 1])[w > 0.05] * rows
    painted = _blur(painted, max(1, round(0.33 * float(np.quantile(heights, 0.25, method="lower")))))
    picture = Image.fromarray(painted / max(float(painted.max()), 1e-12))
    if (columns, rows) != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(picture, np.float32), 0.0, 1.0)


def _paint(boxes: np.ndarray, weights: np.ndarray, columns: int, rows: int) -> np.ndarray:
    canvas = np.zeros((rows, columns), np.float32)
    scaled = boxes * np.array([columns, rows, columns, rows], np.float32)
    low, high = np.floor(scaled[:, :2]).astype(int), np.ceil(scaled[:, 2:]).astype(int)
    for i in np.argsort(weights, kind="stable"):  # ascending: the strongest is painted last, which is the maximum
        if weights[i] > 0:
            canvas[low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]] = weights[i]
    return canvas


def _blur(canvas: np.ndarray, radius: int) -> np.ndarray:
    """Two passes of a running mean of 2 radius + 1 each way, edges repeated."""
    for axis in (0, 0, 1, 1):
        r = min(radius, canvas.shape[axis] - 1)
        if r < 1:
            continue
        pad = [(0, 0), (0, 0)]
        pad[axis] = (r + 1, r)
        sums = np.cumsum(np.pad(canvas, pad, mode="edge"), axis=axis, dtype=np.float64)
        n = sums.shape[axis]
        upper, lower = np.take(sums, range(2 * r + 1, n), axis), np.take(sums, range(0, n - 2 * r - 1), axis)
        canvas = np.maximum((upper - lower) / (2 * r + 1), 0.0).astype(np.float32)
    return canvas


def colours(values: ArrayLike) -> np.ndarray:
    """Heat in [0, 1], any shape, -> RGB of viridis, (..., 3) float32 in [0, 255]."""
    v = np.clip(np.asarray(values, np.float32), 0.0, 1.0) * (len(_COLOURS) - 1)
    low = np.minimum(v.astype(int), len(_COLOURS) - 2)
    part = (v - low)[..., None]
    return np.asarray(_COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part, np.float32)


def overlay(image: Image.Image, heat: np.ndarray, opacity: float = 0.55) -> Image.Image:
    """The page with its heat over it, RGB of the image's size. heat: (H, W) in [0, 1], enlarged or shrunk to fit.

    Untouched where heat is near 0. Where it is not, the colour is mostly multiplied with the page rather than laid over
    it, so that dark print on light paper keeps its contrast under the hottest spot.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity}: give 0 (nothing) to 1 (colour alone)")
    page = np.asarray(image.convert("RGB"), np.float32)
    values = np.asarray(heat, np.float32)
    if values.shape != page.shape[:2]:
        resized = Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR)
        values = np.asarray(resized, np.float32)
    ramp = np.clip((values - 0.04) / 0.5, 0.0, 1.0)
    alpha = (opacity * ramp * ramp * (3 - 2 * ramp))[..., None]
    tinted = colours(values) * (0.3 + 0.7 * page / 255)
    return Image.fromarray(np.round(page * (1 - alpha) + tinted * alpha).astype(np.uint8))


def regions(boxes: ArrayLike, weights: ArrayLike, k: int = 5) -> list[tuple[Box, float]]:
    """The k strongest regions, best first: (x0 y0 x1 y1 as fractions of the page, weight in (0, 1], the best 1).

    boxes: (t, 4) fractions; weights: (t,) of `token_weights`. Tokens below a tenth of the strongest are left out; those
    side by side on one line become one region that weighs what they weigh together.
    """
    b, w = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(weights, np.float32).reshape(-1)
    if len(b) != len(w):
        raise ValueError(f"{len(b)} boxes and {len(w)} weights: one weight a box is expected")
    if len(w) == 0 or k < 1 or not w.max() > 0:
        return []
    kept = [i for i in np.argsort(-w, kind="stable")[:400] if w[i] >= 0.1 * w.max()]
    merged: list[tuple[np.ndarray, float]] = []
    for i in sorted(kept, key=lambda i: (float(b[i, 0]), float(b[i, 1]))):
        for j, (box, weight) in enumerate(merged):
            if _same_line(box, b[i]):
                joined = np.concatenate([np.minimum(box[:2], b[i, :2]), np.maximum(box[2:], b[i, 2:])])
                merged[j] = (joined, weight + float(w[i]))
                break
        else:
            merged.append((b[i], float(w[i])))
    merged.sort(key=lambda m: (-m[1], float(m[0][1]), float(m[0][0])))
    top = merged[0][1]
    return [((float(x[0]), float(x[1]), float(x[2]), float(x[3])), weight / top) for x, weight in merged[:k]]


def _same_line(left: np.ndarray, right: np.ndarray) -> bool:
    """Do two boxes, `left` starting first, share half of the lower one's height with under two heights between them?"""
    lower = min(left[3] - left[1], right[3] - right[1])
    shared = min(left[3], right[3]) - max(left[1], right[1])
    gap = right[0] - left[2]
    return bool(shared >= 0.5 * lower and gap <= 2 * max(left[3] - left[1], right[3] - right[1]))
