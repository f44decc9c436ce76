"""Training only: what the head is trained on, pages and questions of one language as the encoder's states.

The states are those that `benchmarks/box_quality.py` keeps under /tmp. Only the first half of the pages of
`xquad_pages` is taken, with the questions that they answer: the second half, and every other set, measures. Page
numbers are the same in all languages, so a question of any language asks for a page in any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

LANGUAGES = ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
HALF = 72


class Pool(NamedTuple):
    """pages, questions: states (t, 384) fp16 of each, of norm 1 or of the weights of a question's pieces; asks: (q,)
    which page each question asks for; ids: of the questions."""

    pages: list[torch.Tensor]
    questions: list[torch.Tensor]
    asks: torch.Tensor
    ids: Sequence[str] = ()


class Picked(NamedTuple):
    """What one step is about, by numbers. questions, pages: (source, number) of each, a source being a pool, or of
    pages of documents 0 for the text layer and 1 for what was read; asks: (q,) which of `pages` each asks for."""

    questions: list[tuple[int, int]]
    asks: torch.Tensor
    pages: list[tuple[int, int]]


class Batch(NamedTuple):
    """What one step sees. states (t, 384) of the questions' tokens and `of` (t,), whose they are; asks (q,); pages
    (n, 384) and `lens`."""

    states: torch.Tensor
    of: torch.Tensor
    asks: torch.Tensor
    pages: torch.Tensor
    lens: list[int]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        states, of, asks, pages = (part.to(device) for part in (self.states, self.of, self.asks, self.pages))
        return Batch(states, of, asks, pages, self.lens)


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
    ids = [str(held["qids"][k]) for k in kept]
    return Pool(chosen, [questions[k] for k in kept], torch.from_numpy(asks[kept]), ids)


def joined(questions: list[torch.Tensor], asks: torch.Tensor, pages: list[torch.Tensor]) -> Batch:
    """The batch of the states (t, 384) of each of its questions and of its pages."""
    of = torch.repeat_interleave(torch.arange(len(questions)), torch.tensor([len(q) for q in questions]))
    return Batch(torch.cat(questions).float(), of, asks, torch.cat(pages).float(), [len(page) for page in pages])


def relevant(qrels: Path) -> dict[str, int]:
    """Question id -> number of the page that answers it, from 0, out of a qrels.tsv."""
    rows = [line.split("\t") for line in qrels.read_text("utf-8").splitlines()[1:]]
    return {query: int(page.rsplit("#", 1)[1]) for query, page, _ in rows}


def parts(values: np.ndarray, lengths: np.ndarray) -> list[torch.Tensor]:
    """`values` (t, d) cut into pieces of those lengths."""
    return list(torch.split(torch.from_numpy(values), lengths.tolist()))
