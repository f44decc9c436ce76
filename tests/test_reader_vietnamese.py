"""Lines of Vietnamese: how syllables are spelt, which of those in doubt is likelier, words of small print."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pymupdf
import pytest
from PIL import Image, ImageFilter

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.reader import Reader
from retriever.encoders.box.vietnamese import FOREIGN, MISSPELT, Vietnamese, spelt
from retriever.training.reader.vietnamese import table

TEXT = (
    "Thư viện thành phố mở cửa từ bảy giờ sáng. Bạn đọc có thể mượn tối đa năm quyển sách trong hai tuần lễ, "
    "nhưng phải trả đúng hạn. Nguồn kinh phí của thư viện gồm có ngân sách địa phương và tiền đóng góp của "
    "người dân. Phần mềm quản lý mới được cài đặt vào tháng trước; hệ thống này giúp tìm kiếm nhanh hơn và "
    "chuyển đổi dữ liệu cũ sang định dạng chuẩn. Mọi câu hỏi xin gửi về phòng tiếp đón ở tầng một. "
)
SPELT = (
    "nguồn nghiêng giếng gì quốc quyển khuya xoong ươm yên ý đẹp thích học ngoằn khuỷu gút rượu "
    "hoà hòa thủy thuỷ quá già giữa mía múa"
)
OTHERS = "hữụ câụ nguôồn thich đep học̀ tưên cếm kan ghan ngê linux müller của1 ă thuở̉ bộộ thaỷ cuả liêụ maí gnụ"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return BoxEncoder(threads=1).reader


@pytest.fixture(scope="module")
def vietnamese(reader: Reader) -> Vietnamese:
    (found,) = [language for language in reader.languages if isinstance(language, Vietnamese)]
    return found


@pytest.mark.parametrize("word", SPELT.split())
def test_a_syllable_is_spelt(word: str) -> None:
    assert spelt(word)


@pytest.mark.parametrize("word", OTHERS.split())
def test_another_word_is_not(word: str) -> None:
    assert not spelt(word)


def test_the_table_tells_which_syllable_follows() -> None:
    every = ["phần mềm nguồn mở", "phần mềm tự do", "phần mềm nguồn đóng"] * 3 + ["phân biệt", "nguôn mở", "file mở"]
    told = Vietnamese(table(every, pairs=3, least=1), lambda _: 30.0)
    assert told.nats("mềm", "phần") < 0.5 < told.nats("mềm") < told.nats("biệt")
    assert told.nats("nguồn", "mềm") < told.nats("nguôn", "mềm")
    assert (told.nats("file"), told.nats("gnụ")) == (FOREIGN, MISSPELT)


@pytest.mark.parametrize(
    ("read", "doubts", "told"),
    [
        ("mã nguôn của phân mềm", {6: {"ồ": -4.0}, 15: {"ầ": -1.0}}, "mã nguồn của phần mềm"),
        ("mã nguỗn của bạn", {6: {"ò": -4.0}}, "mã nguồn của bạn"),  # "ồ" is not told
        ("mã nguôn của phía đông được", {}, "mã nguồn của phía đông được"),
        ("dữ liệụ của bạn", {6: {"u": -7.0}}, "dữ liệu của bạn"),
        ("tập tìn của bạn", {5: {"i": -2.0}}, "tập tin của bạn"),
        ("tậP tìn của bạn", {2: {"p": -1.0}, 5: {"i": -2.0}}, "tậP tin của bạn"),
        ("một bộộ trưởng", {}, "một bộ trưởng"),
        ("các tươ'ng lai được", {}, "các tương lai được"),
        ("báo 1ỗi cho bạn mục 1a", {}, "báo lỗi cho bạn mục 1a"),
        ("nhà thơ Goethe viết vở Müller", {25: {"u": -1.0}}, "nhà thơ Goethe viết vở Müller"),
        ("mục 4ắ được", {5: {"ă": -0.1}}, "mục 4ắ được"),  # words with figures are codes
        ("la fenêtre du théâtre đ", {6: {"e": -0.1}}, "la fenêtre du théâtre đ"),
        ("između vođa i građana", {4: {"d": -0.1}}, "između vođa i građana"),  # Croatian
    ],
)
def test_syllables_in_doubt_are_likely_ones(
    vietnamese: Vietnamese, read: str, doubts: dict[int, dict[str, float]], told: str
) -> None:
    assert "".join(vietnamese.likelier(read, [doubts.get(i, {}) for i in range(len(read))], [*read])) == told


def scanned(image: np.ndarray) -> np.ndarray:
    """1 degree of skew, blur of 0.8 pixels, noise of 8/255, JPEG at 50."""
    turned = Image.fromarray(image).rotate(1, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    blurred = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.8)))
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    Image.fromarray(np.clip(blurred + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("font", ["sans-serif", "serif"])
def test_words_of_small_print_are_read(reader: Reader, vietnamese: Vietnamese, font: str) -> None:
    sheet = pymupdf.open().new_page(width=500, height=400)
    css = f"* {{font-family: {font}; font-size: 9pt}}"
    sheet.insert_htmlbox(pymupdf.Rect(50, 50, 450, 380), f"<p>{TEXT}</p>" * 2, css=css)
    pixels = sheet.get_pixmap(dpi=150)
    image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
    true = Counter(TEXT.split() * 2)
    for picture in (image, scanned(image)):
        found = (true & Counter(reader.words(picture).texts)).total() / true.total()
        languages, reader.languages = reader.languages, [one for one in reader.languages if one is not vietnamese]
        without = (true & Counter(reader.words(picture).texts)).total() / true.total()
        reader.languages = languages
        assert found >= 0.97
        assert found >= without
