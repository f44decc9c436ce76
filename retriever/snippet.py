"""The words of a page that answer a query: the best window, with what matched marked.

Two kinds of evidence choose the window: words that match a query term (case, accents and inflection aside), and the
weights that late interaction gives each word, which find the place even when query and page are in different languages.
A rare term counts more than one that is all over the page, so no list of stop words is needed. In scripts written
without spaces the unit is a character and a term is a pair of them. Does not escape HTML: see `printable`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from index.han import folded
from retriever.printable import printable

ELLIPSIS = "…"

_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)  # Thai, Lao, Tibetan, Burmese, Khmer, kana, Han
_JOINTS = "-/'\u2019"  # what joins the words of snow-covered, and/or, d'heures
_UNIT = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}{_JOINTS}]+[{_JOINTS}]*|[{_JOINTS}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_SENTENCE_END = re.compile(r"[.!?:;。！？]['\"”’)\]]*$")


class Snippet(NamedTuple):
    """text: one line; marks: (start, end) character offsets into text, in order, not overlapping."""

    text: str
    marks: list[tuple[int, int]]


class _Unit(NamedTuple):
    text: str
    folded: str
    word: int  # which word of the page it is (part of)
    glued: bool  # no space before it


def fold(text: str) -> str:
    """What two spellings of a word share: NFKC, case and the forms of Chinese characters folded, accents and edge
    punctuation removed."""
    text = folded(unicodedata.normalize("NFKC", text).casefold())
    if not _IS_UNSPACED.search(text):
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    start, end = 0, len(text)
    while start < end and not _in_word(text[start]):
        start += 1
    while end > start and not _in_word(text[end - 1]):
        end -= 1
    return text[start:end]


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def snippet(
    words: Sequence[str], query: str, weights: Sequence[float] | np.ndarray | None = None, length: int = 30
) -> Snippet:
    """The best window of a page's words for a query.

    words: in reading order; weights: one a word, >= 0, the evidence of late interaction, or None; length: words (twice
    as many characters in scripts without spaces). The text has an ellipsis where the window cuts the page.
    """
    if length < 1:
        raise ValueError(f"length {length}: a snippet has at least one word")
    if weights is not None and len(weights) != len(words):
        raise ValueError(f"{len(words)} words and {len(weights)} weights: one weight a word is expected")
    units = _units(words)
    if not units:
        return Snippet("", [])
    if sum(bool(_IS_UNSPACED.match(u.text)) for u in units) * 2 > len(units):
        length *= 2
    hits, importance = _hits(units, _terms(query))
    evidence = _evidence(units, weights)
    marked = _marked(hits, importance)
    start, end = _window(units, hits, importance, evidence, marked, min(length, len(units)))
    if not _answers(hits[:, start:end], importance):
        marked = marked | (evidence >= 0.6) & np.array([_wordlike(u) for u in units])
    return _join(units, start, end, marked)


def _wordlike(unit: _Unit) -> bool:
    """Worth marking for its evidence alone: not a number, not a particle."""
    return bool(_IS_UNSPACED.match(unit.text)) or len(unit.folded) > 3 and unit.folded.isalpha()


def _units(words: Sequence[str]) -> list[_Unit]:
    units: list[_Unit] = []
    for i, word in enumerate(words):
        for n, part in enumerate(_UNIT.findall(printable(word).strip())):
            both = bool(units) and bool(_IS_UNSPACED.match(part)) and bool(_IS_UNSPACED.match(units[-1].text))
            units.append(_Unit(part, fold(part), i, n > 0 or both))
    return units


def _terms(query: str) -> list[tuple[str, ...]]:
    """Distinct terms: (word,), or (character, character) in scripts without spaces."""
    terms: dict[tuple[str, ...], None] = {}
    for word in query.split():
        parts = [fold(p) for p in _UNIT.findall(word)]
        for n, part in enumerate(parts):
            if not part:
                continue
            if not _IS_UNSPACED.match(part):
                terms[(part,)] = None
            elif n + 1 < len(parts) and _IS_UNSPACED.match(parts[n + 1]):
                terms[(part, parts[n + 1])] = None
            elif n == 0 or not _IS_UNSPACED.match(parts[n - 1]):
                terms[(part,)] = None
    return list(terms)


def _match(term: str, word: str) -> float:
    """1 for the same word, less for what looks like an inflection of it, 0 otherwise."""
    if term == word:
        return 1.0
    short, long = sorted((term, word), key=len)
    if len(short) < 3 or short[:3] != long[:3] or term.isdigit() or word.isdigit():
        return 0.0
    if long.startswith(short) and (
        long[len(short) :] in ("s", "es") or (len(short) > 3 and len(long) - len(short) < 3)
    ):
        return 0.8
    common = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return 0.6 if common >= 5 and common >= 0.7 * len(long) else 0.0


def _hits(units: list[_Unit], terms: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """(terms, units) how well each unit matches each term; (terms,) how telling the term is: rare on the page, long."""
    hits = np.zeros((len(terms), len(units)), np.float32)
    vocabulary: dict[str, list[int]] = {}
    for i, unit in enumerate(units):
        vocabulary.setdefault(unit.folded, []).append(i)
    for row, term in zip(hits, terms, strict=True):
        if len(term) == 2:
            for i in vocabulary.get(term[0], ()):
                if i + 1 < len(units) and units[i + 1].folded == term[1]:
                    row[i : i + 2] = 1.0
            continue
        for word, places in vocabulary.items():
            score = _match(term[0], word) if word else 0.0
            if score:
                row[places] = score
    counts = (hits > 0).sum(axis=1)
    telling = np.array([1.0 if len(t) == 2 or len(t[0]) > 2 or _IS_UNSPACED.match(t[0]) else 0.5 for t in terms])
    return hits, (telling / np.sqrt(np.maximum(counts, 1))).astype(np.float32)


def _evidence(units: list[_Unit], weights: Sequence[float] | np.ndarray | None) -> np.ndarray:
    if weights is None:
        return np.zeros(len(units), np.float32)
    w = np.asarray(weights, np.float32)
    w = np.where(np.isfinite(w), np.clip(w, 0, None), 0)
    return np.asarray(w[[u.word for u in units]] / max(float(w.max()), 1e-12), np.float32)


def _marked(hits: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Units worth marking: those of terms that are not all over the page ("of", "the")."""
    found = importance * (hits > 0).any(axis=1)
    telling = found >= 0.4 * found.max(initial=0.0)
    return np.asarray((hits[telling] > 0).any(axis=0))


def _answers(hits: np.ndarray, importance: np.ndarray) -> bool:
    """Does the window hold half of what the query says?"""
    found = (hits.max(axis=1) * importance).sum() if hits.size else 0.0
    return bool(found > 0 and found >= 0.5 * importance.sum())


def _window(
    units: list[_Unit],
    hits: np.ndarray,
    importance: np.ndarray,
    evidence: np.ndarray,
    marked: np.ndarray,
    length: int,
) -> tuple[int, int]:
    """The best stretch of `length` units: distinct terms first, then repeats, then evidence; moved to the start of a
    sentence, or so that what matched lies in its middle."""
    if length >= len(units):
        return 0, len(units)
    parts = np.bincount([unit.word for unit in units])
    shares = evidence**2 / parts[[unit.word for unit in units]]  # a word in many parts is still one word
    sums = np.cumsum(np.pad(np.vstack([hits, shares[None]]), ((0, 0), (1, 0))), axis=1)
    inside = sums[:, length:] - sums[:, :-length]
    terms = (importance[:, None] * (np.minimum(inside[:-1], 1) + 0.05 * np.minimum(inside[:-1], 4))).sum(axis=0)
    score = terms / max(float(importance.sum()), 1e-12) + 0.8 * inside[-1] / max(float(inside[-1].max()), 1e-12)
    best = int(np.argmax(np.round(score, 5)))
    telling = np.flatnonzero(marked[best : best + length] | (evidence[best : best + length] >= 0.5))
    if len(telling) == 0:
        return best, best + length
    first, last = best + int(telling[0]), best + int(telling[-1])
    low, high = max(0, last - length + 1), min(first, len(units) - length)
    middle = min(max((first + last - length) // 2, low), high)
    starts = [i for i in range(low, high + 1) if i == 0 or _SENTENCE_END.search(units[i - 1].text)]
    start = min(starts, key=lambda i: abs(i - middle)) if starts else middle
    return start, start + length


def _join(units: list[_Unit], start: int, end: int, marked: np.ndarray) -> Snippet:
    text = f"{ELLIPSIS} " if start else ""
    marks: list[tuple[int, int]] = []
    for i in range(start, end):
        unit = units[i]
        if i > start and not unit.glued:
            text += " "
        if marked[i]:
            left = len(text) + len(unit.text) - len(unit.text.lstrip("\"'“‘([{"))
            right = len(text) + len(unit.text.rstrip("\"'”’)]}.,;:!?-/"))
            if marks and left == marks[-1][1]:
                marks[-1] = (marks[-1][0], right)
            elif right > left:
                marks.append((left, right))
        text += unit.text
    return Snippet(text + (f" {ELLIPSIS}" if end < len(units) else ""), marks)
