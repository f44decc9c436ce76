"""Where lines end: strokes that detection cut off, bullets in front, and what does not belong to a line."""

from __future__ import annotations

import numpy as np
import pytest

from retriever.encoders.box.ends import whole

LEFT, RIGHT = 100, 200


def page(*inked: tuple[int, int, int, int]) -> np.ndarray:
    """A white picture with a line of strokes between LEFT and RIGHT in rows 40 to 60, and more boxes of ink."""
    image = np.full((120, 320, 3), 255, np.uint8)
    for x in range(LEFT, RIGHT, 8):
        image[44:57, x : x + 3] = 0
    for x0, y0, x1, y1 in inked:
        image[y0:y1, x0:x1] = 0
    return image


def ends(image: np.ndarray, x0: int = LEFT - 3, x1: int = RIGHT, others: tuple[tuple[int, ...], ...] = ()) -> list[int]:
    boxes = whole(image, np.array([(x0, 40, x1, 60), *others]))
    return boxes[0, [0, 2]].tolist()  # type: ignore[no-any-return]


def bullet(x: int, y: int = 47, side: int = 6) -> tuple[int, int, int, int]:
    return x, y, x + side, y + side


def test_a_line_that_was_found_whole_stays_as_it_is() -> None:
    assert ends(page()) == [LEFT - 3, RIGHT]
    assert ends(page((260, 40, 280, 60))) == [LEFT - 3, RIGHT]  # too far away to be its own


def test_a_stroke_that_was_cut_off_belongs_to_the_line() -> None:
    last = (RIGHT - 1, 54, RIGHT + 3, 57)  # a full stop
    assert ends(page(last)) == [LEFT - 3, RIGHT + 3 + 2]
    assert ends(page(), x0=LEFT + 2) == [LEFT - 2, RIGHT]
    assert ends(page(last, (RIGHT + 4, 44, RIGHT + 7, 57))) == [LEFT - 3, RIGHT + 7 + 2]  # as near as in a word


@pytest.mark.parametrize(
    "more",
    [
        ((RIGHT - 1, 54, RIGHT + 60, 57),),  # it goes on for long: no letter
        ((RIGHT + 4, 30, RIGHT + 6, 90),),  # a rule
    ],
)
def test_what_is_no_letter_of_the_line_is_not_added(more: tuple[tuple[int, int, int, int], ...]) -> None:
    assert ends(page(*more)) == [LEFT - 3, RIGHT]


def test_a_line_does_not_reach_into_another() -> None:
    stroke = (RIGHT - 1, 44, RIGHT + 6, 57)
    assert ends(page(stroke), others=((RIGHT + 3, 40, RIGHT + 90, 60),))[1] <= RIGHT + 3


def test_a_bullet_belongs_to_its_line() -> None:
    assert ends(page(bullet(70))) == [68, RIGHT]
    assert ends(page(bullet(70), bullet(55))) == [LEFT - 3, RIGHT]  # one of several
    assert ends(page(bullet(70, side=12))) == [LEFT - 3, RIGHT]  # too large
    assert ends(page(bullet(70, y=54))) == [LEFT - 3, RIGHT]  # a full stop
    assert ends(page((70, 47, 72, 56))) == [LEFT - 3, RIGHT]  # a figure one


def test_a_bullet_that_was_taken_for_a_line_is_no_line_any_more() -> None:
    found = whole(page(bullet(70)), np.array([(LEFT - 3, 40, RIGHT, 60), (66, 44, 92, 56), (66, 70, 92, 82)]))
    assert found.tolist() == [[68, 40, RIGHT, 60], [0, 0, 0, 0], [66, 70, 92, 82]]


def test_faint_and_short_lines_are_left_alone() -> None:
    image = page((RIGHT - 1, 54, RIGHT + 3, 57))
    assert ends(255 - (255 - image) // 10) == [LEFT - 3, RIGHT]
    short = np.array([(LEFT - 3, 40, LEFT + 21, 60)])
    assert whole(image, short).tolist() == short.tolist()
