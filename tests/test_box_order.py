"""The order of lines on a page: columns, tables side by side, cells that are wrapped. Lines are written in the order in
which they are to be read, and shuffled."""

from __future__ import annotations

import tracemalloc

import numpy as np

from retriever.encoders.box.order import reading_order

Lines = list[list[float]]


def read(lines: Lines) -> list[int]:
    """The lines, by their numbers, in the order in which they are read when they come shuffled."""
    shuffled = np.random.default_rng(len(lines)).permutation(len(lines))
    return shuffled[reading_order(np.array(lines, float)[shuffled])].tolist()


def prose(x: float, y: float, count: int, width: float = 240) -> Lines:
    """Lines of running text, 12 high and 20 apart, the last a short one."""
    lines = [[x, y + 20 * i, x + width - (i * 7) % 12, y + 20 * i + 12] for i in range(count)]
    lines[-1][2] = x + width / 3
    return lines


def account(x: float, y: float, count: int, pitch: float = 17) -> Lines:
    """A table of 240: labels and two columns of numbers that end at one place."""
    ends = ((x + 170, 30), (x + 240, 26))
    rows = [[[x, x + 60 + (i * 37) % 70], *([end - w, end] for end, w in ends)] for i in range(count)]
    return [[a, y + pitch * i, b, y + pitch * i + 12] for i, row in enumerate(rows) for a, b in row]


def test_a_table_is_read_row_by_row() -> None:
    cells = [[c * 100, r * 20, c * 100 + 40, r * 20 + 10] for r in range(8) for c in range(5)]
    assert read(cells) == list(range(len(cells)))
    lines = account(0, 0, 20)
    assert read(lines) == list(range(len(lines)))


def test_a_title_over_columns_comes_first_and_a_footer_last() -> None:
    lines = [[50.0, 0, 550, 20], *prose(50, 40, 9), *prose(310, 40, 9), [60, 300, 540, 312]]
    assert read(lines) == list(range(len(lines)))
    assert reading_order(np.zeros((0, 4))) == []


def test_columns_above_a_table_are_columns_though_its_cells_lie_in_their_gutter() -> None:
    table = [[c * 58 + 4, 260 + r * 20, c * 58 + 53, 272 + r * 20] for r in range(9) for c in range(9)]
    lines = [*prose(0, 0, 10), *prose(280, 0, 10), [0.0, 220, 300, 232], *table]
    assert read(lines) == list(range(len(lines)))


def test_two_tables_side_by_side_are_two_columns() -> None:
    lines = [*account(0, 3, 24, 17), *account(290, 0, 20, 21)]
    assert read(lines) == list(range(len(lines)))


def test_a_table_beside_running_text_is_read_by_itself() -> None:
    lines = [*prose(0, 0, 3), *account(0, 70, 14), *prose(0, 330, 5), *prose(290, 5, 20)]
    assert read(lines) == list(range(len(lines)))


def test_a_wrapped_label_is_read_before_its_numbers() -> None:
    lines: Lines = []
    for row in range(6):
        y = row * 60.0
        lines += [[0, y, 80, y + 14], [0, y + 15, 70, y + 29], [0, y + 30, 40, y + 44]]
        lines += [[100 + 60 * c, y, 130 + 60 * c, y + 14] for c in range(5)]
    assert read(lines) == list(range(len(lines)))


def test_terms_and_what_they_mean_stay_together() -> None:
    lines: Lines = []
    for row in range(6):
        y = row * 80.0
        lines += [[0, y, 70, y + 14], *([120, y + 15 * i, 400 - 100 * (i == 3), y + 15 * i + 14] for i in range(4))]
    assert read(lines) == list(range(len(lines)))


def test_page_numbers_of_a_table_of_contents_follow_their_titles() -> None:
    lines = [[a, i * 16.0, b, i * 16 + 13] for i in range(9) for a, b in ((0.0, 150 + (i * 61) % 120), (400.0, 418.0))]
    assert read(lines) == list(range(len(lines)))


def test_ten_thousand_lines_are_ordered_in_seconds_and_none_is_lost() -> None:
    corners = np.random.default_rng(0).uniform(0, 1000, (10_000, 2))
    lines = np.concatenate([corners, corners + [30, 8]], axis=1)
    assert sorted(reading_order(lines)) == list(range(10_000))


def test_two_columns_of_thousands_of_lines_take_little_memory() -> None:
    lines = [[x, y * 9.0, x + 240, y * 9.0 + 7] for x in (0.0, 290.0) for y in range(4000)]
    tracemalloc.start()
    assert read(lines) == list(range(len(lines)))
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
