"""From the classes that the recogniser gives a line's time steps to words with their places along the line.

Greedy CTC; then one letter that came out as two is one again, letters in doubt are what makes the likelier word
(`likely`), and spaces that were missed are put where the picture has a gap between strokes as wide as at the other
spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from retriever.encoders.box.hangul import crowded, missing, spaces
from retriever.encoders.box.likely import likelier
from retriever.encoders.box.scripts import WIDE, consistent, hangul, shape
from retriever.encoders.box.twice import Again, both

STRIDE = 8
_FAR = -6.0  # the logarithm of a likelihood beside the best, which is not looked at
_SPACE = 12.0
_BESIDE = 4  # gaps each side, which in monospaced words are wide
_LEAST = 4  # columns that most gaps in monospaced words are wider than
_SLENDER = frozenset(".:/_'\"()[]*~-|!iltrfj")  # beside which they are widest
_UNTOLD = -99.0  # the logit of what is not told
_SURE = 10.0  # nats by which a space is likelier than none, or none than a space, at most
_DOUBLED = (
    {"'", "’"},
    {",", "„"},
    {"ı", "1"},
    {"з", "3"},
    {"б", "6"},
    {"ц", "щ"},
    {"ы", "ı"},
)  # what that touching steps give for one
_ACCENTS, _ACCENTED = "'’΄", "ΆΈΉΊΌΎΏ"  # the accent of a Greek capital stands before it, and comes out twice
_SIZED = tuple("cosuvwxz")  # letters whose capitals are the same but larger


class Read(NamedTuple):
    """A line read. text, confidence (mean probability of its characters), the words with their spans as fractions of
    the line's length; advance: time steps a character, half of a wide one's; centres: of each character of the text, as
    such fractions."""

    text: str
    confidence: float
    words: list[tuple[str, float, float]]
    advance: float
    centres: Sequence[float] = ()


class Language(Protocol):
    """What knows a language's words."""

    def likelier(self, text: Sequence[str], others: Sequence[Mapping[str, float]], told: Sequence[str]) -> list[str]:
        """The characters of a line, of which those in doubt are what makes likelier words, if it is in the language.

        others: for each character, what it could be instead, "" for nothing, and the logarithm of how likely beside it,
        at most 0; told: the characters, "" for none, as they stand in other lines.
        """


class Doubts(NamedTuple):
    """What else was likely at the steps of a line: classes (s, m) and their logits (s, m), the chosen one's too; nats:
    of a word, minus its log-probability; languages: whose words are known better; again: what was read twice."""

    classes: np.ndarray
    logits: np.ndarray
    nats: Callable[[str], float]
    languages: Sequence[Language] = ()
    again: Again | None = None


def ctc(
    best: np.ndarray, sure: np.ndarray, characters: list[str], gaps: np.ndarray, doubts: Doubts | None = None
) -> Read:
    """The line of the likeliest of `characters` at each step, `best` (s,), 0 blank, with probabilities `sure` (s,).

    gaps: those of the picture, see `gaps`. A character reaches half way to the next; words are placed as fractions of
    the line, steps i to i + 1 of s.
    """
    runs = np.concatenate([[0], np.flatnonzero(np.diff(best)) + 1, [len(best)]])
    read = best[runs[:-1]] != 0
    first, end = runs[:-1][read], runs[1:][read]
    if len(first) == 0:
        return Read("", 0.0, [], np.inf)
    kept = _once([characters[k] for k in best[first]], first, end, sure)
    first, end = first[kept], end[kept]
    text = [characters[k] for k in best[first]]
    korean = any(map(hangul, text))
    if korean:
        if doubts:
            best, first, end = _filled(text, best, first, end, characters, doubts)
            text = [characters[k] for k in best[first]]
        kept = ~crowded(text, (first + end) / 2, sure[first])
        text, first, end = [text[i] for i in np.flatnonzero(kept)], first[kept], end[kept]
    text = consistent(text)
    if doubts:
        others = _others(best, first, end, characters, doubts)
        if doubts.again:
            text, others = both(text, others, (first + end) / 2 / len(best), doubts.again, characters)
        told = likelier(text, others, doubts.nats)
        for language in doubts.languages:
            told = language.likelier(text, others, told)
        text = told
        kept = np.array([*map(bool, text)])
        text, first, end = [*filter(None, text)], first[kept], end[kept]
    centre = (first + end) / 2
    half = _median(np.diff(centre)) / 2 if len(centre) > 1 else 1.5
    missed: list[int] | None = None
    if max(text) >= WIDE:
        kept = ~_false_spaces(text, centre, 3.5 * half)
        if korean and doubts:
            columns, said = (centre + 0.5) * STRIDE, _said(text, first, end, characters, doubts)
            if found := spaces(text, columns, gaps, said, doubts.nats):
                kept[found[0]] = False
                missed = [int(kept[:i].sum()) for i in found[1]]
    else:
        kept = ~_narrow_spaces(text, (centre + 0.5) * STRIDE, gaps)
    text, first, end, centre = [text[i] for i in np.flatnonzero(kept)], first[kept], end[kept], centre[kept]
    edges = np.concatenate([[centre[0] - half], (centre[1:] + centre[:-1]) / 2, [centre[-1] + half]])
    if missed is None:
        missed = missed_spaces(text, (centre + 0.5) * STRIDE, gaps)
    for i in sorted(missed, reverse=True):
        text.insert(i, " ")
        edges = np.insert(edges, i, edges[i])
        centre = np.insert(centre, i, edges[i])
    words: list[tuple[str, float, float]] = []
    start, ends = 0, np.clip(edges / len(best), 0, 1).tolist()
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        if stop > start:
            words.append(("".join(text[start:stop]), ends[start], ends[stop]))
        start = stop + 1
    units = sum(1 + (c >= WIDE) for c in text)
    advance = float(end[-1] - first[0] + 1) / units
    return Read("".join(text), float(sure[first].mean()), words, advance, (centre / len(best)).tolist())


def _filled(
    text: list[str], best: np.ndarray, first: np.ndarray, end: np.ndarray, characters: list[str], doubts: Doubts
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes of the steps, and those at which characters begin and end, with syllables of Hangul that were
    missed."""
    every = np.unique(doubts.classes)
    korean = np.isin(doubts.classes, [k for k in every.tolist() if hangul(characters[k])])
    logits = np.where(korean, doubts.logits, -np.inf)
    none = np.where(doubts.classes == 0, doubts.logits, _UNTOLD).max(1)
    found = missing(text, first, end, logits.max(1) - none)
    if not found:
        return best, first, end
    best = best.copy()
    best[found] = doubts.classes[found, logits[found].argmax(1)]
    return best, np.sort([*first, *found]), np.sort([*end, *(step + 1 for step in found)])


def _others(
    best: np.ndarray, first: np.ndarray, end: np.ndarray, characters: list[str], doubts: Doubts
) -> list[dict[str, float]]:
    """What each character of the line could be instead, with the logarithm of its likelihood beside the character's,
    by the step that says most for it. (`sure` does not tell letters of one kind apart.) Where the chosen class is not
    told, as some that Japanese lines discount, what is told counts as much as it: 0."""
    found: list[dict[str, float]] = [{} for _ in first]
    classes, own = doubts.classes, doubts.classes == best[:, None]
    less = np.minimum(doubts.logits - np.where(own, doubts.logits, -np.inf).max(1, keepdims=True), 0)
    runs = np.full(len(best), -1)
    for run, (start, stop) in enumerate(zip(first.tolist(), end.tolist(), strict=True)):
        runs[start:stop] = run
    none = np.concatenate([[0.0], np.where(classes == 0, less, -99).max(1).cumsum()])
    for k, gone in enumerate((none[end] - none[first]).tolist()):
        if gone > _FAR:
            found[k][""] = gone
    for step, place in zip(*np.nonzero((less > _FAR) & ~own & (classes != 0) & (runs >= 0)[:, None]), strict=True):
        other, character = found[runs[step]], characters[classes[step, place]]
        other[character] = max(other.get(character, _FAR), float(less[step, place]))
    return found


def _said(text: list[str], first: np.ndarray, end: np.ndarray, characters: list[str], doubts: Doubts) -> np.ndarray:
    """By how many nats, at most _SURE, a space is likelier than none after each character (n,), before the next."""
    space, none = (np.where(doubts.classes == k, doubts.logits, _UNTOLD).max(1) for k in (characters.index(" "), 0))
    more = np.where(space == _UNTOLD, -_SURE, np.clip(space - none, -_SURE, _SURE))
    said = np.full(len(text), -_SURE)
    letters = [i for i, c in enumerate(text) if c != " "]
    for i, k in pairwise(letters):
        said[i] = more[end[i] : first[k]].max(initial=-_SURE)
    return said


def _once(text: list[str], first: np.ndarray, end: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Which characters stay, (n,) bool, where one letter came out as two: on touching steps as two of one shape (of
    two heads, with two marks, or large and small), or, Greek and Cyrillic having no narrow double letters, twice in
    one's width."""
    kept = np.ones(len(text), bool)
    apart = np.diff((first + end) / 2)
    usual = _median(apart) if len(text) > 2 else 0.0
    for i in np.flatnonzero(apart < 0.9 * usual):
        if (text[i] in _ACCENTS and text[i + 1] in _ACCENTED) or (text[i] in ",." and text[i + 1] == "„"):
            kept[i] = False
        elif text[i] == "„" and text[i + 1] == ",":
            kept[i + 1] = False
    for i in np.flatnonzero(apart < 0.75 * usual):
        touching = end[i] == first[i + 1] and apart[i] < 0.6 * usual and _twins(text[i], text[i + 1])
        if touching or (text[i] == text[i + 1] and "\u0370" <= text[i] < "\u0530"):
            kept[i if sure[first[i]] < sure[first[i + 1]] else i + 1] = False
    return kept


def _false_spaces(text: list[str], centre: np.ndarray, least: float) -> np.ndarray:
    """(n,) bool, which characters are spaces between Chinese characters or kana whose centres are less than `least`
    steps apart, which the page has not."""
    false = np.zeros(len(text), bool)
    for i in [i for i in range(1, len(text) - 1) if text[i] == " "]:
        if all(text[side] >= WIDE and not hangul(text[side]) for side in (i - 1, i + 1)):
            false[i] = centre[i + 1] - centre[i - 1] < least
    return false


def _narrow_spaces(text: list[str], centre: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(n,) bool, which characters are spaces no wider than what is between the letters of monospaced words."""
    false = np.zeros(len(text), bool)
    spaces = np.flatnonzero([c == " " for c in text])
    if len(spaces) < 3 or len(gaps) < _BESIDE:
        return false
    place, width = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    near = np.abs(centre[spaces][:, None] - place) < 1.2 * _median(np.diff(centre))
    own = np.where(near, width, 0)
    widest = own.max(1)
    usual = _median(widest)
    for space, gap, wide in zip(spaces.tolist(), own.argmax(1).tolist(), widest.tolist(), strict=True):
        around = _median(width[max(0, gap - _BESIDE) : gap + _BESIDE + 1])
        false[space] = around > _LEAST < wide < min(0.6 * usual, 1.6 * around)
    return false


def _twins(a: str, b: str) -> bool:
    """Whether two letters look alike but for their marks, or for their size, as "C" and "c" do."""
    sized = b.lower() in _SIZED or "\u0400" <= b < "\u0530"
    return shape(a) == shape(b) or {a, b} in _DOUBLED or (sized and a.lower() == b.lower())


def _median(values: np.ndarray) -> float:
    """As numpy's, whose checks take longer than the median of so few."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def gaps(line: np.ndarray) -> np.ndarray:
    """The gaps between strokes along `line` (h, w) uint8, (g, 2) columns, ends excluded; margins are none."""
    middle = line[len(line) // 7 : -len(line) // 7]
    half = (middle.size - 1) // 2
    paper = int(np.partition(middle.ravel(), half)[half])  # the median
    away = np.maximum(middle.max(0).astype(np.int16) - paper, paper - middle.min(0).astype(np.int16))
    stroke = np.flatnonzero(away >= 0.25 * away.max())
    before = np.flatnonzero(np.diff(stroke) > 1)
    return np.stack([stroke[before] + 1, stroke[before + 1]], axis=1)


def missed_spaces(text: list[str], centre: np.ndarray, gaps: np.ndarray) -> list[int]:
    """Before which characters of `text`, at columns `centre`, a space was missed.

    A gap belongs to the space within a character's advance of it; others as wide as those of spaces, or where there
    are not two as wide as a space should be, are missed ones. None between digits or in scripts without spaces, nor
    before the first character or after the last, as to the frame of a chart.
    """
    place, width = gaps.mean(1), gaps[:, 1] - gaps[:, 0]
    within = (place > centre[:1]) & (place < centre[-1:])
    place, width = place[within], width[within]
    if len(text) < 3 or len(place) == 0:
        return []
    near = 1.2 * _median(np.diff(centre))
    spaces = centre[np.array([c == " " for c in text])]
    off = spaces[:, None] - place if len(spaces) else np.full((1, len(place)), np.inf)
    nearest = np.abs(off).argmin(0)
    off = off[nearest, np.arange(len(place))]
    taken = np.abs(off) < near
    usual, late = _SPACE, 0.0
    if len(known := np.unique(nearest[taken])) > 1:
        widest = np.zeros(len(spaces))
        np.maximum.at(widest, nearest[taken], width[taken])
        usual = _median(widest[known])
        late = _median(off[taken & (width >= 0.75 * usual)])
    least = max(0.75 * usual, 2.2 * _median(width) + 2)
    edges = (centre[1:] + centre[:-1]) / 2
    missed = []
    for gap in np.flatnonzero(~taken & (width >= least)).tolist():
        i = int(np.abs(edges - place[gap] - late).argmin()) + 1
        pair = text[i - 1] + text[i]
        beside = width[max(0, gap - _BESIDE) : gap + _BESIDE + 1]
        monospaced = not _SLENDER.isdisjoint(pair) and width[gap] < 2.2 * _median(beside) + 2
        if " " not in pair and max(pair) < WIDE and not pair.isdigit() and not monospaced:
            missed.append(i)
    return sorted({*missed})
