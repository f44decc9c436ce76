"""The tokenizer of the box against the `tokenizers` library over the same pieces, and its places in words."""

from __future__ import annotations

import random

import numpy as np
import pytest

from retriever.encoders.box.pieces import SPECIALS, UNK, Pieces, packed
from retriever.encoders.box.weights import Weights

TEXTS = [
    "Net revenue by region, 2023: $4,512.7 million (+3.2%)",
    "Die Umsatzerlöse stiegen im Geschäftsjahr 2022/23 um 4 %.",
    "日本の首都は東京です\u3002デ\u30fcタベ\u30fcス",
    "Москва \u2014 столица России",
    "สว\u0e31สด\u0e35ชาวโลก",
    "السلام عليكم ورحمة الله",
    "नमस\u094dत\u0947 द\u0941न\u093fय\u093e",
    "ﬁnance ① ＡＢＣ \u00b4quoted\u00b4 x² \u2122",
    "\U0001f600\U0001f600 \u25a1\u25a1 pneumonoultramicroscopicsilicovolcanoconiosis",
]


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return Pieces(Weights().tensors("pieces.safetensors"))


def ids(pieces: Pieces, text: str) -> list[int]:
    return [piece.id for word in text.split() for piece in pieces.word(word)]


def test_ids_are_those_of_the_tokenizers_library(pieces: Pieces) -> None:
    """The same Unigram, Metaspace and character map as in the reference reader (read_e5.py)."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    log = pieces.scores.astype(float).tolist()
    reference = Tokenizer(models.Unigram(list(zip(pieces.texts, log, strict=True)), unk_id=UNK))
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=False)
    reference.pre_tokenizer = metaspace
    chance = random.Random(0)
    characters = sorted({c for text in TEXTS for c in text})
    noise = [" ".join("".join(chance.choices(characters, k=chance.randint(1, 12))).split()) for _ in range(500)]
    mixed = [" ".join(chance.choices(pieces.texts[SPECIALS:], k=5)).replace("\u2581", "") for _ in range(500)]
    for text in [*TEXTS, *noise, *mixed]:
        text = " ".join(text.split())
        normal = " ".join(filter(None, pieces.normal(text).split(" ")))
        assert ids(pieces, text) == (reference.encode(normal).ids if normal else []), text


def test_pieces_spell_their_word(pieces: Pieces) -> None:
    for text in TEXTS:
        for word in text.split():
            found = pieces.word(word)
            assert "".join(piece.text for piece in found) == pieces.normal(word).replace(" ", "")
            ends = [(piece.start, piece.end) for piece in found]
            assert ends[0][0] == 0 and ends[-1][1] == pytest.approx(1)
            assert all(a[1] == pytest.approx(b[0]) for a, b in zip(ends, ends[1:], strict=False))


def test_loose_accents_are_composed(pieces: Pieces) -> None:
    assert ids(pieces, "cafe\u0301 nin\u0303o") == ids(pieces, "café niño")
    assert ids(pieces, "한글") == ids(pieces, "한글")
    assert ids(pieces, "か\u3099") == ids(pieces, "が")


def test_no_text_spells_a_special_token(pieces: Pieces) -> None:
    for special in ("<s>", "</s>", "<pad>", "<unk>", "<mask>"):
        assert min(ids(pieces, f"{special}x")) >= SPECIALS
    assert "<mask>" not in pieces.texts


def test_every_piece_of_the_model_ships_and_the_commonest_come_first(pieces: Pieces) -> None:
    """multilingual-e5 has 250,002 pieces with <mask>; fewer would spell some language's words otherwise."""
    assert len(pieces.texts) == len(set(pieces.texts)) == len(pieces.scores) == 250_001
    assert np.all(np.diff(pieces.scores[SPECIALS:]) <= 0)


def test_texts_and_scores_are_stored_exactly() -> None:
    texts = ["<s>", "<pad>", "</s>", "<unk>", "\u2581a", "日本"]
    scores = np.array([0, 0, 0, 0, -3.46, -20.36], np.float32)
    normalise = {"normalise.from": np.array([120], np.uint32), "normalise.to": np.frombuffer(b"y", np.uint8)}
    read = Pieces(packed(texts, scores) | normalise)
    assert read.texts == texts and read.scores.tobytes() == scores.tobytes() and read.normal("xé") == "yé"


def test_every_script_is_spelled_without_unknown(pieces: Pieces) -> None:
    for text in TEXTS[:-1]:
        assert UNK not in ids(pieces, text)
    assert ids(pieces, "\U0001fae8\U0001fae8").count(UNK) == 1


def test_common_words_of_business_are_few_pieces(pieces: Pieces) -> None:
    for word in ("revenue", "income", "Table", "2023", "Umsatz", "million", "marché", "東京"):
        assert len(pieces.word(word)) <= 2, word


def test_control_characters_make_no_piece(pieces: Pieces) -> None:
    assert pieces.word("\x00\x07") == ()
    assert np.isfinite(pieces.scores).all()
