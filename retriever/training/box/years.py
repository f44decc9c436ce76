r"""Training only: pages of documents in the editions of two years, which only the year and the figures tell apart.

    python -m retriever.training.box.years --pages PAGES --out YEARS

PAGES is what `pages` wrote. Each of its pages is given a year in a running head; the years that it names are moved by
as many, and in the other year's edition most figures are others. What is asked of a page names the year. Writes
pages.json, questions.npz and layers-*.npz as `pages` does, the two editions of a page after each other: a killed run
goes on. Some 8 CPU-minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np

from ingest.page import Words
from retriever.training.box.pages import headless, language, write_states

FIRST, LAST, APART = 1998, 2024, (-3, -2, -1, -1, 1, 1, 2, 3)
YEAR = re.compile(r"(?<![\d.,/])(1[5-9]\d\d|20\d\d)(?!\d)")
SAME, OTHER = 0.3, 0.6  # share of the figures that both editions have; of digits drawn anew in the others
HEADS = {
    "en": ["Annual Report {y}", "Fiscal Year {y}", "For the year ended December 31, {y}", "{y} Annual Report"]
    + ["FY{y} results", "{y}", "Edition {y}", "Report for {y}"],
    "de": ["Geschäftsbericht {y}", "Geschäftsjahr {y}", "Jahr {y}", "Stand {y}"],
    "fr": ["Rapport annuel {y}", "Exercice {y}", "Année {y}"],
    "it": ["Relazione annuale {y}", "Esercizio {y}"],
    "pt": ["Relatório anual {y}", "Ano {y}"],
    "ja": ["{y}年度", "{y}年 年次報告書", "{y}年"],
}
ASKED = {
    "en": ["{q} in {y}", "{q} for {y}", "{y} {q}", "{q} ({y})", "In {y}, {q}", "{q} in fiscal year {y}"]
    + ["{q} as of December 31, {y}"],
    "de": ["{q} im Jahr {y}", "{q} {y}", "{y}: {q}"],
    "fr": ["{q} en {y}", "{q} {y}"],
    "it": ["{q} nel {y}", "{q} {y}"],
    "pt": ["{q} em {y}", "{q} {y}"],
    "ja": ["{y}年の{q}", "{q} {y}年"],
}


def editions(page: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """A page of pages.json in the editions of two years."""
    spoken, first = language(page["document"]), rng.randint(FIRST, LAST)
    second = first + rng.choice(APART)
    head, found = rng.choice(HEADS[spoken]), []
    for year in (first, second):
        words = head.format(y=year).split() + [moved(word, year - first) for word in page["text"].split()]
        if year != first:
            words = [altered(word, rng) for word in words]
        asks = [asked(moved(question, year - first), spoken, year, rng) for question in page["asks"]]
        found.append({**page, "text": " ".join(words), "asks": asks})
    return found


def moved(text: str, by: int) -> str:
    """A text with its years so many later."""
    return YEAR.sub(lambda year: str(int(year[0]) + by), text)


def altered(word: str, rng: random.Random) -> str:
    """A word of two digits and more, no year, mostly with others."""
    if YEAR.search(word) or sum(map(str.isdigit, word)) < 2 or rng.random() < SAME:
        return word
    return re.sub(r"\d", lambda digit: str(rng.randint(1, 9)) if rng.random() < OTHER else digit[0], word)


def asked(question: str, spoken: str, year: int, rng: random.Random) -> str:
    """A question of a year."""
    mark = question[-1:] if question.endswith(("?", "。")) else ""
    return rng.choice(ASKED[spoken]).format(q=question.rstrip("?。 "), y=year) + mark


def main() -> None:
    """Writes the folder; what is there is not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rng, known = random.Random(5), json.loads((given.pages / "pages.json").read_text("utf-8"))
    pages = [edition for page in known for edition in editions(page, rng)]
    (given.out / "pages.json").write_text(json.dumps(pages, ensure_ascii=False), "utf-8")
    words = [page["text"].split() for page in pages]
    layers = [Words(texts, np.zeros((len(texts), 4), np.float32)) for texts in words]
    write_states(given.out, headless(), [text for page in pages for text in page["asks"]], layers)


if __name__ == "__main__":
    main()
