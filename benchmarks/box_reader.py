"""How well and how fast the reader of the encoder in the box reads: OCR of rendered pages against their text layers.

    python benchmarks/box_reader.py [--pages 12]

Recall and precision of words as bags as they are printed (NFKC, lower case; round quotes, dashes, bullets, lone signs
count; words with control characters, which are glyphs of a font, do not), recall of the terms that the text lane makes
of them, and of characters, the median overlap of a word's box with the true one along the line, how alike the reading
order is, CPU-seconds a page at 150 dpi. Arabic is in the table to show what comes out where tesseract is not installed,
and where it is.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pymupdf
from _sets import DATA

from index.text import terms
from ingest.page import Words
from retriever.encoders.box import BoxEncoder

SETS = {
    "filings, manuals (en)": "ohr_bench/pdf/[A-Zn]*.pdf",
    **{
        f"xquad {code}": f"xquad_pages/pdf/xquad_{code}.pdf"
        for code in ("en", "de", "es", "zh", "vi", "ro", "ru", "ar")
    },
    "jaquad (ja)": "jaquad_pages/pdf/*.pdf",
    "piaf (fr)": "piaf_pages/pdf/*.pdf",
}


def plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def words_of(texts: list[str]) -> Counter[str]:
    """The words as they are printed; what the layer has as one over a no-break space is several."""
    told = (word for text in texts for word in plain(text).split())
    return Counter(word for word in told if not any(unicodedata.category(c) == "Cc" for c in word))


def overlap(true: Words, read: Words) -> list[float]:
    """Intersection over union along the line of the words that occur once in both."""
    boxes = []
    for words in (true, read):
        count = Counter(map(plain, words.texts))
        boxes.append({plain(t): b for t, b in zip(words.texts, words.boxes, strict=True) if count[plain(t)] == 1})
    found = []
    for word in boxes[0].keys() & boxes[1].keys():
        a, b = boxes[0][word], boxes[1][word]
        found.append(max(0.0, float((min(a[2], b[2]) - max(a[0], b[0])) / (max(a[2], b[2]) - min(a[0], b[0])))))
    return found


def measure(encoder: BoxEncoder, pattern: str, pages: int) -> dict[str, float]:
    """One row of the table over `pages` pages drawn with seed 0 from the files of `pattern`."""
    files = [pymupdf.open(path) for path in sorted(DATA.glob(pattern))]
    every = [(file, number) for file in files for number in range(len(file))]
    random.Random(0).shuffle(every)
    words, found, characters, precision, order, boxes = [], [], [], [], [], []
    seconds = 0.0
    for file, number in every:
        sheet = file[number]
        layer = sheet.get_text("words")
        if len(layer) < 30 or sheet.rotation or max(sheet.rect.width, sheet.rect.height) > 1000:
            continue
        size = np.array([sheet.rect.width, sheet.rect.height] * 2, np.float32)
        true = Words([w[4] for w in layer], np.array([w[:4] for w in layer], np.float32) / size)
        pixels = sheet.get_pixmap(dpi=150, alpha=False)
        image = np.frombuffer(pixels.samples, np.uint8).reshape(pixels.height, pixels.width, 3).copy()
        start = time.process_time()
        read = encoder.reader.words(image)
        seconds += time.process_time() - start
        a, b = words_of(true.texts), words_of(read.texts)
        words.append((a & b).total() / a.total())
        precision.append((a & b).total() / max(1, b.total()))
        e, f = (Counter(terms(" ".join(texts))) for texts in (true.texts, read.texts))
        found.append((e & f).total() / e.total())
        c, d = Counter(plain("".join(true.texts))), Counter(plain("".join(read.texts)))
        characters.append((c & d).total() / c.total())
        order.append(difflib.SequenceMatcher(None, *[[plain(t) for t in w.texts] for w in (true, read)], False).ratio())
        boxes += overlap(true, read)
        if len(words) == pages:
            break
    means = {"word recall": words, "term recall": found, "word precision": precision, "character recall": characters}
    means["order"] = order
    row = {name: round(float(np.mean(values)), 3) for name, values in means.items()}
    median = round(float(np.median(boxes)), 3) if boxes else 0.0
    return {**row, "box overlap": median, "CPU-s a page": round(seconds / len(words), 2), "pages": len(words)}


def main() -> None:
    """Measures, prints a table, saves results/box_reader.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=12)
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.stdout.write(f"skipped: {DATA} is not there\n")
        return
    encoder = BoxEncoder(threads=1)
    table = {}
    for name, pattern in SETS.items():
        table[name] = measure(encoder, pattern, given.pages)
        sys.stdout.write(f"{name}: {json.dumps(table[name])}\n")
        sys.stdout.flush()
    out = Path(__file__).parent / "results" / "box_reader.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"seed": 0, "sets": table}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
