"""Ragged and Codes: rows of unequal length come out as they went in, and offsets that lie are refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Codes, Ragged
from index.ragged import offsets_of


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_groups_come_out_as_they_went_in(lengths: list[int]) -> None:
    groups = [np.full((length, 3), i, np.float32) for i, length in enumerate(lengths)]
    ragged = Ragged.of(groups, dim=3)
    assert ragged.values.shape == (sum(lengths), 3)
    assert ragged.lengths.tolist() == lengths
    assert len(ragged) == len(lengths)
    for group, back in zip(groups, ragged, strict=True):
        np.testing.assert_array_equal(back, group)


def test_no_groups_at_all() -> None:
    empty = Ragged.of([], dim=4)
    assert (len(empty), empty.values.shape, empty.offsets.tolist()) == (0, (0, 4), [0])
    assert list(empty) == []


def test_a_group_is_a_view() -> None:
    ragged = Ragged.of([np.zeros((2, 2), np.float32), np.ones((1, 2), np.float32)])
    assert ragged[1].base is not None
    assert np.shares_memory(ragged[1], ragged.values)


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 2], [0, 4], [0, 2, 1, 3], [0, -1, 3], [[0, 3]]])
def test_offsets_that_lie_are_refused(offsets: list[int]) -> None:
    values = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="offsets must rise from 0 to the 3 rows"):
        Ragged(values, np.array(offsets, np.int64))
    with pytest.raises(ValueError, match="offsets must rise"):
        Codes(values.astype("<f2"), np.array(offsets, np.int64), "fp16")


def test_codes_know_their_lengths() -> None:
    codes = Codes(np.zeros((5, 2), np.int8), offsets_of([2, 0, 3]), "int8", np.ones(5, np.float16))
    assert (len(codes), codes.lengths.tolist()) == (3, [2, 0, 3])


def test_offsets_of_many_rows_do_not_overflow() -> None:
    offsets = offsets_of(np.full(3, 2**31 - 1, np.int64))
    assert offsets.dtype == np.int64
    assert [b - a for a, b in pairwise(offsets.tolist())] == [2**31 - 1] * 3
