"""Losses against formulas, gradients against finite differences, batches and sources against what they are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import sets
import torch
from checkpoints import JINA
from training_sets import PAIRS, page, pages

from index.errors import OctavoError
from ingest.render import Renderer
from retriever.encoders.jina_v4 import JinaV4, Vectors
from retriever.training import losses
from retriever.training.batches import Pictures, batch_of
from retriever.training.data import Graded, PageOf, Pair, batch_at, read, split_off
from retriever.training.gradients import accumulate
from retriever.training.mining import negatives_of

DIMS = [4, 8]


def drawn(lengths: list[int], seed: int) -> list[Vectors]:
    """Unit vectors in float64: singles of 8, tokens of 5."""
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> torch.Tensor:
        found = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return found / found.norm(dim=-1, keepdim=True)

    return [Vectors(unit(8), unit(length, 5)) for length in lengths]


def log_softmax(row: list[float]) -> list[float]:
    whole = math.log(sum(math.exp(value - max(row)) for value in row)) + max(row)
    return [value - whole for value in row]


def cosine(one: torch.Tensor, other: torch.Tensor, dim: int) -> float:
    a, b = one.detach().numpy()[:dim], other.detach().numpy()[:dim]
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def mean_max(query: Vectors, document: Vectors) -> float:
    """Late interaction token by token, over the query's tokens."""
    assert query.multi is not None and document.multi is not None
    return sum(max(float(q @ d) for d in document.multi) for q in query.multi) / len(query.multi)


QUERIES, DOCUMENTS = drawn([3, 1, 4], 0), drawn([2, 6, 1, 5], 1)
RIGHT = torch.tensor([2, 0, 3])
LEFT_OUT = torch.zeros(3, 4, dtype=torch.bool)
LEFT_OUT[0, 1] = LEFT_OUT[2, 0] = True


def test_the_joint_loss_is_that_of_the_paper_written_out() -> None:
    tau, late_nce, dense_nce, kl = 0.02, 0.0, 0.0, 0.0
    for i, query in enumerate(QUERIES):
        kept = [j for j in range(4) if not LEFT_OUT[i, j]]
        right = kept.index(int(RIGHT[i]))
        late = log_softmax([mean_max(query, DOCUMENTS[j]) / tau for j in kept])
        dense = {d: log_softmax([cosine(query.single, DOCUMENTS[j].single, d) / tau for j in kept]) for d in DIMS}
        late_nce -= late[right] / 3
        dense_nce -= sum(dense[d][right] for d in DIMS) / len(DIMS) / 3
        kl += sum(math.exp(p) * (p - q) for p, q in zip(dense[8], late, strict=True)) / 3
    found = losses.contrast(QUERIES, DOCUMENTS, RIGHT, LEFT_OUT, DIMS)
    assert float(found) == pytest.approx(late_nce + dense_nce + kl, rel=1e-6)
    scores = losses.late_scores([q.multi for q in QUERIES], [d.multi for d in DOCUMENTS])  # type: ignore[misc]
    assert float(losses.info_nce(scores, RIGHT, LEFT_OUT)) == pytest.approx(late_nce, rel=1e-6)
    whole = losses.dense_scores(
        torch.stack([q.single for q in QUERIES]), torch.stack([d.single for d in DOCUMENTS]), dim=8
    )
    assert float(losses.divergence(whole, scores, LEFT_OUT)) == pytest.approx(kl, rel=1e-6)
    assert float(losses.divergence(whole, whole, LEFT_OUT)) == 0.0


def test_cosent_is_its_double_sum() -> None:
    ones, others, grades = drawn([3, 1, 4, 2], 2), drawn([2, 6, 1, 5], 3), [0.0, 5.0, 2.5, 2.5]

    def written_out(scores: list[float]) -> float:
        pairs = [(i, j) for i in range(4) for j in range(4) if grades[i] > grades[j]]
        return math.log(1 + sum(math.exp((scores[j] - scores[i]) / 0.02) for i, j in pairs))

    late = written_out([mean_max(a, b) for a, b in zip(ones, others, strict=True)])
    dense = [written_out([cosine(a.single, b.single, d) for a, b in zip(ones, others, strict=True)]) for d in DIMS]
    found = losses.graded(ones, others, torch.tensor(grades), DIMS)
    assert float(found) == pytest.approx(late + sum(dense) / 2, rel=1e-6)
    assert float(losses.cosent(torch.tensor([0.1, 0.9]), torch.tensor([1.0, 1.0]))) == 0.0


def test_gradients_of_the_losses_are_finite_differences() -> None:
    right, left_out = RIGHT, LEFT_OUT

    def contrast(*parts: torch.Tensor) -> torch.Tensor:
        found = [Vectors(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
        return losses.contrast(found[:3], found[3:], right, left_out, DIMS)

    def graded(*parts: torch.Tensor) -> torch.Tensor:
        found = [Vectors(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
        return losses.graded(found[:3], found[3:6], torch.tensor([1.0, 3.0, 2.0]), DIMS)

    parts = [part.clone().requires_grad_() for one in [*QUERIES, *DOCUMENTS] for part in one if part is not None]
    for function in (contrast, graded):
        assert torch.autograd.gradcheck(function, parts, eps=1e-7, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def model() -> JinaV4:
    return JinaV4(JINA)


def test_pieces_give_the_gradient_of_the_whole_and_of_finite_differences(model: JinaV4, tmp_path: Path) -> None:
    some = PAIRS[:7]
    folder = pages(tmp_path / "set", some) / "pages"
    files = [folder / f"{a}-{b}.png" for a, b in some]
    pairs = [Pair(f"{a} over {b}", p := PageOf(f, 1), frozenset([p])) for (a, b), f in zip(some, files, strict=True)]
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:60])
    pairs.append(Pair("broken", PageOf(tmp_path / "broken.png", 1), frozenset()))
    weights = model.trainable("code")
    assert len(weights) == 44 and all(".code." in name for name in weights)
    with Renderer() as renderer:
        pictures = Pictures(model, renderer)
        batch = batch_of(model, pairs, "code", pictures, 0)
    assert batch is not None and len(batch.rows) == 14
    assert [page.path.name for page in pictures.failed] == ["broken.png"]

    def embed(places: list[int], piece: int) -> list[Vectors]:
        return model.vectors([batch.rows[i] for i in places], ["code"] * len(places))

    def gradients(at_once: int) -> tuple[float, dict[str, torch.Tensor]]:
        for weight in weights.values():
            weight.grad = None
        loss = accumulate(embed, [len(row.ids) for row in batch.rows], at_once, batch.loss)
        return loss, {name: w.grad.clone() for name, w in weights.items() if w.grad is not None}

    (whole, wanted), (pieced, found) = gradients(14), gradients(3)
    assert pieced == pytest.approx(whole, rel=1e-5) and found.keys() == wanted.keys() == weights.keys()
    scale = max(float(part.abs().max()) for part in wanted.values())
    for name, part in wanted.items():
        torch.testing.assert_close(found[name], part, rtol=1e-3, atol=1e-5 * scale)
    length = math.sqrt(sum(float(part.square().sum()) for part in wanted.values()))
    step = 2e-4

    def moved(by: float) -> float:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(wanted[name], alpha=by / length)
            return float(batch.loss(embed(list(range(14)), 0)))

    up, down = moved(step), moved(-2 * step)
    moved(step)
    assert (up - down) / (2 * step) == pytest.approx(length, rel=0.02)


def test_every_pair_comes_once_a_turn_in_an_order_of_the_seed() -> None:
    turn = [batch_at(10, 3, number, seed=1) for number in range(3)]
    seen = [place for batch in turn for place in batch]
    assert len(set(seen)) == 9 and turn == [batch_at(10, 3, number, seed=1) for number in range(3)]
    assert batch_at(10, 3, 3, seed=1) != turn[0] != batch_at(10, 3, 0, seed=2)
    assert sorted(batch_at(2, 5, 7, seed=0)) == [0, 1]
    pairs = [Pair(f"q{i % 10}", str(i), frozenset()) for i in range(40)]
    learnt, held = split_off(pairs, 0.2, seed=3)
    assert len(held) == 8 and not {p.query for p in learnt} & {p.query for p in held}


def test_negatives_neither_answer_nor_score_as_an_answer_does() -> None:
    pair = Pair("q", "right", frozenset(["right", "also"]))
    scored = [("also", 11.0), ("right", 10.0), ("twin", 9.6), ("hard", 9.4), ("harder", 9.3), ("easy", 1.0)]
    assert negatives_of(scored, pair, 2) == ["hard", "harder"]
    assert negatives_of([one for one in scored if one[0] != "right"], pair, 2) == ["harder", "easy"]


def test_sources_are_read_as_pairs(tmp_path: Path) -> None:
    (own,) = read(str(sets.plain(tmp_path / "own")), "train", tmp_path / "cache")
    pair = next(pair for pair in own.pairs if pair.query == sets.QUERIES["forest"])
    assert len(own.pairs) == 4 and pair.document == PageOf(tmp_path / "own" / "pages" / "forest.png", 1)
    sets.arrow(
        tmp_path / "disk", {"query": [*sets.QUERIES.values(), None], "image": [*sets.images(), sets.images()[0]]}
    )
    (disk,) = read(str(tmp_path / "disk"), "train", tmp_path / "cache")
    assert [pair.query for pair in disk.pairs] == list(sets.QUERIES.values())
    for pair, name in zip(disk.pairs, sets.PAGES, strict=True):
        assert isinstance(pair.document, PageOf)
        assert pair.document.path.read_bytes() == sets.images()[list(sets.PAGES).index(name)]["bytes"]
    (hub,) = read(str(sets.beir(tmp_path / "hub")), "test", tmp_path / "cache")
    last = list(sets.QUERIES.values())[3]
    assert len(hub.pairs) == 5
    assert [len(pair.answers) for pair in hub.pairs if pair.query == last] == [2, 2]


def test_triplets_and_grades_are_read_from_files(tmp_path: Path) -> None:
    rows = [
        {"query": "sort a list", "positive": "def sort(x): ...", "negative": "def shuffle(x): ..."},
        {"query": "sort a list", "positive": "sorted(x)", "negatives": ["len(x)", "max(x)"]},
    ]
    file = tmp_path / "code.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    (code,) = read(str(file), "train", tmp_path / "cache")
    answers = frozenset(["def sort(x): ...", "sorted(x)"])
    assert list(code.pairs) == [
        Pair("sort a list", "def sort(x): ...", answers, ("def shuffle(x): ...",)),
        Pair("sort a list", "sorted(x)", answers, ("len(x)", "max(x)")),
    ]
    (tmp_path / "sts.tsv").write_text("sentence1\tsentence2\tscore\na cat\ta dog\t2.5\n")
    (graded,) = read(str(tmp_path / "sts.tsv"), "train", tmp_path / "cache")
    assert list(graded.graded) == [Graded("a cat", "a dog", 2.5)]
    for name, content, told in (
        ("bad.jsonl", '{"query": "q"}', "row 1: an image, or a positive text"),
        ("worse.jsonl", '{"query": "q", "positive": "p", "negative": [1]}', "row 1: negatives are texts"),
        ("none.jsonl", '{"question": "q"}', "there is no query"),
        ("x.png", "", "a table is expected"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(OctavoError, match=told):
            read(str(tmp_path / name), "train", tmp_path / "cache")
    (tmp_path / "bare").mkdir()
    page("red", "blue").save(tmp_path / "bare" / "a.png")
    with pytest.raises(OctavoError, match="there are no pairs"):
        read(str(tmp_path / "bare"), "train", tmp_path / "cache")
