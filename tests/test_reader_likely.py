"""Letters in doubt: what makes the likelier word is taken, and what is not taken however likely."""

from __future__ import annotations

import numpy as np
import pytest

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.ctc import Doubts, ctc
from retriever.encoders.box.likely import likelier
from retriever.encoders.box.pieces import UNKNOWN, Pieces
from retriever.encoders.box.scripts import japanese
from retriever.encoders.box.weights import FOLDER, Weights


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return Pieces(Weights(FOLDER).tensors("pieces.safetensors"))


def read(pieces: Pieces, line: str, by: dict[int, str], less: float = -1.0) -> str:
    """A line, `by` place what else each letter could be, at `less`."""
    told = [dict.fromkeys(by[i], less) if i in by else {} for i in range(len(line))]
    return "".join(likelier(line, told, pieces.nats))


@pytest.mark.parametrize(
    ("line", "by", "told"),
    [
        ("cơ quan Liển hợp", {10: "êềể"}, "cơ quan Liên hợp"),
        ("external extermal", {14: "n"}, "external external"),
        ("нвподобие", {1: "а"}, "наподобие"),
        ("видоВ", {4: "в"}, "видов"),
        ("Ευρωπαίκό", {6: "ϊ"}, "Ευρωπαϊκό"),
        ("その傾域に使われ", {2: "領"}, "その領域に使われ"),
        ("この夕イプは", {2: "タ"}, "このタイプは"),
        ("무잇보다도", {1: "엇"}, "무엇보다도"),
        ("please instal1 1ogs", {13: "l", 15: "l"}, "please install logs"),
        ("așezare șì", {9: "i"}, "așezare și"),
    ],
)
def test_the_likelier_word_is_taken(pieces: Pieces, line: str, by: dict[int, str], told: str) -> None:
    assert read(pieces, line, by=by) == told
    assert read(pieces, line, by=by, less=-30.0) == line  # what the recogniser rules out is not


@pytest.mark.parametrize(
    ("line", "by", "why"),
    [
        ("în țară și", {0: "i"}, "the mark is of the line's language"),
        ("Ténèbres", {1: "e"}, "so without a clear language"),
        ("kılan ağaç", {1: "i"}, "dotless i is Turkish"),
        ("Άντι", {0: "Α"}, "a Greek accent stays"),
        ("model X5l", {8: "i"}, "words with figures are codes"),
        ("utf16 v1 S1a", {3: "l", 7: "l", 10: "l"}, "ones of numbers, versions, codes"),
        ("Variant", {0: "v"}, "the first letter keeps its case"),
        ("栉水母类", {0: "节"}, "Chinese lines stay"),
        ("はこの經った", {3: "渓"}, "sure of nothing likelier"),
        ("tạp chí", {1: "а"}, "a Cyrillic letter is of another script"),
    ],
)
def test_what_is_left_as_it_is_read(pieces: Pieces, line: str, by: dict[int, str], why: str) -> None:
    assert read(pieces, line, by=by, less=0.0) == line, why


def test_rare_chinese_characters_are_not_put_into_japanese(pieces: Pieces) -> None:
    assert [japanese(c) for c in "獣増獸靈别壳aあ가"] == [2, 2, 1, 1, 0, 0, 2, 2, 2]
    assert read(pieces, "延喜式には獣肉の", by={5: "獸兽"}, less=0.0) == "延喜式には獣肉の"


def test_a_letter_that_came_twice_is_read_once(pieces: Pieces) -> None:
    line = "khu rừìng rậm"
    told = likelier(line, [{"": -0.5} if i == 6 else {} for i in range(len(line))], pieces.nats)
    assert told[6] == "" and "".join(told) == "khu rừng rậm"
    for line in ("Ҥ", "xq", "ўқҥ"):  # a word of which all letters are in doubt keeps three
        assert len("".join(likelier(line, [{"": 0.0}] * len(line), pieces.nats))) == len(line)


def test_nats_are_of_the_best_pieces_and_no_piece_is_unlikely(pieces: Pieces) -> None:
    scores = pieces.scores
    assert pieces.nats("external") == pytest.approx(-sum(float(scores[p.id]) for p in pieces.word("external")))
    assert pieces.nats("\U00012000") == pytest.approx(UNKNOWN, abs=12)
    assert pieces.nats("external") < pieces.nats("extermal")


def test_a_line_takes_what_its_steps_say(pieces: Pieces) -> None:
    characters = ["", *"externalm "]
    word = [characters.index(c) for c in "extermal"]
    best = np.array([k for c in word for k in (c, 0)])
    sure = np.full(len(best), 0.9995)
    classes = np.stack([best, np.full(len(best), characters.index("n"))], axis=1)
    logits = np.tile(np.array([5.0, -20.0], np.float32), (len(best), 1))
    place = 2 * 5
    none = np.zeros((0, 2), int)
    logits[place, 1] = -1.5
    assert ctc(best, sure, characters, none, Doubts(classes, logits, pieces.nats)).text == "extermal"  # it is sure
    logits[place, 1] = 4.0
    told = ctc(best, sure, characters, none, Doubts(classes, logits, pieces.nats))
    assert told.text == "external" and [word for word, _, _ in told.words] == ["external"]
    assert ctc(best, sure, characters, none).text == "extermal"
    untold = np.where(np.arange(len(best))[:, None] == place, characters.index("n"), classes)
    assert ctc(best, sure, characters, none, Doubts(untold, logits - 40, pieces.nats)).text == "external"
    twice = np.array([characters.index(c) if c else 0 for d in "externnal" for c in (d, "")])
    gone = np.stack([twice, np.zeros_like(twice)], axis=1)
    logits = np.tile(np.array([5.0, -20.0], np.float32), (len(twice), 1))
    logits[12, 1] = 5.0
    told = ctc(twice, np.full(len(twice), 0.9995), characters, none, Doubts(gone, logits, pieces.nats))
    assert told.text == "external" and len(told.centres) == 8


def test_the_recogniser_tells_what_it_hesitated_between() -> None:
    reader = BoxEncoder(threads=1).reader
    line = np.full((48, 200, 3), 255, np.uint8)
    line[12:36, 20:24] = line[12:36, 60:64] = 0
    x = (line.transpose(2, 0, 1)[None] / np.float32(127.5) - 1).astype(np.float32)
    best, sure, others, logits, curly = reader._recogniser.run(None, {"x": x})
    assert best.shape == sure.shape == curly.shape and others.shape == logits.shape == (len(best), others.shape[1])
    for step in np.flatnonzero(best):
        own = logits[step][others[step] == best[step]]
        assert len(own) and own.max() >= logits[step].max() - 1e-3
