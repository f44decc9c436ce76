"""The rules that all engines share: clean words inside the page, sizes inside the caps."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import drawing

sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        ("plain", ["plain"]),
        ("of\ufb01ce", ["office"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("\u202eevil\u202c\x00\x1b[31m", ["evil[31m"]),
        ("a\u3000b\u2003c\x85d\te", ["a", "b", "c", "d", "e"]),
        ("\ue000x\ud800\U000f0001\ufffe", ["\ufffdx\ufffd\ufffd\ufffd"]),
        ("\x01\u200b\ufeff", []),
        ("  ", []),
        ("\u0646\u0645\u06cc\u200c\u0634\u0648\u062f", ["\u0646\u0645\u06cc\u200c\u0634\u0648\u062f"]),
        ("x" * 1500, ["x" * 1000]),
    ],
)
def test_words_are_clean(raw: str, texts: list[str]) -> None:
    words = drawing.clean_words([(raw, (0.1, 0.2, 0.5, 0.3))], 600, 800)
    assert [word for word, _ in words] == texts
    if texts:
        assert words[0][1][:2] == (0.1, 0.2)
        assert words[-1][1][2:] == pytest.approx((0.5, 0.3))
        assert all(one[1][2] == two[1][0] for one, two in itertools.pairwise(words))


def test_words_off_the_page_are_dropped_and_their_number_is_bounded() -> None:
    nan = float("nan")
    boxes = [(-0.5, 0.1, 0.5, 0.2), (1.1, 0.1, 1.2, 0.2), (0.1, 0.2, 0.1, 0.3), (nan, 0, 1, 1), (0.9, 0.9, 9.0, 9.0)]
    kept = drawing.clean_words([("w", box) for box in boxes], 600, 800)
    assert kept == [("w", (0.0, 0.1, 0.5, 0.2)), ("w", (0.9, 0.9, 1.0, 1.0))]
    assert len(drawing.clean_words([("w", (0.0, 0.0, 1.0, 1.0))] * 30_000, 600, 800)) == drawing.MAX_WORDS
    long = drawing.clean_words([("w" * 1000, (0.0, 0.0, 1.0, 1.0))] * 3_000, 600, 800)
    assert sum(len(word) for word, _ in long) == drawing.MAX_TEXT


@given(
    width=st.floats(0.001, 1e9),
    height=st.floats(0.001, 1e9),
    scale=st.floats(0.01, 70),
    pixels=st.integers(1, 4_000_000),
    side=st.integers(1, 4096),
)
def test_any_page_fits(width: float, height: float, scale: float, pixels: int, side: int) -> None:
    caps = drawing.Caps(pixels, side, 50)
    if max(width / height, height / width) > 50:
        with pytest.raises(drawing.Failed, match="longer than 50 to 1"):
            drawing.fit(width, height, scale, caps)
        return
    width_px, height_px = drawing.fit(width, height, scale, caps)
    assert 1 <= width_px <= side
    assert 1 <= height_px <= side
    assert width_px * height_px <= pixels
    assert width_px <= width * scale + 1
    if min(width_px, height_px) > 50:
        assert width_px / height_px == pytest.approx(width / height, rel=0.04)
