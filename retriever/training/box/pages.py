r"""Training only: pages of real documents, what could be asked of them, and what the reader sees of bad pictures.

    python -m retriever.training.box.pages --pdfs PDFS --out PAGES

PDFS holds `<package>__<file>.pdf` (DATA.md says which). Runs of neighbouring pages are taken of the documents in PLAN,
as these look most alike. Asked are: a cell by the head of its row and of its column, captions, entries of the outline,
each in one of a few forms of words or as it stands, and sentences of which words are missing. A page in RARELY is also
printed at 150 dpi, turned, blurred, noised, saved as JPEG and read. Writes pages.json and states, 200 pages a file (of
pages that were read 40): a killed run goes on. Some 15 CPU-minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np

from ingest.page import Words
from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.states import WIDTH
from retriever.encoders.box.weights import FOLDER

PLAN = {
    "gnucash-docs__gnucash-guide-en": 110,
    "gnucash-docs__gnucash-help-en": 70,
    "gnucash-docs__gnucash-guide-de": 80,
    "gnucash-docs__gnucash-guide-it": 50,
    "gnucash-docs__gnucash-guide-pt": 50,
    "gnucash-docs__gnucash-guide-ja": 50,
    "gnucash-docs__gnucash-help-de": 30,
    "octave-doc__octave": 80,
    "gnuplot-doc__gnuplot": 70,
    "r-doc-pdf__refman": 90,
    "r-doc-pdf__R-exts": 30,
    "r-doc-pdf__R-admin": 30,
    "r-cran-hsaur3__": 140,
    "sasview-doc__": 110,
    "auto-multiple-choice-doc-pdf__auto-multiple-choice.en": 40,
    "auto-multiple-choice-doc-pdf__auto-multiple-choice.fr": 40,
    "auto-multiple-choice-doc-pdf__auto-multiple-choice.ja": 30,
    "publishers__": 90,
}
RARELY, LEAST = 3, 25  # one page in so many is read from a picture; words a page has at least
CAPTION = re.compile(
    r"^(?:Table|Figure|Fig\.|Tabelle|Abbildung|Tabella|Figura|Tabela|Tableau|Example|Beispiel|表|図)"
    r"\s*[\d.IVX]+[\d.\-a-z]*[:.]?\s+(\S.{8,120})"
)
NUMBER = re.compile(r"^[$€£%(]*[\d.,/:\-+]*\d[\d.,/:\-+]*[%)]*$")
FORMS = {  # of a cell (r its row's head, c its column's, t the caption), of a caption, of a heading
    "en": (
        ["What is the {c} of {r}?", "What is {r} in {c} in {t}?", "How much is {r} for {c}?", "{r} {c}"]
        + ["Which {c} does {r} have according to {t}?"],
        ["What does the {t} show?", "Where is {t} shown?", "{t}"],
        ["How does {h} work?", "What is said about {h}?", "{h}", "Where can I read about {h}?"],
    ),
    "de": (
        ["Was ist {c} von {r}?", "Wie hoch ist {r} bei {c}?", "{r} {c}"],
        ["Was zeigt {t}?", "{t}"],
        ["Wie funktioniert {h}?", "Was steht über {h}?", "{h}"],
    ),
    "fr": (["Quel est {c} de {r} ?", "{r} {c}"], ["Que montre {t} ?", "{t}"], ["Comment fonctionne {h} ?", "{h}"]),
    "it": (["Qual è {c} di {r}?", "{r} {c}"], ["Cosa mostra {t}?", "{t}"], ["Come funziona {h}?", "{h}"]),
    "pt": (["Qual é {c} de {r}?", "{r} {c}"], ["O que mostra {t}?", "{t}"], ["Como funciona {h}?", "{h}"]),
    "ja": (["{r}の{c}は何ですか。"], ["{t}"], ["{h}とは何ですか。", "{h}"]),
}
Cell = tuple[float, float, str]  # left, right, text


def cells(words: list[tuple[Any, ...]]) -> list[list[Cell]]:
    """Lines of a page, each cut where a gap is wider than a line is high. words: of PyMuPDF."""
    rows: list[tuple[float, list[tuple[float, float, str, float]]]] = []
    for x0, y0, x1, y1, text, *_ in sorted(words, key=lambda word: (round((word[1] + word[3]) / 6), word[0])):
        if rows and abs(rows[-1][0] - (y0 + y1) / 2) < max(2, (y1 - y0) * 0.35):
            rows[-1][1].append((x0, x1, text, y1 - y0))
        else:
            rows.append(((y0 + y1) / 2, [(x0, x1, text, y1 - y0)]))
    found = []
    for _, row in rows:
        row.sort()
        parts = [[row[0]]]
        for word, after in zip(row, row[1:], strict=False):
            if after[0] - word[1] > 1.1 * word[3]:
                parts.append([after])
            else:
                parts[-1].append(after)
        found.append([(part[0][0], part[-1][1], " ".join(word[2] for word in part)) for part in parts])
    return found


def crossings(lines: list[list[Cell]], rng: random.Random) -> list[tuple[str, str]]:
    """(head of a row, head of a column) of what looks like tables."""
    found: list[tuple[str, str]] = []
    heads: list[Cell] | None = None
    for line in lines:
        if len(line) > 1 and heads is not None and _letters(line[0][2]) > 2 and len(line[0][2]) < 70:
            left, right, _ = rng.choice(line[1:])
            over = [text for x0, x1, text in heads if x1 > left - 8 and x0 < right + 8 and _letters(text) > 2]
            if over and len(over[0]) < 60:
                found.append((line[0][2], over[0]))
        if len(line) > 1 and sum(not NUMBER.match(text) for *_, text in line) >= max(2, len(line) - 1):
            heads = line
        elif len(line) == 1 and not found:
            heads = None
    return found


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text)


def asked(page: Any, headings: list[str], language: str, rng: random.Random) -> list[str]:
    """Two questions of a kind at most. page: of PyMuPDF."""
    lines, (cell, caption, heading) = cells(page.get_text("words")), FORMS[language]
    captions = [m.group(1) for line in lines if (m := CAPTION.match(" ".join(text for *_, text in line)))]
    about = (captions or headings or ["the table"])[0]
    rows = crossings(lines, rng)
    rng.shuffle(rows)
    rng.shuffle(captions)
    found = [rng.choice(cell).format(r=row, c=column, t=about) for row, column in rows[:2]]
    found += [rng.choice(caption).format(t=text) for text in captions[:2]]
    found += [rng.choice(heading).format(h=text) for text in headings[:2]]
    text = page.get_text("text", flags=3 | 16)  # white space and ligatures kept, words put together at line ends
    return found + spans(re.sub(r"\s+", " ", text), language, rng)


def spans(text: str, language: str, rng: random.Random) -> list[str]:
    """Parts of two sentences, in Japanese as they stand, else without most short words, two in five out of order."""
    if language == "ja":
        sentences = [s for s in re.split("(?<=。)", text) if 12 <= len(s) <= 80]
        rng.shuffle(sentences)
        starts = [rng.randrange(max(1, len(s) // 3)) for s in sentences[:2]]
        return [s[a : a + max(10, int(len(s) * 0.6))] for s, a in zip(sentences, starts, strict=False)]
    split = [s.split() for s in re.split(r"(?<=[.!?;:])\s+", text)]
    split = [s for s in split if 8 <= len(s) <= 40 and np.mean([word.isalpha() for word in s]) > 0.6]
    rng.shuffle(split)
    found = []
    for words in split[:2]:
        count = min(len(words), rng.randint(9, 18))
        start = rng.randrange(len(words) - count + 1)
        left = [w for w in words[start : start + count] if rng.random() > (0.75 if len(w) < 4 else 0.15)]
        if sum(len(word) > 3 for word in left) >= 3:
            if rng.random() < 0.4:
                rng.shuffle(left)
            found.append(" ".join(left).strip(".,;:"))
    return found


def language(document: str) -> str:
    """In which language a document is, by its name."""
    found = re.search(r"[-.](de|fr|it|pt|ja)\.pdf$", document)
    return found[1] if found else "en"


def chosen(pdfs: Path, rng: random.Random) -> list[dict[str, Any]]:
    """document, number (from 0), series, text, asks of each page; `words` and `boxes`, which are not stored."""
    import pymupdf

    pages = []
    for name, most in PLAN.items():
        got: list[tuple[Path, int, list[str]]] = []
        for path in sorted(pdfs.glob(f"{name}*.pdf")):
            headings: dict[int, list[str]] = {}
            document = pymupdf.open(path)
            for _, title, number in document.get_toc():
                headings.setdefault(number - 1, []).append(re.sub(r"^[\d.]+\s*", "", title).strip())
            got += [(path, number, headings.get(number, [])) for number in range(len(document))]
        if len(got) > most and len({path for path, *_ in got}) == 1:
            starts = [int(len(got) * (0.08 + 0.3 * k)) for k in range(3)]
            got = [page for start in starts for page in got[start : start + most // 3]]
        elif len(got) > most:
            runs = [got[k : k + 6] for k in range(0, len(got), 6)]
            rng.shuffle(runs)
            got = [page for run in runs for page in run][:most]
        for path, number, entries in got:
            page = pymupdf.open(path)[number]
            words = page.get_text("words")
            if len(words) < LEAST:
                continue
            titles = [title for title in entries if 3 < len(title) < 90]
            rng.shuffle(titles)
            pages.append(
                {
                    "document": path.name,
                    "number": number,
                    "series": re.sub("(?<=publishers)__.*|__Ch_.*|-(?:guide|help)(?=-)", "", path.name),
                    "text": " ".join(word[4] for word in words),
                    "asks": asked(page, titles, language(path.name), rng),
                    "words": [word[4] for word in words],
                    "boxes": np.array([word[:4] for word in words]) / np.array([page.rect.width, page.rect.height] * 2),
                }
            )
    return pages


def spoilt(path: Path, number: int, seed: int) -> np.ndarray:
    """The picture of a page (h, w, 3) at 150 dpi as a bad scanner saves it."""
    import pymupdf
    from PIL import Image, ImageFilter

    rng, pixels = np.random.default_rng(seed), pymupdf.open(path)[number].get_pixmap(dpi=150)
    image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)
    image = image.rotate(float(rng.uniform(-1, 1)), resample=Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1)))), np.float32)
    values = blurred + rng.normal(0, rng.uniform(3, 10), blurred.shape[:2])[..., None]
    saved = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(saved, "JPEG", quality=50)
    return np.asarray(Image.open(saved).convert("RGB"))


def write(path: Path, states: list[np.ndarray], ids: list[int]) -> None:
    """States of all items in a row, fp16, and how many each has."""
    parts = [part.reshape(-1, WIDTH).astype(np.float16) for part in states]
    np.savez(path.with_suffix(".part.npz"), states=np.concatenate(parts), lens=[*map(len, parts)], ids=ids)
    path.with_suffix(".part.npz").rename(path)


def headless(weights: Path = FOLDER) -> BoxEncoder:
    """The encoder of the folder `weights`, whose vectors are states (t, 384)."""
    encoder = BoxEncoder(threads=1, weights=weights)
    encoder._projection, encoder._stress = np.eye(WIDTH, dtype=np.float32), np.zeros(WIDTH, np.float32)
    return encoder


def write_states(out: Path, encoder: BoxEncoder, texts: list[str], pages: list[Words]) -> None:
    """questions.npz of `texts` and layers-*.npz of `pages` in `out`; what is there is not made again."""
    if not (path := out / "questions.npz").exists():
        write(path, encoder.encode_queries(texts), list(range(len(texts))))
    for start in range(0, len(pages), 200):
        if not (path := out / f"layers-{start}.npz").exists():
            part = range(start, min(start + 200, len(pages)))
            write(path, [encoder.embed(pages[i]).vectors for i in part], list(part))


def main() -> None:
    """Writes pages.json, questions.npz, layers-*.npz and read-*.npz; what is there is not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    encoder, pages = headless(), chosen(given.pdfs, random.Random(0))
    told = [{k: v for k, v in page.items() if k not in ("words", "boxes")} for page in pages]
    (given.out / "pages.json").write_text(json.dumps(told, ensure_ascii=False), "utf-8")
    texts = [text for page in pages for text in page["asks"]]
    write_states(given.out, encoder, texts, [Words(page["words"], page["boxes"]) for page in pages])
    ids = list(range(0, len(pages), RARELY))
    random.Random(1).shuffle(ids)
    for start in range(0, len(ids), 40):
        if not (path := given.out / f"read-{start}.npz").exists():
            part = ids[start : start + 40]
            shown = [spoilt(given.pdfs / pages[i]["document"], pages[i]["number"], i) for i in part]
            write(path, [encoder.embed(encoder.reader.words(picture)).vectors for picture in shown], part)


if __name__ == "__main__":
    main()
