"""Training of the head of the encoder in the box: what is asked, what a batch holds, killed and gone on with."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pymupdf
import pytest
import torch

from retriever.training.box.head import train
from retriever.training.box.hoods import Hoods, Years, bm25
from retriever.training.box.pages import cells, crossings, spans
from retriever.training.box.pools import Pool
from retriever.training.box.years import editions

TEXTS = ["the budget of the school", "apples and pears in the garden", "the garden of the school", "buses and roads"]
QUESTIONS = ["budget of the school", "pears", "the garden", "roads and buses"]


def states(count: int, seed: int, like: np.ndarray | None = None) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 384)) + (0 if like is None else 30 * like)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def written(path: Path, parts: list[np.ndarray], ids: list[int] | None = None) -> None:
    kept = {} if ids is None else {"ids": ids}
    np.savez(path, states=np.concatenate(parts), lens=[len(part) for part in parts], **kept)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pages of two documents, a question of each; the third page was also read from a picture."""
    centres = [states(1, 10 + k).astype(np.float32)[0] for k in range(4)]
    told = [{"text": t, "asks": [q], "series": k // 2} for k, (t, q) in enumerate(zip(TEXTS, QUESTIONS, strict=True))]
    (tmp_path / "pages.json").write_text(json.dumps(told), "utf-8")
    written(tmp_path / "layers-0.npz", [states(5 + k, k, centres[k]) for k in range(2)])
    written(tmp_path / "layers-200.npz", [states(5 + k, k, centres[k]) for k in range(2, 4)])
    written(tmp_path / "read-0.npz", [states(9, 20, centres[2])], [2])
    written(tmp_path / "questions.npz", [states(3, 30 + k, centres[k]) for k in range(4)])
    return tmp_path


def test_a_batch_depends_on_its_step_and_asks_for_the_page_that_answers(folder: Path) -> None:
    hoods = Hoods(folder, np.eye(384, 128, dtype=np.float32))
    lengths = set()
    for step in range(20):
        batch, words = hoods.drawn(step, 3)
        again, _ = hoods.drawn(step, 3)
        assert torch.equal(batch.pages, again.pages) and batch.lens == again.lens
        assert len(batch.lens) == 4 and sum(batch.lens) == len(batch.pages) and words.shape == (4, 4)
        assert sorted(batch.asks.tolist()) == [0, 1, 2, 3] and batch.of.tolist() == [
            k for k in range(4) for _ in range(3)
        ]
        best = torch.stack([(batch.states @ part.T).amax(1) for part in batch.pages.split(batch.lens)], 1)
        assert torch.equal(best.view(4, 3, 4).sum(1).argmax(1), batch.asks)
        assert torch.equal(words.argmax(1), batch.asks)
        lengths |= set(batch.lens)
    assert lengths == {5, 6, 7, 8, 9}  # the page that was read is given either way


def test_bm25_is_that_of_the_formula() -> None:
    scores = bm25(TEXTS, ["the garden"])
    lengths = [len(text.split()) for text in TEXTS]
    for page, text in enumerate(TEXTS):
        expected = 0.0
        for word in ("the", "garden"):
            having, times = sum(word in t.split() for t in TEXTS), text.split().count(word)
            idf = math.log(1 + (4 - having + 0.5) / (having + 0.5))
            expected += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths[page] * 4 / sum(lengths)))
        assert scores[0, page] == pytest.approx(expected, rel=1e-5)


def test_a_cell_is_asked_for_by_its_row_and_its_column() -> None:
    sheet = pymupdf.open().new_page(width=500, height=300)
    rows = [["Country", "Visitors", "Hotels"], ["Norway", "1,204", "310"], ["Portugal", "8,115", "920"]]
    for y, row in enumerate(rows):
        for x, text in enumerate(row):
            sheet.insert_text((50 + 150 * x, 60 + 25 * y), text, fontsize=11)
    lines = cells(sheet.get_text("words"))
    assert [[text for _, _, text in line] for line in lines] == rows
    found = {pair for seed in range(8) for pair in crossings(lines, random.Random(seed))}
    assert found == {(row, column) for row in ("Norway", "Portugal") for column in ("Visitors", "Hotels")}


def test_parts_of_sentences_are_made_of_their_words() -> None:
    sentence = "The treasurer proposed to close the eastern hall during winter and to sell two of the older buses."
    made = spans(f"{sentence} {sentence}", "en", random.Random(1))
    assert made and all(set(part.lower().split()) <= set(sentence.lower().strip(".").split()) for part in made)


def test_a_page_in_two_editions_differs_by_its_years_and_its_figures() -> None:
    text = "In 2011 sales were 4,812 in 37 towns, 2010: 4,510 of 9"
    page = {"document": "report.pdf", "text": text, "asks": ["What were sales?"], "series": "report"}
    differ = set()
    for seed in range(20):
        first, second = editions(page, random.Random(seed))
        one, other = (edition["text"].split()[-12:] for edition in (first, second))
        by = int(other[1]) - int(one[1])
        assert one == text.split() and by and other[8] == f"{2010 + by}:"
        differ |= {k for k in range(12) if one[k] != other[k]}
        asked = [
            [int(year) for year in re.findall(r"\d{4}", edition["asks"][0].replace("31", ""))]
            for edition in (first, second)
        ]
        assert asked[1] == [asked[0][0] + by] and str(asked[0][0]) in first["text"].split(" In ")[0]
        assert first["asks"][0].count("?") == 1
    assert differ == {1, 4, 6, 8, 9}


def test_a_batch_of_years_has_both_editions(folder: Path) -> None:
    years = Years(folder, np.eye(384, 128, dtype=np.float32))
    for step in range(10):
        picked, words = years.picked(step, 3)
        numbers = [number for _, number in picked.pages]
        assert sorted(numbers) == [0, 1, 2, 3] and all(
            b == a + 1 for a, b in zip(numbers[::2], numbers[1::2], strict=True)
        )
        assert words.shape == (4, 4)


def test_a_killed_training_goes_on_to_the_same_head(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = states(6, 50).astype(np.float32)
    asks = rng.integers(6, size=60)
    pages = [torch.from_numpy(states(8, k, centres[k])) for k in range(6)]
    questions = [torch.from_numpy(states(4, 100 + k, centres[page])) for k, page in enumerate(asks)]
    pools, start = [Pool(pages, questions, torch.from_numpy(asks))], {"projection": np.eye(384, 128, dtype=np.float32)}
    hoods = Hoods(folder, start["projection"])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = train(pools, start, hoods, tmp_path / "whole", 70, 7e-4, 0)

    class Killed(Hoods):
        def drawn(self, step: int, seed: int) -> tuple[object, torch.Tensor]:  # type: ignore[override]
            if step > 60:
                raise KeyboardInterrupt
            return super().drawn(step, seed)

    with pytest.raises(KeyboardInterrupt):
        train(pools, start, Killed(folder, start["projection"]), tmp_path / "killed", 70, 7e-4, 0)
    again = train(pools, start, hoods, tmp_path / "killed", 70, 7e-4, 0)
    assert torch.equal(whole.projection, again.projection) and torch.equal(whole.stress, again.stress)
    assert not torch.equal(whole.projection, torch.eye(384, 128)) and whole.stress.abs().max() > 0
