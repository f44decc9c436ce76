"""Is this page a table of contents? It says in a line what others say in a page, and so comes before them in a search.

Such a page is rows of words that end in a page number, and the numbers rise. A table of figures has rows that end in
numbers too, but they do not rise. Not seen: contents without numbers, of slides for instance.
"""

from __future__ import annotations

import re

import numpy as np

from ingest.page import Words

LEAST = 8  # rows that end in a number
SHARE = 0.5  # of all rows
RISING = 0.85  # of neighbouring numbers
_NUMBER = re.compile(r"[\W_]*(?:(\d{1,4})|[ivxlc]{1,7})", re.IGNORECASE)


def is_contents(words: Words) -> bool:
    """Whether the words of a page, wherever they lie, are a table of contents."""
    rows = _rows(words)
    ends = [match for row in rows if len(row) > 1 and (match := _NUMBER.fullmatch(row[-1]))]
    if len(ends) < max(LEAST, SHARE * len(rows)):
        return False
    numbers = np.array([int(match[1]) for match in ends if match[1]])
    if len(numbers) < LEAST // 2:  # a preface, in Roman numbers
        return True
    return bool(np.mean(np.diff(numbers) >= 0) >= RISING and numbers[-1] > numbers[0])


def _rows(words: Words) -> list[list[str]]:
    """Words by the rows that they stand in, from the left."""
    if not len(words):
        return []
    middles = words.boxes[:, [1, 3]].mean(axis=1)
    height = float(np.median(words.boxes[:, 3] - words.boxes[:, 1]))
    order = np.argsort(middles, kind="stable")
    number = np.empty(len(words), np.int64)
    number[order] = np.cumsum(np.diff(middles[order], prepend=middles[order[0]]) > height / 2)
    order = np.lexsort((words.boxes[:, 0], number))
    starts = np.flatnonzero(np.diff(number[order])) + 1
    return [[words.texts[i] for i in row] for row in np.split(order, starts)]
