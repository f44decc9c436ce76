"""Pages in scripts that the reader in the box does not know: given to tesseract, where it is installed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from index.text import terms
from ingest.page import Page, Words
from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.reader import Reader
from retriever.encoders.box.skew import unturned
from retriever.encoders.box.tesseract import Tesseract, installed, parsed, rows_of

TEXTS = {
    "Arabic": (
        "القاهرة هي عاصمة مصر وأكبر مدنها. يعيش فيها ملايين السكان، وتقع على ضفاف نهر النيل. "
        "يزور المتحف كل عام عدد كبير من الناس من جميع بلاد العالم."
    ),
    "Devanagari": (
        "भारत एक विशाल देश है। यहाँ अनेक भाषाएँ बोली जाती हैं। दिल्ली देश की राजधानी है और यहाँ संसद भवन है। "
        "हर साल लाखों लोग यहाँ घूमने आते हैं और पुराने किले देखते हैं।"
    ),
    "Thai": ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย มีประชากรหลายล้านคน ทุกปีมีนักท่องเที่ยวจำนวนมากมาเยี่ยมชมวัดและพระราชวัง"),
}
ENGLISH = "The board met on Tuesday to review the annual budget. Costs of energy rose by twelve per cent last year."
TABLE = """level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext
1\t1\t0\t0\t0\t0\t0\t0\t200\t100\t-1\t
4\t1\t1\t1\t1\t0\t20\t10\t100\t20\t-1\t
5\t1\t1\t1\t1\t1\t20\t10\t8\t20\t91.5\tท
5\t1\t1\t1\t1\t2\t28\t12\t10\t20\t90\tาง
5\t1\t1\t1\t1\t3\t60\t10\t20\t20\t88\tไป\u200f
5\t1\t1\t1\t2\t1\t80\t40\t20\t20\t96\tมา
5\t1\t1\t1\t2\t2\t120\t40\t20\t20\t11\tลล
5\t1\t1\t1\t2\t3\t150\t40\t20\t20\t95\t \t
"""


def picture(text: str) -> np.ndarray:
    """A page at 150 dpi (H, W, 3); MuPDF has fonts of these scripts."""
    import pymupdf

    document = pymupdf.open()
    sheet = document.new_page(width=595, height=842)
    assert sheet.insert_htmlbox(pymupdf.Rect(56, 60, 540, 780), f"<p style='font-size:14px'>{text} {text}</p>")[0] > 0
    pixels = sheet.get_pixmap(dpi=150)
    return np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()


def share(text: str, words: Words) -> float:
    """Of the terms of a text those that are among `words`."""
    true = Counter(terms(text))
    return (true & Counter(terms(" ".join(words.texts)))).total() / true.total()


LINE = """5\t1\t1\t1\t1\t1\t20\t10\t10\t9\t91\tก
5\t1\t1\t1\t1\t2\t38\t10\t10\t9\t91\tา
5\t1\t1\t1\t1\t3\t58\t10\t10\t9\t91\tร
5\t1\t1\t1\t1\t4\t70\t10\t60\t9\t91\tDebian
5\t1\t1\t1\t1\t5\t134\t10\t50\t9\t91\tLinux
"""


def test_the_table_of_tesseract_is_read_letters_of_thai_joined() -> None:
    words = parsed(rows_of(TABLE), 200, 100, joined=True)
    assert words.texts == ["ทาง", "ไป", "มา"]
    assert words.boxes[0].tolist() == pytest.approx([0.1, 0.1, 0.19, 0.32])
    assert parsed(rows_of(TABLE), 200, 100).texts == ["ท", "าง", "ไป", "มา"]
    assert len(parsed(rows_of(""), 200, 100).texts) == 0
    assert parsed(rows_of(f"\n{LINE}"), 200, 100, joined=True).texts == ["กา", "รDebian", "Linux"]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_boxes_of_a_turned_page_are_turned_back(turns: int) -> None:
    page = np.zeros((40, 80), int)
    page[4:8, 20:60] = 1
    y, x = np.nonzero(np.rot90(page, turns))
    height, width = np.rot90(page, turns).shape
    box = [[x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]]
    assert unturned(np.array(box), turns)[0].tolist() == pytest.approx([0.25, 0.1, 0.75, 0.2])


@pytest.mark.parametrize(
    ("sure", "told", "read"),
    [("0.43", {"tha": 92, "hin": 40}, True), ("0.43", {"tha": 69, "hin": 40}, False), ("2.10", {}, False)],
)
def test_where_it_is_not_certain_of_the_script_all_are_tried(
    monkeypatch: pytest.MonkeyPatch, sure: str, told: dict[str, int], read: bool
) -> None:
    asked: list[str] = []

    def run(self: Tesseract, options: list[str], given: bytes) -> str:
        if "--list-langs" in options:
            return "List:\nhin\nosd\ntha\n"
        if "0" in options:
            return f"Rotate: 0\nOrientation confidence: 7.22\nScript: Latin\nScript confidence: {sure}\n"
        model = options[options.index("-l") + 1]
        asked.append(model)
        text = {"tha": "มา", "hin": "देश"}[model]
        return f"level\n5\t1\t1\t1\t1\t1\t20\t10\t8\t20\t{told[model]}\t{text}\n"

    monkeypatch.setattr(Tesseract, "_run", run)
    words = Tesseract("tesseract").words(np.full((100, 200, 3), 255, np.uint8))
    assert (words.texts if words else None) == (["มา"] if read else None)
    assert sorted(asked) == ([] if float(sure) > 1 else ["hin", "tha"])


@pytest.mark.parametrize(
    ("installed", "script", "models"),
    [
        ("Thai eng osd tha", "Thai", "Thai+tha+eng"),
        ("ara eng osd", "Arabic", "ara"),
        ("hin osd script/Devanagari", "Devanagari", "script/Devanagari+hin"),
        ("eng osd", "", ""),
    ],
)
def test_models_of_a_script_read_together_thai_with_english(
    monkeypatch: pytest.MonkeyPatch, installed: str, script: str, models: str
) -> None:
    asked: list[str] = []

    def run(self: Tesseract, options: list[str], given: bytes) -> str:
        if "--list-langs" in options:
            return "\n".join(["List:", *installed.split()])
        if "0" in options:
            return f"Rotate: 0\nOrientation confidence: 7.22\nScript: {script}\nScript confidence: 9.00\n"
        asked.append(options[options.index("-l") + 1])
        return ""

    monkeypatch.setattr(Tesseract, "_run", run)
    program = Tesseract("tesseract")
    program.words(np.full((100, 200, 3), 255, np.uint8))
    assert (program.scripts, asked) == (([script], [models]) if script else ([], []))


class Asked:
    """Counts the pages that it is given, and reads each as one word."""

    def __init__(self) -> None:
        self.pages = 0

    def words(self, image: np.ndarray) -> Words:
        self.pages += 1
        return Words(["known"], np.array([[0.1, 0.1, 0.2, 0.2]], np.float32))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[Reader, Asked]:
    asked = Asked()
    monkeypatch.setattr("retriever.encoders.box.tesseract.installed", lambda: asked)
    return BoxEncoder(threads=1).reader, asked


def test_it_is_given_pages_in_other_scripts_and_no_others(asked: tuple[Reader, Asked]) -> None:
    reader, other = asked
    assert "Tuesday" in reader.words(picture(ENGLISH)).texts
    assert len(reader.words(np.full((400, 300, 3), 255, np.uint8)).texts) == 0
    assert other.pages == 0
    for text in TEXTS.values():
        assert reader.words(picture(text)).texts == ["known"]
    assert other.pages == 3


@pytest.mark.parametrize("script", TEXTS)
def test_pages_in_other_scripts_are_read(script: str) -> None:
    program = installed()
    if program is None or script not in program.scripts:
        pytest.skip(f"needs tesseract with its models osd and of {script}")
    image = picture(TEXTS[script])
    (tokens,) = BoxEncoder(threads=1).encode_pages([Page(1, image, Words(), 595, 842)])
    assert tokens.words and share(TEXTS[script], tokens.words) > 0.8
    assert len(tokens.vectors) > 30
    on_its_side = program.words(np.ascontiguousarray(np.rot90(image)))
    assert on_its_side and share(TEXTS[script], on_its_side) > 0.8
    assert on_its_side.boxes[:, 2].max() < 0.3  # what stood at the head of the page
