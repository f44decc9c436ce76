"""The table of `retriever.encoders.box.japanese`, from the words of a dictionary.

    python -m retriever.training.reader.japanese --debs DEBS --out retriever/encoders/box/japanese.safetensors

Of the words of mecab-ipadic, each as frequent as its cost says, all pairs of kanji of JIS X 0208 level 1 side by side.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from retriever.encoders.box.scripts import japanese, kanji
from retriever.training.reader import lines

COST = 800  # of a word, for a nat
SCALE = 300  # the count of a word that costs nothing


def words(folder: Path) -> list[tuple[str, float]]:
    """The words of mecab-ipadic in `folder`, with how frequent they are. Raises FileNotFoundError."""
    found = []
    for package in sorted(folder.glob("mecab-ipadic_*.deb")):
        for held in lines.files(package, ".csv", "/ipadic/"):
            for row in held.decode("euc_jp", "replace").splitlines():
                word, _, _, cost, *_ = row.split(",")
                found.append((word, SCALE * math.exp(-int(cost) / COST)))
    if not found:
        raise FileNotFoundError(f"{folder} has no mecab-ipadic: apt-get download it")
    return found


def table(every: Iterable[tuple[str, float]]) -> dict[str, np.ndarray]:
    """The tensors of `Japanese` of words and how frequent they are."""
    counts: defaultdict[str, float] = defaultdict(float)
    for word, many in every:
        for pair in map("".join, zip(word, word[1:], strict=False)):
            if all(kanji(c) and japanese(c) == 2 for c in pair):
                counts[pair] += many
    characters = sorted({c for pair in counts for c in pair})
    place = {character: i for i, character in enumerate(characters)}
    pairs = sorted((place[pair[0]], place[pair[1]], many) for pair, many in counts.items())
    steps = [
        second - (before if first == same else -1)
        for (same, before, _), (first, second, _) in pairwise([(-1, -1, 0.0), *pairs])
    ]
    stored = {
        "characters": "".join(characters).encode("utf-8"),
        "pairs": np.bincount([pair[0] for pair in pairs], minlength=len(characters)).astype(np.uint16).tobytes(),
        "steps": np.array(steps, np.uint16).view(np.uint8).reshape(-1, 2).T.tobytes(),
        "counts": bytes(min(255, round(math.log(many + 1))) for _, _, many in pairs),
    }
    return {name: np.frombuffer(zlib.compress(data, 9), np.uint8) for name, data in stored.items()}


def main() -> None:
    """Counts, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", type=Path, required=True, help="folder of the .deb file")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.write_bytes(save(table(words(given.debs))))


if __name__ == "__main__":
    main()
