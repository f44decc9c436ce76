"""Words as the text lane sees them: terms for FTS5 (unicode61), and the match expression of a query.

Scripts written with spaces go in as they are. A run of a script written without (Han, kana, Hangul, Thai, Lao, Khmer,
Burmese) goes in as its overlapping pairs of characters, so that words of two characters, the most common length there,
are found; FTS5's own trigram tokenizer finds none shorter than three (benchmarks/LOG.md). Nothing else is stemmed.
"""

from __future__ import annotations

import re
import unicodedata

_SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uac00-\ud7af\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_SPACELESS}]+")
_TERM = re.compile(r"[^\W_]+")


def spaceless(text: str) -> bool:
    """Whether text holds a run of a script that is written without spaces."""
    return _RUN.search(text) is not None


def terms(text: str) -> str:
    """Text -> what FTS5 is given: NFKC, case folded, runs of spaceless scripts as overlapping pairs.

    >>> terms("Net 東京都 5%")
    'net  東京 京都  5%'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _RUN.sub(lambda match: f" {_pairs(match.group())} ", folded)


def match_any(query: str, limit: int = 64) -> str:
    """A query -> an FTS5 expression that any of its terms fits, the first `limit` distinct ones; "" if it has none."""
    return " OR ".join(f'"{term}"' for term in list(_in_order(query))[:limit])


def distinct_terms(text: str) -> set[str]:
    """The terms of a text, each once."""
    return set(_in_order(text))


def _in_order(text: str) -> dict[str, None]:
    return dict.fromkeys(_TERM.findall(terms(text)))


def _pairs(run: str) -> str:
    return run if len(run) < 2 else " ".join(run[i : i + 2] for i in range(len(run) - 1))
