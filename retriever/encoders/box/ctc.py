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
from retriever.encoders.box.scripts import WIDE, consistent, eastern, hangul, shape, stray_hangul
from retriever.encoders.box.spaces import between_wide, in_addresses, median, missed_spaces, monospaced
from retriever.encoders.box.twice import Again, both

STRIDE = 8
_FAR = -6.0  # the logarithm of a likelihood beside the best, which is not looked at
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
    if doubts and stray_hangul(text):
        best = _without_hangul(best, first, end, characters, doubts)
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
    half = median(np.diff(centre)) / 2 if len(centre) > 1 else 1.5
    missed: list[int] | None = None
    if max(text) >= WIDE:
        kept = ~between_wide(text, centre, 3.5 * half)
        if korean and doubts:
            columns, said = (centre + 0.5) * STRIDE, _said(text, first, end, characters, doubts)
            if found := spaces(text, columns, gaps, said, doubts.nats):
                kept[found[0]] = False
                missed = [int(kept[:i].sum()) for i in found[1]]
    else:
        kept = ~monospaced(text, (centre + 0.5) * STRIDE, gaps)
    text, first, end, centre = [text[i] for i in np.flatnonzero(kept)], first[kept], end[kept], centre[kept]
    edges = np.concatenate([[centre[0] - half], (centre[1:] + centre[:-1]) / 2, [centre[-1] + half]])
    if missed is None:
        missed = missed_spaces(text, (centre + 0.5) * STRIDE, gaps)
    for i in sorted(missed, reverse=True):
        text.insert(i, " ")
        edges = np.insert(edges, i, edges[i])
        centre = np.insert(centre, i, edges[i])
    for i in reversed(in_addresses(text)):
        del text[i]
        edges, centre = np.delete(edges, i), np.delete(centre, i)
    words: list[tuple[str, float, float]] = []
    start, ends = 0, np.clip(edges / len(best), 0, 1).tolist()
    for stop in [*[i for i, c in enumerate(text) if c == " "], len(text)]:
        if stop > start:
            words.append(("".join(text[start:stop]), ends[start], ends[stop]))
        start = stop + 1
    units = sum(1 + (c >= WIDE) for c in text)
    advance = float(end[-1] - first[0] + 1) / units
    return Read("".join(text), float(sure[first].mean()), words, advance, (centre / len(best)).tolist())


def apostrophes(best: np.ndarray, curly: np.ndarray, kinds: tuple[int, int]) -> np.ndarray:
    """The classes `best` (s,) of a line's steps, apostrophes of either of `kinds`, straight and round, being what
    `curly` (s,), over 0 for round ones, tells of the steps of each."""
    at = np.flatnonzero((best == kinds[0]) | (best == kinds[1]))
    if len(at) == 0:
        return best
    told = best.copy()
    for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1):
        told[run] = kinds[int(curly[run].sum() > 0)]
    return told


def _without_hangul(
    best: np.ndarray, first: np.ndarray, end: np.ndarray, characters: list[str], doubts: Doubts
) -> np.ndarray:
    """The classes of the steps, of Hangul what is likeliest besides, where that is told."""
    best = best.copy()
    for start, stop in zip(first.tolist(), end.tolist(), strict=True):
        if hangul(characters[best[start]]):
            classes, logits = doubts.classes[start:stop].ravel(), doubts.logits[start:stop].ravel()
            wide = [k for k, c in enumerate(classes.tolist()) if c and eastern(characters[c])]
            if wide:
                best[start:stop] = classes[max(wide, key=lambda k: float(logits[k]))]
    return best


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
    usual = median(apart) if len(text) > 2 else 0.0
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


def _twins(a: str, b: str) -> bool:
    """Whether two letters look alike but for their marks, or for their size, as "C" and "c" do."""
    sized = b.lower() in _SIZED or "\u0400" <= b < "\u0530"
    return shape(a) == shape(b) or {a, b} in _DOUBLED or (sized and a.lower() == b.lower())
