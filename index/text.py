"""Words as the text lane sees them: terms and stems for FTS5, and the match expression of a query.

Terms are words, folded (NFKC, case, the accents of alphabets; marks of Indic and Thai letters stay, being letters; the
traditional, simplified and Japanese forms of a Chinese character are one, see `han`). A run of a script written without
spaces becomes its overlapping pairs of characters (Han, kana, Hangul: words of two are the most common) or triples
(Thai, Lao, Khmer, Burmese), but for Hangul over the ends of lines too. Stems are the first four letters of longer
words, which most inflections leave alone, of Arabic and Hebrew all triples of a word's letters, as it begins with its
particles; they count half, as do Vietnamese words as they are written, whose tones make other words of them. What each
of these is worth: benchmarks/LOG.md.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

from index.han import folded

STEM_LETTERS = 4
MOST_TERMS = 64  # of a query
TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
"""Splits at spaces what `terms` has joined with them, and keeps marks in words."""

_PAIRS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003ffff"
)
_TRIPLES = "\u0e00-\u0e3e\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17e0-\u17e9"
_INDIC = "\u0900-\u0963\u0966-\u0dff"
_SEMITIC = re.compile("[\u05d0-\u05ea\u0620-\u064a\u066e-\u06d3]")
_WRAPPED = re.compile(  # ends of lines and phrases
    f"(?<=[\u3041-\u30ff\u3400-\u9fff])\\s+(?=[\u3041-\u30ff\u3400-\u9fff])|(?<=[{_TRIPLES}])\\s+(?=[{_TRIPLES}])"
)
_RUN = re.compile(f"([{_PAIRS}]+)|[{_TRIPLES}]+")
_TERM = re.compile(f"(?:[^\\W_]|[{_INDIC}{_TRIPLES}])+")
_JOINERS = dict.fromkeys(map(ord, "\u00ad\u200c\u200d\u2060\ufeff"))  # soft hyphens and the like, inside of words
_TONES = re.compile("[\u0309\u031b\u0323]|[\u0302\u0306][\u0300\u0301\u0303]")  # that only Vietnamese has
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]")


def terms(text: str) -> list[str]:
    """The terms of a text, in order.

    >>> terms("Réseau: 東京都 5%")
    ['reseau', '东京', '京都', '5']
    """
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", _cased(text))))
    return _TERM.findall(_RUN.sub(_grams, _WRAPPED.sub("", folded(plain))))


def by_letters(text: str) -> bool:
    """Whether a text has words that are found by groups of their letters."""
    return bool(_RUN.search(text) or _SEMITIC.search(text))


def part_of_run(term: str) -> bool:
    """Whether a term is of a script without spaces: a pair or triple of its characters."""
    return bool(_RUN.fullmatch(term))


def stems(text: str) -> list[str]:
    """What counts half: the stems of those terms that have one, then the words with Vietnamese tones, each in order.

    >>> stems("Networks của")
    ['netw', 'của']
    """
    short = [stem for term in terms(text) for stem in _stems(term)]
    return short + [word for word in _TERM.findall(_cased(text)) if _TONES.search(unicodedata.normalize("NFD", word))]


def distinct(query: str, limit: int = MOST_TERMS) -> list[str]:
    """The first `limit` distinct terms of a query, in order."""
    return list(dict.fromkeys(terms(query)))[:limit]


def match_word(term: str) -> str:
    """An FTS5 expression that fits where a term stands, in the text or in the title or file name."""
    return f'{{title name body}} : "{term}"'


def match_any(query: str, limit: int = MOST_TERMS) -> str:
    """A query -> an FTS5 expression that fits where any of its first `limit` distinct terms does; "" if it has none."""
    asked = distinct(query, limit)
    said = [match_word(term) for term in asked]
    halves = list(dict.fromkeys(stems(query)))[:limit]
    return " OR ".join(said + [f'stems : "{stem}"' for stem in halves])


def match_pairs(query: str, limit: int = MOST_TERMS) -> str:
    """A query -> an FTS5 expression that fits where two of its terms stand side by side as they do in it; "" if it has
    no two. Those that overlap, as pairs and triples of characters do, are no such two.

    >>> match_pairs("net revenue")
    '{title name body} : "net revenue"'
    """
    found = terms(query)
    apart = [(a, b) for a, b in itertools.pairwise(found) if not (part_of_run(a) and a[1:] == b[:-1])]
    pairs = dict.fromkeys(map(" ".join, apart))
    return " OR ".join(match_word(pair) for pair in list(pairs)[:limit])


def _stems(term: str) -> list[str]:
    if _SEMITIC.match(term):
        return [term[i : i + 3] for i in range(len(term) - 2)]
    return [term[:STEM_LETTERS]] if len(term) > STEM_LETTERS else []


def _cased(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_JOINERS)).casefold()


def _grams(match: re.Match[str]) -> str:
    run, size = match.group(), 2 if match.group(1) else 3
    parts = [run] if len(run) < size else [run[i : i + size] for i in range(len(run) - size + 1)]
    return f" {' '.join(parts)} "
