"""The reader of the box: words, boxes and order of rendered and scanned pages; when the text layer is believed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pymupdf
import pytest

from ingest.page import Page, Words
from retriever.encoders.box import BoxEncoder, layer
from retriever.encoders.box.components import components
from retriever.encoders.box.ctc import ctc

ROOT = Path(__file__).parents[1]
SCANS = [ROOT / "samples" / "scanned-NTSB-report.pdf", ROOT.parent / "shared/data/samples/scanned-NTSB-report.pdf"]
LEFT = (
    "The board met on Tuesday to review the annual budget. Costs of energy rose by twelve per cent while the number of "
    "visitors fell. The treasurer proposed to close the eastern hall during winter and to sell two of the older buses."
)
RIGHT = (
    "Members of the garden club planted forty apple trees behind the school. Volunteers will water them every second "
    "evening until autumn. Anyone who owns a wheelbarrow is kindly asked to bring it along on Saturday morning."
)


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


def rendered(columns: list[str], size: float = 11) -> Page:
    """A US letter page at 150 dpi with its true words; `columns` of text side by side."""

    document = pymupdf.open()
    sheet = document.new_page(width=612, height=792)
    width = 500 / len(columns)
    for i, text in enumerate(columns):
        box = pymupdf.Rect(56 + i * width, 72, 56 + (i + 1) * width - 18, 700)
        assert sheet.insert_textbox(box, text, fontsize=size, fontname="tiro") > 0
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    found = sheet.get_text("words")
    boxes = np.array([word[:4] for word in found], np.float32) / np.array([612, 792] * 2, np.float32)
    return Page(1, image, Words([word[4] for word in found], boxes), 612, 792)


def scan(page: Page, words: Words | None = None) -> Page:
    return Page(1, page.image, words or Words(), page.width, page.height)


def recall(true: list[str], read: list[str]) -> float:
    return sum((Counter(true) & Counter(read)).values()) / len(true)


def test_a_page_without_a_layer_is_read_in_order(encoder: BoxEncoder) -> None:
    (tokens,) = encoder.encode_pages([scan(rendered([LEFT + " " + RIGHT]))])
    assert tokens.words is not None
    assert recall((LEFT + " " + RIGHT).split(), list(tokens.words.texts)) >= 0.95
    assert tokens.words.text[:40] == LEFT[:40]
    assert len(tokens.vectors) > 80 and np.isfinite(tokens.vectors).all()


@pytest.mark.parametrize("foreign", ["", "é"])
def test_plain_lines_are_read_in_8_bits_alone(
    encoder: BoxEncoder, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    page = rendered([" ".join(word + foreign for word in (LEFT + " " + RIGHT).split() * 4)])
    runs: Counter[str] = Counter()

    class Counted:
        def __init__(self, name: str) -> None:
            self.name, self.net = name, getattr(encoder.reader, name)

        def run(self, *given: object) -> object:
            runs[self.name] += 1
            return self.net.run(*given)

    for name in ("_quick", "_recogniser"):
        monkeypatch.setattr(encoder.reader, name, Counted(name))
    words = encoder.reader.words(page.image)
    assert recall(list(page.words.texts), list(words.texts)) > 0.98
    lines = len(encoder.reader.lines(page.image))
    if foreign:
        assert runs["_quick"] == 0 and runs["_recogniser"] >= lines
    else:
        assert lines - 4 <= runs["_quick"] <= lines + 2 and runs["_recogniser"] <= 5
    before = runs["_quick"]
    monkeypatch.setattr("retriever.encoders.box.reader.QUICK", 1.0)
    assert encoder.reader.words(page.image).texts == words.texts
    assert runs["_quick"] == before


def test_two_columns_are_read_one_after_the_other(encoder: BoxEncoder) -> None:
    words = encoder.read(scan(rendered([LEFT * 2, RIGHT * 2])))
    assert words is not None
    text = words.text
    assert recall((LEFT * 2 + " " + RIGHT * 2).split(), text.split()) >= 0.95
    assert "".join(text.split()).startswith("".join(LEFT.split())[:150])


def test_words_lie_where_they_are_printed(encoder: BoxEncoder) -> None:
    page = rendered([LEFT])
    (tokens,) = encoder.encode_pages([scan(page)])
    assert tokens.words is not None
    once = {w for w, n in Counter(page.words.texts).items() if n == 1}
    true = {w: box for w, box in zip(page.words.texts, page.words.boxes, strict=True) if w in once}
    overlaps = []
    for word, box in zip(tokens.words.texts, tokens.words.boxes, strict=True):
        if word in true:
            inner = min(box[2], true[word][2]) - max(box[0], true[word][0])
            overlaps.append(inner / (max(box[2], true[word][2]) - min(box[0], true[word][0])))
            assert box[1] < true[word][[1, 3]].mean() < box[3]
    assert len(overlaps) > 15 and np.min(overlaps) > 0.6 and np.mean(overlaps) > 0.8
    inside = [any((token >= box - 1e-6)[:2].all() and (token <= box + 1e-6)[2:].all() for box in tokens.words.boxes)
              for token in tokens.boxes]  # fmt: skip
    assert all(inside)


def test_the_scanned_sample_is_read(encoder: BoxEncoder) -> None:
    path = next((path for path in SCANS if path.exists()), None)
    if path is None:
        pytest.skip("scanned-NTSB-report.pdf is not there")

    pixels = pymupdf.open(path)[0].get_pixmap(dpi=150, alpha=False)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    words = encoder.read(Page(1, image, Words(), 612, 792))
    assert words is not None
    for phrase in ("National Transportation Safety Board", "Wausau", "Cessna", "12/08/2007"):
        assert phrase in words.text


def test_poor_english_print_is_not_read_as_other_scripts(encoder: BoxEncoder) -> None:

    if not SCANS[0].exists():
        pytest.skip("scanned-NTSB-report.pdf is not there")
    words = []
    for sheet in pymupdf.open(SCANS[0]).pages(0, 3):
        pixels = sheet.get_pixmap(dpi=150)
        image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, -1)[:, :, :3]
        words += encoder._opened.words(np.ascontiguousarray(image)).texts
    assert len(words) > 400
    assert not {c for word in words for c in word if 0x370 <= ord(c) < 0x530 or 0x1E00 <= ord(c) < 0x2000}


def test_a_sane_layer_is_taken_and_the_nets_stay_shut() -> None:
    encoder = BoxEncoder(threads=1)
    (tokens,) = encoder.encode_pages([rendered([LEFT])])
    assert tokens.words is None and "_opened" not in vars(encoder)


def test_a_scan_under_a_stamped_header_is_read(encoder: BoxEncoder) -> None:
    page = rendered([LEFT + " " + RIGHT])
    stamp = Words(["Page", "7"], np.array([[0.1, 0.01, 0.2, 0.03], [0.21, 0.01, 0.23, 0.03]], np.float32))
    words = encoder.read(scan(page, stamp))
    assert words is not None and recall(LEFT.split(), list(words.texts)) >= 0.95


@pytest.mark.parametrize("soup", ["\ufffd\ufffd", "\ue001\ue002\ue003", "(cid:12)(cid:7)(cid:88)", "\x01\x02\x03"])
def test_a_layer_of_no_real_characters_is_not_believed(encoder: BoxEncoder, soup: str) -> None:
    page = rendered([LEFT])
    bad = Words([soup] * len(page.words), page.words.boxes)
    assert not layer.real(bad)
    words = encoder.read(scan(page, bad))
    assert words is not None and recall(LEFT.split(), list(words.texts)) >= 0.95


def test_a_photograph_with_a_caption_keeps_its_caption(encoder: BoxEncoder) -> None:
    page = rendered([LEFT])
    image = page.image.copy()
    y, x = np.mgrid[:900, :1100]
    image[650:1550, 80:1180] = (127 + 100 * np.sin(x / 90) * np.cos(y / 70))[..., None]
    assert layer.on_ink(page.words, image) < 0.5
    assert encoder.read(Page(1, image, page.words, 612, 792)) is None


def test_letters_that_are_not_those_shown_are_not_believed(encoder: BoxEncoder) -> None:
    """A font whose table of characters is shifted by one: real letters, and none of them true."""
    page = rendered([LEFT + " " + RIGHT])
    shifted = [
        w.translate({k: k + 1 if chr(k) not in "zZ" else k - 25 for k in range(65, 123)}) for w in page.words.texts
    ]
    wrong = Words(shifted, page.words.boxes)
    assert layer.real(wrong) and encoder.read(page) is None
    words = encoder.read(scan(page, wrong))
    assert words is not None and recall(list(page.words.texts), list(words.texts)) >= 0.95


@pytest.mark.parametrize("shift", [0, 300])
def test_a_chinese_layer_is_believed_where_it_says_what_is_shown(encoder: BoxEncoder, shift: int) -> None:

    text = "委员会于星期二召开会议审议下一年度的预算能源费用上升了百分之十二来访人数有所下降"
    sheet = pymupdf.open().new_page(width=612, height=300)
    writer, font = pymupdf.TextWriter(sheet.rect), pymupdf.Font("cjk")
    for row in range(3):
        writer.append((56, 60 + 30 * row), text[13 * row : 13 * row + 13], font, 14)
    writer.write_text(sheet)
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    found = sheet.get_text("words")
    said = ["".join(chr(ord(c) + shift) for c in word[4]) for word in found]
    boxes = np.array([word[:4] for word in found], np.float32) / np.array([612, 300] * 2, np.float32)
    words = encoder.read(Page(1, image, Words(said, boxes), 612, 300))
    assert words is None if shift == 0 else words is not None and recall(list(text[:39]), list(words.text)) >= 0.9


def test_words_in_a_chart_that_is_a_picture_are_read_beside_the_layer(encoder: BoxEncoder) -> None:
    page, chart = rendered([LEFT]), rendered([RIGHT], size=9)
    image = page.image.copy()
    part = chart.image[140:420, 110:1100]
    image[900 : 900 + len(part), 110:1100] = 255 - part // 2  # white on grey, as in a picture
    words = encoder.read(Page(1, image, page.words, 612, 792))
    assert words is not None and list(words.texts[: len(page.words)]) == list(page.words.texts)
    more = list(words.texts[len(page.words) :])
    shown = [text for text, box in zip(chart.words.texts, chart.words.boxes, strict=True) if box[3] * 1650 < 415]
    assert recall(shown, more) >= 0.95 and len(more) < 1.1 * len(shown)
    assert (words.boxes[len(page.words) :, 1] > 0.5).all()


def test_a_layer_that_says_more_than_the_picture_stays(encoder: BoxEncoder) -> None:
    page = rendered(["Scrambled"])
    many = Words(["word"] * 300, np.tile(np.array([[0.8, 0.8, 0.9, 0.81]], np.float32), (300, 1)))
    assert encoder.read(scan(page, many)) is None


def test_real_characters_of_all_scripts_are_real() -> None:
    for text in (
        "revenue",
        "доход",
        "收入",
        "عربي",
        "€1,234.50",
    ):
        assert layer.real(Words([text], np.zeros((1, 4), np.float32)))
    assert not layer.real(Words())


def test_components_are_those_of_a_flood_fill() -> None:
    mask = np.random.default_rng(0).random((60, 80)) < 0.55
    expected, seen = [], np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        if not seen[y, x]:
            seen[y, x], stack, cells = True, [(y, x)], []
            while stack:
                i, j = stack.pop()
                cells.append((i, j))
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < 60 and 0 <= b < 80 and mask[a, b] and not seen[a, b]:
                        seen[a, b] = True
                        stack.append((a, b))
            rows, columns = zip(*cells, strict=True)
            expected.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    assert sorted(map(tuple, components(mask).boxes.tolist())) == sorted(expected)
    assert components(np.zeros((4, 4), bool)).boxes.shape == (0, 4)


def test_ctc_cuts_words_at_spaces_and_places_them() -> None:
    best = np.array([0, 1, 1, 0, 1, 0, 3, 0, 2, 2, 0, 0])
    read = ctc(best, np.full(len(best), 0.97), ["", "a", "b", " "], np.zeros((0, 2), int))
    assert read.text == "aa b" and read.confidence == pytest.approx(0.97)
    assert [word for word, _, _ in read.words] == ["aa", "b"]
    (_, a0, a1), (_, b0, b1) = read.words
    np.testing.assert_allclose(np.array([a0, a1, b0, b1]) * 12, [2 - 1.25, 5.5, 7.75, 9 + 1.25])


def test_a_letter_of_two_heads_is_one_letter() -> None:
    characters = ["", "o", "о", "т"]  # a Latin o, then the Cyrillic letters
    best, sure = np.array([3, 0, 1, 2, 0, 3, 0, 3, 0]), np.linspace(0.9, 0.98, 9)
    assert ctc(best, sure, characters, np.zeros((0, 2), int)).text == "тотт"


def test_a_letter_read_large_and_small_is_one_letter() -> None:
    def text(steps: str) -> str:
        characters = ["", *sorted(set(steps) - {"."})]
        best = np.array([0 if c == "." else characters.index(c) for c in steps])
        sure = np.array([0.5 if c == "c" else 0.95 for c in steps])
        return ctc(best, sure, characters, np.zeros((0, 2), int)).text

    assert text("OCc.C.ur.reen.c.e.") == "OCCurrence"  # the steps of a line of the scanned sample
    assert text("M.c.C.a.r.t.h.y") == "McCarthy"
    assert text("I.i.r.o..") == "Iiro" and text("Ii.r.o..") == "Iiro"


def test_a_cyrillic_letter_read_large_and_small_is_one_letter() -> None:
    characters = ["", "л", "Л", "ь", "с", "и"]
    best = np.array([4, 0, 5, 0, 1, 2, 0, 3, 0])  # the steps of "сильно" with "л" by two peaks
    assert ctc(best, np.full(9, 0.9), characters, np.zeros((0, 2), int)).text.lower() == "силь"
    apart = np.array([4, 0, 5, 0, 1, 0, 1, 0, 3])
    assert ctc(apart, np.full(9, 0.9), characters, np.zeros((0, 2), int)).text == "силль"


def test_a_cyrillic_page_on_its_head_is_righted(encoder: BoxEncoder) -> None:
    """Upside down many of its letters pass for others, with a probability of up to .97."""

    text = "Консультировании работников и принципы основного единения. Великобритания приняла основное решение, "
    sheet = pymupdf.open().new_page(width=612, height=792)
    sheet.insert_htmlbox(pymupdf.Rect(56, 72, 300, 700), text * 3, css="* {font-size: 13pt}")
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    words = encoder.read(Page(1, np.ascontiguousarray(image[::-1, ::-1]), Words(), 612, 792))
    assert words is not None and recall((text * 3).split(), list(words.texts)) >= 0.85


def test_a_page_of_two_scripts_is_not_taken_for_one_on_its_head(encoder: BoxEncoder) -> None:

    text = (
        "Ωστόσο, η Chivas αποβλήθηκε από το πρωτάθλημα MLS στο Λος Angeles και η δεύτερη ομάδα MLS που είχε η Galaxy. "
    )
    sheet = pymupdf.open().new_page(width=612, height=792)
    sheet.insert_htmlbox(pymupdf.Rect(56, 72, 220, 700), text * 3, css="* {font-size: 11pt}")
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3)
    for turned in (image, np.ascontiguousarray(image[::-1, ::-1])):
        words = encoder.read(Page(1, turned, Words(), 612, 792))
        assert words is not None and recall((text * 3).split(), list(words.texts)) >= 0.9


def test_small_print_is_read(encoder: BoxEncoder) -> None:
    words = encoder.read(scan(rendered([LEFT + " " + RIGHT], size=6)))
    assert words is not None and recall((LEFT + " " + RIGHT).split(), list(words.texts)) >= 0.95


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_page_on_a_side_or_on_its_head_is_righted(encoder: BoxEncoder, turns: int) -> None:
    page = rendered([LEFT + " " + RIGHT])
    words = encoder.read(Page(1, np.ascontiguousarray(np.rot90(page.image, turns)), Words(), 612, 792))
    assert words is not None and recall((LEFT + " " + RIGHT).split(), list(words.texts)) >= 0.95
    assert words.text[:30] == LEFT[:30]
    level = dict(zip(page.words.texts, page.words.boxes, strict=True))
    at = list(words.texts).index("wheelbarrow")
    x, y = (words.boxes[at, :2] + words.boxes[at, 2:]) / 2
    for _ in range(turns):
        x, y = 1 - y, x
    np.testing.assert_allclose([x, y], (level["wheelbarrow"][:2] + level["wheelbarrow"][2:]) / 2, atol=0.01)
