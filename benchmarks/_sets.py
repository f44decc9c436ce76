"""Question sets under shared/data (see its README) and the figure they are judged by."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DATA = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"


class Question(NamedTuple):
    """text: what is asked; lang: its language; pages: ids of the relevant ones, `<file>#<page, from 0>`."""

    id: str
    text: str
    lang: str
    pages: frozenset[str]


def questions(name: str) -> list[Question]:
    """The questions of a set. Raises FileNotFoundError where the set is not there."""
    relevant: dict[str, set[str]] = defaultdict(set)
    for line in (DATA / name / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, page, grade = line.split("\t")
        if int(grade) > 0:
            relevant[query].add(page)
    rows = [json.loads(line) for line in (DATA / name / "queries.jsonl").read_text("utf-8").splitlines()]
    return [Question(row["id"], row["text"], row["lang"], frozenset(relevant[row["id"]])) for row in rows]


def pdfs(name: str) -> list[Path]:
    """The documents of a set."""
    return sorted((DATA / name / "pdf").glob("*.pdf"))


def ndcg(ranking: Sequence[str], relevant: frozenset[str], k: int = 5) -> float:
    """nDCG@k with grades 0 and 1 (Jarvelin and Kekalainen 2002)."""
    gain = sum(1 / math.log2(place + 2) for place, page in enumerate(ranking[:k]) if page in relevant)
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    return gain / best if best else 0.0
