"""Tuning of the upper layers of the encoder in the box: the layers in torch, killed and gone on with, written back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.page import Words
from retriever.encoders.box import PASSAGE, BoxEncoder
from retriever.encoders.box.initialisers import initialisers
from retriever.encoders.box.states import WINDOW
from retriever.encoders.box.weights import FOLDER, Weights
from retriever.training.box import head
from retriever.training.box.frozen import Frozen, laid
from retriever.training.box.hoods import Hoods
from retriever.training.box.pools import Picked, Pool
from retriever.training.box.tune import Lessons, Tuned, documents, export, fewer, lesson, train
from retriever.training.box.upper import Layer, embedded

README = " ".join((Path(__file__).parents[1] / "README.md").read_text("utf-8").split()[:150])
TEXT = f"{README} Наука и жизнь, 日本語の文章です。 Chapter one . . . . . 12"
PAGES = [
    "The budget of the school was raised to four thousand pounds in March .",
    "Apples and pears grow in the garden behind the house of the miller .",
    "Buses leave for the harbour at six , seven and nine in the morning .",
    "Der Zug nach Hamburg fährt um acht Uhr von Gleis drei ab .",
]
TOPICS = ["budget of the school", "apples and pears", "buses to the harbour", "Zug nach Hamburg"]
QUESTIONS = [f"{form} {topic}" for topic in TOPICS for form in ["when", "who", "where", *map(str, range(10, 20))]]


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    return Frozen(FOLDER, 1, tmp_path_factory.mktemp("frozen"), "cpu")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full rates from the second step, and the state kept every fourth."""
    monkeypatch.setattr(head, "WARM", 2)
    monkeypatch.setattr(head, "KEPT", 4)


@pytest.fixture
def lessons(frozen: Frozen) -> Lessons:
    """A pool of four pages and 52 questions, whose known states are those of the model as it ships."""
    pages, questions, model = frozen.pages(PAGES), frozen.questions(QUESTIONS), Tuned(FOLDER, 1)
    with torch.no_grad():
        known = [[model.states([reading]).half() for reading in readings] for readings in (pages, questions)]
    pool = Pool(*known, torch.arange(len(QUESTIONS)) // 13)
    return Lessons([pool], [pages], [questions])


@pytest.fixture
def manuals(frozen: Frozen, lessons: Lessons, tmp_path: Path) -> tuple[Hoods, Lessons]:
    told = [{"text": t, "asks": QUESTIONS[13 * k :][:2], "series": k // 2} for k, t in enumerate(PAGES)]
    (tmp_path / "pages.json").write_text(json.dumps(told), "utf-8")
    pool = lessons.known[0]
    asked = [question for k in range(4) for question in pool.questions[13 * k :][:2]]
    for name, states in (("layers-0", pool.pages), ("questions", asked)):
        lens = [len(part) for part in states]
        np.savez(tmp_path / f"{name}.npz", states=torch.cat(states).numpy(), lens=lens, ids=range(len(lens)))
    return documents(tmp_path, np.eye(384, 128, dtype=np.float32), frozen)


def test_layers_in_torch_give_the_states_of_the_session(encoder: BoxEncoder) -> None:
    stored = initialisers(Weights(FOLDER).read("states.onnx"))
    ids = [piece.id for word in TEXT.split() for piece in encoder._pieces.word(word)]
    read, places = laid(ids, encoder._prompts[PASSAGE], WINDOW)
    assert len(read) > 1
    states = embedded(stored, encoder._states._table.rows(read.ravel()).reshape(*read.shape, -1)).flatten(0, 1)
    with torch.inference_mode():
        for number in range(12):
            states = Layer(stored, number)(states, [read.shape])
    np.testing.assert_allclose(states[places], encoder.states(TEXT), atol=1e-4)


def test_texts_are_read_as_the_encoder_reads_them(encoder: BoxEncoder, frozen: Frozen) -> None:
    words = TEXT.split()
    vectors = encoder.embed(Words(words, np.zeros((len(words), 4), np.float32))).vectors
    model = Tuned(FOLDER, 1)
    with torch.no_grad():
        states = model.states(frozen.pages([TEXT]))
        found = torch.nn.functional.normalize(states @ model.head.projection, dim=1).numpy()
        asked = model.states(frozen.questions([QUESTIONS[0]])) @ model.head.projection
    assert found.shape == vectors.shape and (found * vectors).sum(1).mean() > 0.99  # pages are read in 8 bits
    (query,) = encoder.encode_queries([QUESTIONS[0]])
    asked, expected = (torch.nn.functional.normalize(v, dim=1) for v in (asked, torch.from_numpy(query)))
    torch.testing.assert_close(asked, expected, atol=1e-3, rtol=0)


def test_what_is_frozen_is_read_from_the_disk_again(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = frozen.pages([TEXT])
    monkeypatch.setattr(frozen, "_layers", None)
    (again,) = frozen.pages([TEXT])
    assert torch.equal(first.states, again.states) and torch.equal(first.places, again.places)


def test_fewer_pages_are_asked_for_by_the_questions_that_stay() -> None:
    asks, words = torch.tensor([3, 0, 3, 2, 1, 1]), torch.arange(24).reshape(6, 4)
    whole = Picked([(0, k) for k in range(6)], asks, [(0, 10 + k) for k in range(4)])
    for seed in range(5):
        part, said = fewer(whole, words, 2, np.random.default_rng(seed))
        pages = [page - 10 for _, page in part.pages]
        assert len(pages) == 2 and 3 in pages
        questions = [k for _, k in part.questions]
        assert [pages[at] for at in part.asks.tolist()] == asks[questions].tolist()
        assert questions == [k for k in range(6) if asks[k] in pages] and torch.equal(said, words[questions][:, pages])


def test_steps_lower_the_loss_and_a_killed_run_goes_on_to_the_same(
    lessons: Lessons, manuals: tuple[Hoods, Lessons], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tuned(name: str) -> Tuned:
        model = Tuned(FOLDER, 1)
        (tmp_path / name).mkdir(exist_ok=True)
        train(model, lessons, manuals, tmp_path / name, 8, rate=3e-3, most=3)
        return model

    whole = tuned("whole")
    start = Tuned(FOLDER, 1)
    with torch.no_grad():
        before, after = (
            np.mean([model.loss(*lesson(lessons, manuals, step, 5, 4)).item() for step in range(4)])
            for model in (start, whole)
        )
    assert after < 0.9 * before

    def killed(self: Tuned, *given: object) -> torch.Tensor:
        if len(calls) == 6:
            raise KeyboardInterrupt
        calls.append(0)
        return loss(self, *given)

    calls, loss = list[int](), Tuned.loss
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Tuned, "loss", killed)
        tuned("killed")
    again = tuned("killed")
    for name, values in whole.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name
    for name, values in start.named_parameters():
        assert not torch.equal(values, whole.state_dict()[name]), name


def test_what_is_not_tuned_is_written_as_it_was(tmp_path: Path) -> None:
    export(Tuned(FOLDER, 3), FOLDER, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name in {x.name for x in tmp_path.iterdir()}
    }
    assert Weights(tmp_path).digests == Weights(FOLDER).digests


def test_a_folder_that_was_written_gives_the_tuned_states(frozen: Frozen, lessons: Lessons, tmp_path: Path) -> None:
    model = Tuned(FOLDER, 1)
    train(model, lessons, None, tmp_path, 6, rate=1e-2)
    export(model, FOLDER, tmp_path)
    written = BoxEncoder(threads=1, weights=tmp_path)
    before, after = (initialisers(Weights(folder).read("states.onnx")) for folder in (FOLDER, tmp_path))
    changed = {name for name, values in after.items() if (values != before[name]).any()}
    assert changed == {name for name in after if name.startswith("l11.")}
    with torch.no_grad():
        states = model.states(frozen.pages([TEXT]))
        found = torch.nn.functional.normalize(states @ model.head.projection, dim=1)
    words = TEXT.split()
    vectors = torch.from_numpy(written.embed(Words(words, np.zeros((len(words), 4), np.float32))).vectors)
    assert (found * vectors).sum(1).mean() > 0.99
    shipped = Tuned(FOLDER, 1).states(frozen.questions(QUESTIONS[:1]))
    tuned, (query,) = model.states(frozen.questions(QUESTIONS[:1])), written.encode_queries(QUESTIONS[:1])
    expected = torch.nn.functional.normalize(torch.from_numpy(query), dim=1)
    close = torch.nn.functional.normalize(tuned @ model.head.projection, dim=1)
    torch.testing.assert_close(close, expected, atol=1e-3, rtol=0)
    other = torch.nn.functional.normalize(shipped @ model.head.projection, dim=1)
    assert (other - expected).abs().max() > 1e-2
