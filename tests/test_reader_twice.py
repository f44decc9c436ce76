"""Hangul in doubt, or taken for Chinese, is read twice."""

from __future__ import annotations

import numpy as np
import pymupdf
import pytest
from test_reader_vietnamese import scanned

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.lines import lines_at
from retriever.encoders.box.scripts import eastern
from retriever.encoders.box.twice import Again, both, doubted, read_again

NAMES = ["", "작", "업", "에", "a", " "]


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


def test_syllables_whose_next_choice_is_near_are_in_doubt() -> None:
    korean = np.array([False, True, True, True, False, False])
    best = np.array([0, 1, 0, 2, 0, 1, 4])
    logits = np.array([[9.0, 8.9], [9, 1], [9, 1], [9, 7], [9, 9], [1, 9], [9, 9]])
    assert doubted(best, logits, korean).tolist() == [3]
    assert doubted(best[:4], logits[:4], korean).tolist() == []  # two syllables make no line of Korean
    assert doubted(np.array([4] * 5), np.zeros((5, 2)), korean).tolist() == []


def test_what_stands_around_a_doubt_is_read_wider_and_keeps_its_place() -> None:
    line = np.tile(np.linspace(0, 255, 1600).astype(np.uint8), (48, 1))  # its grey tells the place
    heard: list[np.ndarray] = []

    def read(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heard.append(picture)
        steps = picture[24, : picture.shape[1] // 8 * 8].reshape(-1, 8).mean(1)
        return np.zeros((len(steps), 1), int), steps[:, None]

    told = read_again(line, line, np.array([50, 150]), read)
    (picture,) = heard
    assert picture.shape[0] == 48
    assert 350 < picture.shape[1] < 450  # two parts of 160 columns, a fifth wider, and paper
    assert np.abs(told.places - told.logits[:, 0] / 255).max() < 0.005
    near = np.abs(told.places[:, None] * 1600 - np.array([50.5, 150.5]) * 8).min(1)
    assert near.max() < 44
    assert len(told.places) > 20
    assert len(read_again(line, line, np.array([50, 55]), read).places) > 10  # one part


def test_of_two_readings_what_is_likelier_in_both_is_told() -> None:
    text, others, centre = ["작", "에", "a"], [{}, {"업": -1.0, "": -5.0}, {}], np.array([0.1, 0.3, 0.5])
    classes = np.array([[1, 2], [0, 3], [2, 3], [0, 4]])
    logits = np.array([[8.0, 1.0], [8, 0], [8, 4], [8, 7]])
    more = Again(np.array([0.1, 0.2, 0.3, 0.5]), classes, logits)
    told, found = both(text, others, centre, more, NAMES)
    assert told == ["작", "업", "a"]
    assert found[1] == {"에": pytest.approx((0 - 4) / 2 - (-1 + 0) / 2), "": -5.0}
    assert found[2] == {}  # nothing was read there again
    assert all(nats <= 0 for other in found for nats in other.values())
    kept, _ = both(text, others, centre, more._replace(logits=logits[:, ::-1]), NAMES)
    assert kept == text


TEXT = """• 사용자는 작업 표시줄에서 창을 최대화할 수 있습니다.
• 국회는 예산안을 심의하고, 대통령은 법률을 공포한다.
• 검은 털을 가진 흉악한 짐승이 어두운 동굴 깊은 곳에 산다.
• 흐르는 강물 위로 흰 눈이 조용히 내리고 있었다.
• 제38조에 따라 모든 국민은 납세의 의무를 진다.
• 그 책은 1998년에 출판되었으며, 지금도 널리 읽힌다."""


@pytest.mark.parametrize("worn", [False, True])
def test_a_korean_page_is_read_with_its_bullets_stops_and_spaces(encoder: BoxEncoder, worn: bool) -> None:
    sheet = pymupdf.open().new_page()
    writer = pymupdf.TextWriter(sheet.rect)
    for i, line in enumerate(TEXT.splitlines()):
        writer.append((72, 90 + 22 * i), line.replace("• ", "•  "), pymupdf.Font("korea"), 10)
    writer.write_text(sheet)
    pixels = sheet.get_pixmap(dpi=150, alpha=False)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    read, true = encoder.reader.words(scanned(image) if worn else image).texts, TEXT.split()
    wrong = [word for word in true if word not in read]
    assert len(wrong) <= (2 if worn else 1), wrong
    assert len(read) <= len(true) + len(wrong)


@pytest.mark.parametrize(("word", "size", "narrow"), [("회전", 10, 0.6), ("그놈", 9, 0.7)])
def test_hangul_made_too_narrow_is_not_taken_for_chinese(
    encoder: BoxEncoder, word: str, size: int, narrow: float
) -> None:
    sheet = pymupdf.open().new_page()
    writer = pymupdf.TextWriter(sheet.rect)
    writer.append((72, 90), word, pymupdf.Font("korea"), size)
    writer.write_text(sheet)
    pixels = sheet.get_pixmap(dpi=150, alpha=False)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    reader = encoder.reader
    (line,) = lines_at(image, reader.lines(image))
    wrong = reader._read(line.pixels(), narrow)
    assert eastern(wrong.text)
    assert reader._not_chinese(line, wrong).text == word
    right = reader._read(line.pixels(), 1.0)
    assert reader._not_chinese(line, right) is right
