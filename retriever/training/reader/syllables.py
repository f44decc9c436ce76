"""The table of `retriever.encoders.box.syllables`, counted in Korean text and words of Debian packages.

    python -m retriever.training.reader.syllables --debs DEBS --words WORDS.txt --out
        retriever/encoders/box/syllables.safetensors

Of libreoffice-help-ko, -l10n-ko and `lines.MORE`, but what is held out, each word counts TEXT times as often as it
stands there, each of the list WORDS.txt (one a line) LISTED times, each of hunspell-ko once. Grams of three that were
counted less than LEAST times are left out. Absolute discounting, each length with what the shorter tells.
"""

from __future__ import annotations

import argparse
import math
import unicodedata
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from retriever.encoders.box.syllables import END, RUN, START, STEPS
from retriever.training.reader import lines

TEXT, LISTED, LEAST = 3, 2, 2
_DISCOUNT = 1.5
_ANY = 1 / 12_000  # of a syllable never seen


def words(folder: Path, listed: list[str]) -> Counter[str]:
    """Runs of Hangul in the packages in `folder` and among the words `listed`, and how much each counts."""
    found: Counter[str] = Counter()
    kinds = {"libreoffice-help-ko": lines.paragraphs, "libreoffice-l10n-ko": lines.messages}
    for name, read in {**kinds, **dict.fromkeys(lines.MORE["ko"], lines.told)}.items():
        for package in folder.glob(f"{name}_*.deb"):
            for text in read(package):
                if not lines.held_out(text):
                    found.update({word: TEXT * many for word, many in Counter(RUN.findall(text)).items()})
    for package in folder.glob("hunspell-ko_*.deb"):
        for held in lines.files(package, ".dic"):
            entries = [entry.partition("/")[0] for entry in unicodedata.normalize("NFC", held.decode("utf-8")).split()]
            found.update({word for word in entries if RUN.fullmatch(word)})
    found.update({word: LISTED for word in listed if RUN.fullmatch(word)})
    return found


def table(counted: Counter[str]) -> dict[str, np.ndarray]:
    """The tensors of `Syllables` of words and how much each counts."""
    grams: list[Counter[str]] = [Counter(), Counter(), Counter()]
    for word, many in counted.items():
        marked = START * 2 + word + END
        for i in range(2, len(marked)):
            for length in range(3):
                grams[length][marked[i - length : i + 1]] += many
    nats: dict[str, float] = {}
    back: dict[str, float] = {}
    unknown = _ANY
    for length in range(3):
        kept = {gram: many for gram, many in grams[length].items() if length < 2 or many >= LEAST}
        total: Counter[str] = Counter()
        for gram, many in grams[length].items():
            total[gram[:-1]] += many
        left = Counter(total)
        for gram, many in kept.items():
            left[gram[:-1]] -= many - min(many, _DISCOUNT)  # type: ignore[assignment]
        told = {before for before in total if left[before] < total[before]}
        shorter = dict(nats)
        for gram, many in sorted(kept.items()):
            before, rest = gram[:-1], gram[1:]
            least = math.exp(-shorter[rest]) if length else unknown
            nats[gram] = -math.log((many - min(many, _DISCOUNT) + left[before] * least) / total[before])
        if length:
            back |= {before: -math.log(left[before] / total[before]) for before in told}
        else:
            unknown *= left[""] / total[""]
    nats = {**dict.fromkeys(back, 0.0), **nats}  # START is never the last
    ordered = sorted(nats, key=lambda gram: (len(gram), gram))
    stored = {
        "grams": "".join(ordered).encode("utf-8"),
        "nats": _steps([nats[gram] for gram in ordered]),
        "back": _steps([back.get(gram, 0.0) for gram in ordered]),
    }
    tensors = {name: np.frombuffer(zlib.compress(data, 9), np.uint8) for name, data in stored.items()}
    counts = np.bincount([len(gram) for gram in ordered], minlength=4)[1:]
    return {**tensors, "counts": counts.astype("<i8"), "unknown": np.array([-math.log(unknown)], np.float32)}


def _steps(values: list[float]) -> bytes:
    return bytes(min(255, max(0, round(value * STEPS))) for value in values)


def main() -> None:
    """Counts, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", type=Path, required=True, help="folder of the .deb files")
    parser.add_argument("--words", type=Path, required=True, help="as dawg2wordlist tells those of tesseract-ocr-kor")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    listed = unicodedata.normalize("NFC", given.words.read_text("utf-8")).split()
    given.out.write_bytes(save(table(words(given.debs, listed))))


if __name__ == "__main__":
    main()
