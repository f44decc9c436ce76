"""Training only: pages of real documents beside the pages that look most like them, and what is asked of them.

A batch is a page drawn at random, those nearest to it by the head that training starts from, of its own document first,
and questions that any of them answers. A page that was also read from a bad picture is mostly given as it was read.
Beside the full states the words count for the order that is to be kept: BM25 over the pages' text layers. The files are
those that `pages` writes.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from retriever.training.box.pools import Batch, Picked, joined, parts

NEAR, PAGES, QUESTIONS = 24, 40, 40  # pages of the same document at most; pages and questions of a batch
READ = 0.7  # share of the pages read from a picture that are given as read


class Hoods:
    """All pages and questions of a folder. pages, questions: states (t, 384) of each; read: of those read from a
    picture."""

    def __init__(self, folder: Path, axes: np.ndarray) -> None:
        """axes: (384, 128), by which the nearest pages are found."""
        told = json.loads((folder / "pages.json").read_text("utf-8"))
        self.pages = [page for path in _numbered(folder, "layers") for page in _parts(path)]
        self.read: dict[int, torch.Tensor] = {}
        for path in _numbered(folder, "read"):
            with np.load(path) as stored:
                self.read |= {int(i): page for i, page in zip(stored["ids"], _parts(path), strict=True) if len(page)}
        self.questions, texts = _parts(folder / "questions.npz"), [t for page in told for t in page["asks"]]
        self._of = [k for k, page in enumerate(told) for _ in page["asks"]]
        self._answers = [[q for q, k in enumerate(self._of) if k == page] for page in range(len(told))]
        self._series = np.array([page["series"] for page in told])
        means = torch.stack([F.normalize(page.float() @ torch.from_numpy(axes), dim=1).mean(0) for page in self.pages])
        means = F.normalize(F.normalize(means, dim=1) - F.normalize(means, dim=1).mean(0), dim=1)
        self._near = (means @ means.T).numpy()
        self._words = bm25([page["text"] for page in told], texts)

    def drawn(self, step: int, seed: int) -> tuple[Batch, torch.Tensor]:
        """The batch of a step, which depends on `seed` and `step` only, and what BM25 says of it, (q, n)."""
        picked, words = self.picked(step, seed)
        pages = [self.read[i] if read else self.pages[i] for read, i in picked.pages]
        return joined([self.questions[i] for _, i in picked.questions], picked.asks, pages), words

    def picked(self, step: int, seed: int) -> tuple[Picked, torch.Tensor]:
        """What `drawn` gives, by numbers."""
        rng = np.random.default_rng((seed, step, 7))
        first = int(rng.integers(len(self.pages)))
        near = np.argsort(-self._near[first], kind="stable")
        own = near[self._series[near] == self._series[first]][:NEAR]
        return self._about([*own, *near[~np.isin(near, own)][: PAGES - len(own)]], rng)

    def _about(self, pages: list[int], rng: np.random.Generator) -> tuple[Picked, torch.Tensor]:
        """A batch of `pages` and of what is asked of them."""
        asked = [(question, at) for at, page in enumerate(pages) for question in self._answers[page]]
        if len(asked) > QUESTIONS:
            asked = [asked[k] for k in rng.choice(len(asked), QUESTIONS, replace=False)]
        given = [(int(i in self.read and rng.random() < READ), i) for i in map(int, pages)]
        words = self._words[[question for question, _ in asked]][:, pages]
        asks = torch.tensor([at for _, at in asked])
        return Picked([(0, question) for question, _ in asked], asks, given), torch.from_numpy(words)


class Years(Hoods):
    """The pages of a folder that `years` wrote: a batch has both editions of each."""

    def picked(self, step: int, seed: int) -> tuple[Picked, torch.Tensor]:
        """What `drawn` gives, by numbers."""
        rng = np.random.default_rng((seed, step, 13))
        first = 2 * int(rng.integers(len(self.pages) // 2))
        near = np.argsort(-self._near[first, ::2], kind="stable")[: PAGES // 2]
        return self._about([2 * int(page) + edition for page in near for edition in (0, 1)], rng)


def bm25(pages: list[str], texts: list[str]) -> np.ndarray:
    """(questions, pages) float32; k1 1.2, b .75."""
    counts = [Counter(re.findall(r"\w+", page.lower())) for page in pages]
    lengths = np.array([sum(count.values()) for count in counts])
    room = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    found: dict[str, np.ndarray] = {}
    scores = np.zeros((len(texts), len(pages)), np.float32)
    for row, text in zip(scores, texts, strict=True):
        for word in dict.fromkeys(re.findall(r"\w+", text.lower())):
            if word not in found:
                times = np.array([count[word] for count in counts], np.float32)
                having = np.count_nonzero(times)
                rare = math.log(1 + (len(pages) - having + 0.5) / (having + 0.5))
                found[word] = (rare * times * 2.2 / (times + room)).astype(np.float32)
            row += found[word]
    return scores


def _numbered(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.npz"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))


def _parts(path: Path) -> list[torch.Tensor]:
    with np.load(path) as stored:
        return parts(stored["states"], stored["lens"])
