"""Lines of Japanese: which kanji in doubt stands likelier beside the others, characters of a page."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pymupdf
import pytest

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.ctc import Doubts, ctc
from retriever.encoders.box.japanese import DISCOUNT, Japanese
from retriever.encoders.box.reader import Reader
from retriever.training.reader.japanese import table

TEXT = (
    "鉱山の開発に伴い、鉱害の調査と防止の方法が討議された。沢の水は畑を潤し、児童は庁舎の裏で遊ぶ。"
    "戦争の後、城に入った武士は獣を追い、山々の猟師と交渉した。請求書は月末に送付し、総額を掲示する。"
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return BoxEncoder(threads=1).reader


@pytest.fixture(scope="module")
def known(reader: Reader) -> Japanese:
    (found,) = [language for language in reader.languages if isinstance(language, Japanese)]
    return found


def test_the_table_tells_what_stands_beside() -> None:
    told = Japanese(table([("鉱山", 19.0), ("鉱業", 6.4), ("山岳", 2.0), ("靈山", 50.0)]))
    whole = math.e**3 + math.e**2 + math.e
    end = (math.e**3 + 0.1) / (whole + 700)
    after = (math.e**3 - DISCOUNT + 2 * DISCOUNT * end) / (math.e**3 + math.e**2)
    assert told.nats("山", "鉱", "") == pytest.approx(-math.log(after))
    assert told.nats("山", "", "") == told.nats("山", "靈", "") == pytest.approx(-math.log(end))  # level 2 is left out
    peak = (math.e - DISCOUNT + DISCOUNT * (math.e + 0.1) / (whole + 700)) / math.e
    assert told.nats("山", "鉱", "岳") == pytest.approx(-math.log(after * peak))
    assert told.nats("山", "", "業") > told.nats("鉱", "", "業")


@pytest.mark.parametrize(
    ("text", "second", "told"),
    [
        ("鶏の卵척理等が紹介され", "料", "鶏の卵料理等が紹介され"),
        ("鶏の卵척理等が紹介され", "a", "鶏の卵척理等が紹介され"),  # nothing like it was likely
        ("卵척理이다하고の卵", "料", "卵척理이다하고の卵"),  # a line in Korean
    ],
)
def test_hangul_in_a_line_of_japanese_is_what_is_likeliest_besides(text: str, second: str, told: str) -> None:
    characters = ["", " ", *dict.fromkeys(text + second)]
    best = np.zeros(4 * len(text), int)
    best[::4] = [characters.index(c) for c in text]
    classes = np.stack([best, np.where(best == characters.index("척"), characters.index(second), 0)], 1)
    doubts = Doubts(classes, np.tile([9.0, 5.0], (len(best), 1)), lambda _: 1.0)
    assert ctc(best, np.full(len(best), 0.9), characters, np.zeros((0, 2), int), doubts).text == told


@pytest.mark.parametrize(
    ("read", "doubts", "told"),
    [
        ("銅の拡山を開く", {2: {"鉱": -1.0}}, "銅の鉱山を開く"),
        ("銅の鉱山を開く", {2: {"拡": -0.1, "並": -0.1}}, "銅の鉱山を開く"),
        ("その傾域に使われ", {2: {"領": -1.0}}, "その領域に使われ"),
        ("無血人城を果たし", {2: {"入": -1.0}}, "無血入城を果たし"),
        ("賊争の後", {0: {"戦": -2.0}}, "戦争の後"),
        ("延喜式には獣肉の", {5: {"獸": 0.0, "兽": 0.0}}, "延喜式には獣肉の"),  # neither is of level 1
        ("銅の拡山を開く", {2: {"鉱": -30.0}}, "銅の拡山を開く"),  # the recogniser rules it out
        ("栉水母类拡山", {4: {"鉱": 0.0}}, "栉水母类拡山"),  # no kana
        ("の拡山은", {1: {"鉱": 0.0}}, "の拡山은"),
    ],
)
def test_kanji_in_doubt_are_those_of_words(
    known: Japanese, read: str, doubts: dict[int, dict[str, float]], told: str
) -> None:
    assert "".join(known.likelier(read, [doubts.get(i, {}) for i in range(len(read))], [*read])) == told


def test_characters_of_a_page_are_read(reader: Reader, known: Japanese) -> None:
    sheet = pymupdf.open().new_page(width=500, height=400)
    css = "* {font-family: sans-serif; font-size: 10pt}"
    sheet.insert_htmlbox(pymupdf.Rect(50, 50, 450, 380), f"<p>{TEXT}</p>" * 2, css=css)
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    true = Counter(TEXT * 2)
    found = (true & Counter("".join(reader.words(image).texts))).total() / true.total()
    languages, reader.languages = reader.languages, [one for one in reader.languages if one is not known]
    without = (true & Counter("".join(reader.words(image).texts))).total() / true.total()
    reader.languages = languages
    assert found >= 0.93
    assert found >= without + 0.03
