"""The table of `retriever.encoders.box.vietnamese`, counted in Vietnamese text of Debian packages.

    python -m retriever.training.reader.vietnamese --debs DEBS --out retriever/encoders/box/vietnamese.safetensors

Of the text of SOURCES (a game's stories, for prose), but what is held out: syllables counted LEAST times and more, and
the PAIRS of two that follow each other for which it makes most difference, with absolute discounting.
"""

from __future__ import annotations

import argparse
import html
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from retriever.encoders.box.vietnamese import STEPS, spelt
from retriever.training.reader import lines

SOURCES = {  # packages: what the names of their files end with, what their paths hold
    "gnome-user-docs": (".page", "/help/vi/"),
    "libreoffice-l10n-vi": (".mo", ""),
    "wesnoth-1.16-*": (".mo", "/vi/LC_MESSAGES/"),
}
PAIRS, LEAST = 5_000, 2
_DISCOUNT = 0.75
_PARAGRAPH = re.compile(r"<(p|title|h\d)\b[^>]*>(.*?)</\1>", re.S)
_TAG = re.compile(r"<[^>]+>")
_WORD = re.compile(r"[^\W\d_]+|[^\w\s]+|\d+")


def texts(folder: Path) -> list[str]:
    """The distinct paragraphs of SOURCES in `folder`, NFC, but those held out."""
    found: dict[str, None] = {}
    for name, (suffix, inside) in SOURCES.items():
        for package in sorted(folder.glob(f"{name}_*.deb")):
            if suffix == ".mo":
                found |= dict.fromkeys(lines.told(package, "vi") if inside else lines.messages(package))
                continue
            for held in lines.files(package, suffix, inside):
                for _, block in _PARAGRAPH.findall(held.decode("utf-8", "replace")):
                    text = " ".join(html.unescape(_TAG.sub("", block)).split())
                    found[unicodedata.normalize("NFC", text)] = None
    return [text for text in found if not lines.held_out(text)]


def table(every: Iterable[str], pairs: int = PAIRS, least: int = LEAST) -> dict[str, np.ndarray]:
    """The tensors of `Vietnamese` of texts."""
    alone: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for text in every:
        words = [word if spelt(word) else "" for word in _WORD.findall(text.lower())]
        alone.update(filter(None, words))
        both.update(pair for pair in zip(words, words[1:], strict=False) if all(pair))
    kept = sorted(word for word, many in alone.items() if many >= least)
    total = sum(alone.values())
    nats = {word: -math.log(alone[word] / total) for word in kept}
    place = {word: i for i, word in enumerate(kept)}
    begun: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for (first, _), many in both.items():
        begun[first] += many
        kinds[first] += 1
    follows = {}
    for (first, second), many in both.items():
        if first in place and second in place and many > 1:
            rest = _DISCOUNT * kinds[first] / begun[first]
            follows[first, second] = -math.log((many - _DISCOUNT) / begun[first] + rest * math.exp(-nats[second]))
    most = sorted(follows, key=lambda pair: (-both[pair] * (nats[pair[1]] - follows[pair]), pair))[:pairs]
    most = sorted((pair for pair in most if follows[pair] < nats[pair[1]]), key=lambda p: (place[p[0]], place[p[1]]))
    numbers = np.array([place[first] * len(kept) + place[second] for first, second in most], np.int64)
    steps = np.diff(numbers, prepend=0).astype("<u4")
    stored = {
        "syllables": "\n".join(kept).encode("utf-8"),
        "nats": _steps([nats[word] for word in kept]),
        "pairs": steps.view(np.uint8).reshape(-1, 4).T.tobytes(),
        "follows": _steps([follows[pair] for pair in most]),
    }
    return {name: np.frombuffer(zlib.compress(data, 9), np.uint8) for name, data in stored.items()}


def _steps(values: list[float]) -> bytes:
    return bytes(min(255, max(0, round(value * STEPS))) for value in values)


def main() -> None:
    """Counts, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", type=Path, required=True, help="folder of the .deb files")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.write_bytes(save(table(texts(given.debs))))


if __name__ == "__main__":
    main()
