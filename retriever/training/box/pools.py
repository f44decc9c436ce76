"""Training only: what the head is trained on, pages and questions of one language as the encoder's states.

The states are those that `benchmarks/box_quality.py` keeps under /tmp. Only the first half of the pages of
`xquad_pages` is taken, with the questions that they answer: the second half, and every other set, measures. Page
numbers are the same in all languages, so a question of any language asks for a page in any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

LANGUAGES = ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
HALF = 72


class Pool(NamedTuple):
    """pages, questions: states (t, 384) fp16 of each, of norm 1 or of the weights of a question's pieces; asks: (q,)
    which page each question asks for."""

    pages: list[torch.Tensor]
    questions: list[torch.Tensor]
    asks: torch.Tensor


class Batch(NamedTuple):
    """What one step sees. states (t, 384) of the questions' tokens and `of` (t,), whose they are; asks (q,); pages
    (n, 384) and `lens`."""

    states: torch.Tensor
    of: torch.Tensor
    asks: torch.Tensor
    pages: torch.Tensor
    lens: list[int]


def load(path: Path, asked: dict[str, int]) -> Pool:
    """The first HALF pages of a file of states, and their questions. asked: question id -> page number, from 0."""
    with np.load(path) as stored:
        held = {name: stored[name] for name in stored.files}
    numbers = np.array([int(name.rsplit("#", 1)[1]) for name in held["names"]])
    pages = parts(held["pages"], held["lens"])
    questions = parts(held["q"], held["qlens"])
    asks = np.array([asked[str(i)] for i in held["qids"]])
    kept = np.flatnonzero(asks < HALF)
    chosen = [pages[k] for k in np.argsort(numbers) if numbers[k] < HALF]
    return Pool(chosen, [questions[k] for k in kept], torch.from_numpy(asks[kept]))


def relevant(qrels: Path) -> dict[str, int]:
    """Question id -> number of the page that answers it, from 0, out of a qrels.tsv."""
    rows = [line.split("\t") for line in qrels.read_text("utf-8").splitlines()[1:]]
    return {query: int(page.rsplit("#", 1)[1]) for query, page, _ in rows}


def parts(values: np.ndarray, lengths: np.ndarray) -> list[torch.Tensor]:
    """`values` (t, d) cut into pieces of those lengths."""
    return list(torch.split(torch.from_numpy(values), lengths.tolist()))
