"""Lines of Hangul: syllables too many, missing ones, spaces by the picture's gaps; the signs of Korean pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from retriever.encoders.box.ctc import Doubts, ctc
from retriever.encoders.box.hangul import crowded, missing, spaces
from retriever.encoders.box.likely import likelier
from retriever.encoders.box.scripts import settled
from retriever.encoders.box.syllables import Syllables
from retriever.encoders.box.weights import FOLDER, Weights
from retriever.training.reader.syllables import table

LINE = "가나다 라마바 사아자"


def centres(text: str, space: float = 0.4) -> np.ndarray:
    """Where characters of a line stand whose syllables are 4 apart."""
    wide = [4 * (space if c == " " else 1.0) for c in text]
    return np.cumsum(wide) - np.array(wide) / 2


def gaps(text: str, inner: float, outer: float, space: float = 0.4) -> np.ndarray:
    """The gaps (g, 2) of the line in columns of 8 a step: `inner` wide in words, `outer` at spaces."""
    at = centres(text.replace(" ", ""), space)
    ends = [0.0]
    for c in text.replace(" ", "")[:-1]:
        ends.append(outer if text[text.index(c) + 1] == " " else inner)
    shift = np.cumsum([4 * space if wide == outer else 0.0 for wide in ends])
    at = (at + shift) * 8
    middle, wide = (at[1:] + at[:-1]) / 2, np.array(ends[1:])
    return np.stack([middle - wide / 2, middle + wide / 2], axis=1)


@pytest.mark.parametrize(
    ("read", "at", "sure", "kept"),
    [
        ("가나나다라마", [2, 6, 7, 10, 14, 18], [0.9, 0.5, 0.8, 0.9, 0.9, 0.9], "가나다라마"),
        ("가나I다라마", [2, 6, 8, 10, 14, 18], [0.9] * 6, "가나다라마"),
        ("가나1다라마바", [2, 6, 9, 12, 16, 20, 24], [0.9] * 7, "가나1다라마바"),  # there is room for a figure
        ("가나.다라마", [2, 6, 8, 10, 14, 18], [0.9] * 6, "가나.다라마"),
    ],
)
def test_syllables_without_room_go(read: str, at: list[float], sure: list[float], kept: str) -> None:
    gone = crowded([*read], np.array(at, float), np.array(sure))
    assert "".join(c for c, out in zip(read, gone, strict=True) if not out) == kept
    assert not crowded([*"abcd"], np.arange(4.0), np.ones(4)).any()


def test_a_missing_syllable_is_put_where_there_is_room() -> None:
    text = "가나다마 바사"  # 라 is missing
    centre = np.array([2.0, 6, 10, 18, 20.4, 24, 28])
    clear = np.full(31, -np.inf)
    clear[14] = clear[13] = -3
    clear[14] = -2
    clear[20] = 5
    first, end = np.floor(centre).astype(int), np.floor(centre).astype(int) + 1
    assert missing([*text], first, end, clear) == [14]
    assert missing([*text], first, end, np.full(31, -np.inf)) == []


def said(text: str, but: dict[int, float] | None = None) -> np.ndarray:
    """By how many nats a space is likelier after each character, sure of what is there, `but` for some."""
    return np.array([(but or {}).get(i, 10.0 if text[i + 1 : i + 2] == " " else -10.0) for i in range(len(text))])


def told(
    text: str, at: np.ndarray, gaps: np.ndarray, but: dict[int, float], nats: Callable[[str], float] = lambda _: 0.0
) -> tuple[list[int], list[int]] | None:
    return spaces([*text], at, gaps, said(text, but), nats)


def test_spaces_are_where_gaps_are_wide() -> None:
    at = centres(LINE) * 8
    assert told(LINE, at, gaps(LINE, 4, 14), {}) == ([], [])
    missed = LINE.replace("라마바 ", "라마바")
    where = np.delete(at, LINE.index(" 사"))
    assert told(missed, where, gaps(LINE, 4, 14), {6: -4}) == ([], [missed.index("사")])
    assert told(missed, where, gaps(LINE, 4, 4), {6: -4}) == ([], [])
    extra = LINE.replace("나", "나 ", 1)
    where = np.insert(at, 2, (at[1] + at[2]) / 2)
    assert told(extra, where, gaps(LINE, 4, 14), {1: -6}) == ([2], [])
    assert told(extra, where, gaps(LINE, 4, 14), {1: 2}) == ([], [])  # the recogniser is surer
    assert told(extra, where, gaps(LINE, 4, 14)[:0], {1: -6}) is None  # the picture shows no gaps
    assert told("가 나 다", np.arange(5) * 16.0, np.array([[8.0, 10]]), {}) is None  # and few syllables no distance


def test_words_tell_where_a_gap_is_neither_wide_nor_narrow() -> None:
    read, at = LINE.replace("다 라", "다라"), np.delete(centres(LINE), LINE.index(" ")) * 8
    at[3:] -= 8
    unclear = gaps(LINE, 4, 14)
    unclear[3:] -= 8
    unclear[2] += [0, -4]  # 10 columns wide, between 다 and 라
    assert told(read, at, unclear, {2: -4}) == ([], [])
    assert told(read, at, unclear, {2: -4}, lambda word: 30.0 if "다라" in word else 8.0) == ([], [3])
    assert told(read, at, unclear, {2: -4}, lambda _: 8.0) == ([], [])  # one word is 8 nats likelier than two


@pytest.mark.parametrize("pair", ["나(", "나·", "나,"])
def test_no_space_is_missed_inside_brackets_or_beside_dots(pair: str) -> None:
    line = LINE.replace("나", pair, 1)
    at = np.insert(centres(LINE), 2, 8) * 8
    at[3:] += 32
    wide = np.array([[at[2] + 4, at[3] - 4]])
    found = told(line, at, np.concatenate([gaps(LINE, 4, 14)[:1], wide]), {2: 10.0})
    assert found == ([], [3] if pair == "나," else [])


def test_a_line_gets_the_syllable_and_the_space_that_were_missed() -> None:
    characters = ["", *"가나다라마바사아자", " "]
    at = np.floor(centres(LINE)).astype(int)
    steps = int(centres(LINE)[-1]) + 3
    best = np.zeros(steps, int)
    for c, step in zip(LINE, at, strict=True):
        best[step] = characters.index(c)
    logits = np.full((steps, 3), -9.0)  # of none, the second syllable, a space
    logits[:, 0] = 8
    logits[np.flatnonzero(best == characters.index(" ")), 2] = 16
    best[at[1]] = best[at[3]] = 0  # neither the second syllable nor the first space
    logits[at[1], 1] = logits[at[3], 2] = 6
    doubts = Doubts(np.tile([0, 2, characters.index(" ")], (steps, 1)), logits, lambda _: 0.0)
    line = ctc(best, np.full(steps, 0.9), characters, gaps(LINE, 4, 14), doubts)
    assert line.text == LINE


@pytest.mark.parametrize(
    ("read", "at", "kept"),
    [
        ("0이", [3, 4.5], "이"),
        ("C다.", [2, 3, 6], "다."),
        ("1차", [2, 5], "1차"),
        ("2길고 가나", [1, 2, 6, 8, 12, 16], "길고 가나"),
        ("가나다라l", [2, 6, 10, 14, 16], "가나다라"),
        ("가나다라1", [2, 6, 10, 14, 17], "가나다라1"),
        ("가나다다", [2, 6, 10, 11.5], "가나다"),
    ],
)
def test_what_stands_too_close_at_an_end_goes(read: str, at: list[float], kept: str) -> None:
    gone = crowded([*read], np.array(at, float), np.linspace(1, 0.5, len(read)))
    assert "".join(c for c, out in zip(read, gone, strict=True) if not out) == kept


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ("・ 경우， 한・미 （보기）： 끝！", "• 경우, 한·미 (보기): 끝!"),
        ("你好， 世界 · 中文", "你好， 世界 · 中文"),
        ("a · b", "a · b"),
        ('“가” 나" ("다“) 라', "“가” 나” (“다”) 라"),
        ("“가″ 나″이다", "“가” 나”이다"),
        ('"가" "나" 다“ 라', '"가" "나" 다" 라'),
    ],
)
def test_signs_of_korean_pages_are_half_as_wide(read: str, told: str) -> None:
    assert settled(read.split()) == told.split()


def test_chinese_characters_in_words_of_hangul_are_hangul_where_that_is_near() -> None:
    far = {"咎": {"잠": -4.0}, "大": {"대": -5.5}}
    for read, told in (("咎금 화면", "잠금 화면"), ("大학 화면", "大학 화면"), ("咎 금", "咎 금")):
        assert "".join(likelier([*read], [far.get(c, {}) for c in read], lambda _: 0.0)) == told


def test_a_letter_without_room_before_a_mark_goes() -> None:
    at = np.array([2.0, 6, 10, 14, 15.5, 16.8])
    read = [*"가나다라", "}", "."]
    assert crowded(read, at, np.ones(6)).tolist() == [False] * 4 + [True, False]
    assert not crowded(read, at + np.array([0, 0, 0, 0, 1, 3]), np.ones(6)).any()


def test_words_of_hangul_are_likelier_than_what_looks_like_them() -> None:
    told = Syllables(Weights(FOLDER).tensors("syllables.safetensors"), lambda _: 7.0)
    for word, other in (("패키지를", "패기지를"), ("만듭니다.", "만습니다."), ("함수", "합수"), ("글꼴로", "글꿀로")):
        assert told.nats(word) < told.nats(other) - 2
    assert told.nats("abc") == 7.0
    assert told.nats("GNU/리눅스") == told.nats("리눅스")


def test_the_table_of_syllables_is_of_probabilities() -> None:
    told = Syllables(table(Counter({"가나다": 5, "가나": 3, "나라": 2, "바": 1})), lambda _: 0.0)
    for before in ("^^", "^가", "가나", "나라", "하하"):
        every = sum(np.exp(-told._next(before + c)) for c in "가나다라바$")
        assert 0.7 < every < 1.05  # in steps of a twelfth of a nat; the rest is for syllables never seen
    assert told.nats("가나다") < told.nats("나라") < told.nats("다가나") < told.nats("힣힣힣")
