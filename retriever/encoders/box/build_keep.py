"""Build time only: which of the 250,002 pieces of the tokenizer ship.

A piece is worth what text it stands for: its frequency in each language of wordfreq 3.1.1 (words as written,
Capitalised, in CAPITALS, after a bracket or an article) and in the documents of `build_text`, each language by its
weight, and its Unigram probability within its script, so that languages without either keep their commonest pieces.
All single characters stay, so a word falls apart into shorter pieces and never into <unk>; so do pieces of digits and
punctuation. The texts choose; nothing of them ships.
"""

from __future__ import annotations

import gzip
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from retriever.encoders.box.build_text import Text
from retriever.encoders.box.pieces import MARK, SPECIALS, Pieces

WEIGHTS = {
    "en": 12.0,
    "de": 5.0,
    "fr": 5.0,
    "es": 5.0,
    "it": 3.0,
    "pt": 3.0,
    "nl": 3.0,
    "ja": 3.0,
    "zh": 3.0,
    "ru": 3.0,
}
WORDLIST_SHARE, TEXT_SHARE = 0.6, 0.4
SCRIPT_PIECES = 7000
WORDS = 50_000
_ELIDED = {"fr": "l'", "it": "l'", "ca": "l'"}
_DIGITS = "0123456789.,:;/-%+$\u20ac\u00a3()[]_*#\"'\u201c\u201d\u2019\u2013\u2014=<>|&!?"


def script(piece: str) -> str:
    """The script of a piece's first letter as its Unicode name begins (LATIN, CYRILLIC, CJK ...), OTHER without one."""
    for character in piece:
        if unicodedata.category(character).startswith("L"):
            name = unicodedata.name(character, "OTHER").split()[0]
            return "KANA" if name.startswith(("HIRAGANA", "KATAKANA")) else name
    return "OTHER"


def frequencies(wheel: Path) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """(language, [(word, frequency)]) of the wordfreq wheel: its largest list of each language, WORDS words at most."""
    import msgpack

    with zipfile.ZipFile(wheel) as archive:
        names = {name.rsplit("/", 1)[-1]: name for name in archive.namelist() if name.endswith(".msgpack.gz")}
        for language in sorted({name.split("_")[1].split(".")[0] for name in names if name.startswith("small_")}):
            name = names.get(f"large_{language}.msgpack.gz") or names[f"small_{language}.msgpack.gz"]
            buckets = msgpack.unpackb(gzip.decompress(archive.read(name)), raw=False)[1:]
            words = [(word, 10 ** (-rank / 100)) for rank, bucket in enumerate(buckets) for word in sorted(bucket)]
            yield language, words[:WORDS]


def worth(pieces: Pieces, wheel: Path, texts: list[Text]) -> np.ndarray:
    """The worth (n,) of each piece: expected occurrences, languages and scripts each by their weight."""
    value = np.zeros(len(pieces.texts))
    for language, words in frequencies(wheel):
        forms: dict[str, float] = defaultdict(float)
        for word, frequency in words:
            capital = 0.5 if language == "de" else 0.3
            forms[word] += (0.9 - capital) * frequency
            forms[word.capitalize()] += capital * frequency
            forms[word.upper()] += 0.03 * frequency
            forms["(" + word] += 0.07 * frequency
            if language in _ELIDED:
                forms[_ELIDED[language] + word] += 0.1 * frequency
        value += WORDLIST_SHARE * WEIGHTS.get(language, 1.0) * _share(pieces, forms)
    spoken: dict[str, Counter[str]] = defaultdict(Counter)
    for source, language, passages in texts:
        if source != "wesnoth-1.16-data":
            spoken[language].update(word for passage in passages for word in passage.split())
    for language in sorted(spoken):
        value += TEXT_SHARE * WEIGHTS.get(language, 1.0) * _share(pieces, spoken[language])
    probability = np.exp(pieces.scores.astype(np.float64))
    probability[:SPECIALS] = 0
    scripts = np.array([script(text) for text in pieces.texts])
    for name in np.unique(scripts):
        inside = scripts == name
        weight = min(1.0, inside.sum() / SCRIPT_PIECES)
        value[inside] += weight * probability[inside] / max(probability[inside].sum(), 1e-300)
    return value


def _share(pieces: Pieces, words: Mapping[str, float]) -> np.ndarray:
    """The share (n,) of each piece among the pieces of `words`, counted as often as they occur."""
    counts = np.zeros(len(pieces.texts))
    for word, frequency in words.items():
        for piece in pieces.word(word):
            counts[piece.id] += frequency
    return counts / max(counts.sum(), 1e-300)


def keep(pieces: Pieces, value: np.ndarray, count: int) -> np.ndarray:
    """Ids (count,) of the pieces to keep, ascending. Raises ValueError where a dropped piece could become <unk>."""
    if count >= len(value):
        return np.arange(len(value))
    value = value.copy()
    for i, text in enumerate(pieces.texts):
        bare = text.lstrip(MARK)
        if i < SPECIALS or len(bare) <= 1 or not bare.strip(_DIGITS):
            value[i] = np.inf
    kept = np.sort(np.lexsort((np.arange(len(value)), -value))[:count])
    texts = [pieces.texts[i] for i in kept]
    dropped = set(pieces.texts[SPECIALS:]) - set(texts)
    stranded = set("".join(dropped)) - set(texts) - {">", "<"}
    if stranded:
        raise ValueError(f"{len(stranded)} characters of dropped pieces are no pieces: {sorted(stranded)[:9]}")
    return kept
