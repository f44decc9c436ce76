"""What Jina Embeddings v4 reads: prompts, token ids, where pictures stand in them, and which tokens the mean is over.

A text gets "Query: " or "Passage: ", a picture its own prompt; parts that belong together become the turn of a user in
the chat template, in the order given, nothing between them. The single vector is the mean over the spans of the
pictures, markers included, where an input is pictures alone; otherwise over all of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from retriever.encoders.base import Span
from retriever.encoders.tokens import Tokens
from retriever.encoders.vision import Picture, Preprocessing, cells, grid_of, size_of

PREFIXES = {"query": "Query", "passage": "Passage"}
TURN, END = "<|im_start|>user\n", "<|im_end|>\n"
PAD = "<|image_pad|>"
VISION = f"<|vision_start|>{PAD}<|vision_end|>"
DESCRIBE = "Describe the image."
ONE_TASK = "text-matching"  # both sides of it are alike, so its texts are always queries

Part = str | PathLike[str] | np.ndarray | Picture  # text is a str; a picture anything else (a path as a Path)


@dataclass(frozen=True)
class Row:
    """An input, tokenised. ids: (t,) int64, a picture's placeholder repeated for each of its tokens; visual: (t,) bool;
    pooled: (t,) bool, what the mean is over; pictures and their grids (rows, columns) of patches, in order."""

    ids: np.ndarray
    visual: np.ndarray
    pooled: np.ndarray
    spans: list[Span]
    pictures: list[Picture] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)

    def boxes(self, merge: int) -> np.ndarray:
        """(t, 4) float32: the cell of each visual token as fractions of its picture, zeros for the others."""
        found = np.zeros((len(self.ids), 4), np.float32)
        if self.grids:
            found[self.visual] = np.concatenate([cells(grid, merge) for grid in self.grids])
        return found


def prefix_of(task: str, prompt_name: str | None) -> str:
    """The word before a text. Raises ValueError for an unknown prompt_name."""
    if prompt_name is not None and prompt_name not in PREFIXES:
        raise ValueError(f"prompt_name {prompt_name!r}: one of {', '.join(PREFIXES)} is expected")
    return PREFIXES["query" if task == ONE_TASK else prompt_name or "query"]


def text_rows(tokens: Tokens, texts: Sequence[str], max_length: int) -> list[Row]:
    """Texts with their prefix -> rows; what is over max_length tokens is cut off at the end."""
    rows = []
    for encoding in tokens.encode(list(texts)):
        ids = np.array(encoding.ids[:max_length], np.int64)
        everything = np.ones(len(ids), bool)
        rows.append(Row(ids, ~everything, everything, [Span("text", 0, len(ids))]))
    return rows


def parts_row(
    tokens: Tokens,
    parts: Sequence[Part],
    image_token: int,
    steps: Preprocessing,
    max_pixels: int | None,
    prompt: str = "",
) -> Row:
    """Text and pictures in one input -> its row. prompt: what follows the parts (`DESCRIBE` after a page).

    Raises ValueError where a text holds the placeholder of a picture.
    """
    text, ends = TURN, []
    for part in parts:
        text += part if isinstance(part, str) else VISION
        ends.append(len(text))
    (encoding,) = tokens.encode([text + prompt + END])
    short = np.array(encoding.ids, np.int64)
    pictures: list[Picture] = [part for part in parts if not isinstance(part, str)]
    if int((short == image_token).sum()) != len(pictures):
        raise ValueError(f"a text holds {PAD}, which stands for a picture; take it out")
    grids = [grid_of(size_of(picture), steps, max_pixels) for picture in pictures]
    repeats = np.ones(len(short), np.int64)
    repeats[short == image_token] = [rows * columns // steps.merge**2 for rows, columns in grids]
    starts = np.concatenate([[0], np.cumsum(repeats)])
    bounds = np.searchsorted([start for start, _ in encoding.offsets], [len(TURN), *ends])
    spans = [
        Span("text" if isinstance(part, str) else "image", int(starts[bounds[i]]), int(starts[bounds[i + 1]]))
        for i, part in enumerate(parts)
    ]
    ids = np.repeat(short, repeats)
    pooled = np.full(len(ids), any(span.kind == "text" for span in spans))
    for span in spans:
        pooled[span.start : span.end] = True
    return Row(ids, ids == image_token, pooled, spans, pictures, grids)
