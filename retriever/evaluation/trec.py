"""Run and qrels files as trec_eval reads them: `query Q0 page place score tag`, `query 0 page grade`.

Fields are split at white space, so white space in an id is written as %20 and the like. Every reader has to see the
order that the engine gave, so scores are written strictly falling in the single precision that trec_eval computes with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from index.errors import OctavoError

Run = dict[str, dict[str, float]]
"""query -> page -> score"""


def trec_id(name: str) -> str:
    """An id without white space; those that have none are left as they are."""
    return re.sub(r"\s", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), name)


def falling(scores: Sequence[float]) -> list[float]:
    """Scores, best first, made strictly falling in single precision by the least change."""
    singles, last = [], np.float32(np.inf)
    for score in np.asarray(scores, np.float32):
        last = min(score, np.nextafter(last, np.float32(-np.inf)))
        singles.append(float(last))
    return singles


def write_run(path: Path, results: Mapping[str, Sequence[tuple[str, float]]], tag: str = "octavo") -> None:
    """results: query -> (page, score), best first."""
    lines = []
    for query, found in results.items():
        scores = falling([score for _, score in found])
        for place, ((page, _), score) in enumerate(zip(found, scores, strict=True), 1):
            lines.append(f"{trec_id(query)} Q0 {trec_id(page)} {place} {score:.9g} {trec_id(tag)}\n")
    path.write_text("".join(lines), "utf-8")


def read_run(path: Path, queries: Iterable[str] = (), pages: Iterable[str] = ()) -> Run:
    """The scores of a run file; of a page that comes twice for a query, the higher. queries, pages: the ids as they
    are where they hold white space. Raises OctavoError for a line that is none."""
    names = {trec_id(name): name for name in [*queries, *pages]}
    run: Run = {}
    for number, fields in _lines(path, 6):
        try:
            score = float(fields[4])
        except ValueError:
            score = float("nan")
        if not np.isfinite(score):
            raise OctavoError(f"{path}, line {number}: {fields[4]!r} is no score; {_FORM[6]} is expected")
        query, page = names.get(fields[0], fields[0]), names.get(fields[2], fields[2])
        scores = run.setdefault(query, {})
        scores[page] = max(score, scores.get(page, score))
    return run


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """The judgements beside a run file, under the same ids."""
    lines = [
        f"{trec_id(q)} 0 {trec_id(page)} {grade}\n" for q, grades in qrels.items() for page, grade in grades.items()
    ]
    path.write_text("".join(lines), "utf-8")


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """The judgements of a qrels file. Raises OctavoError for a line that is none."""
    qrels: dict[str, dict[str, int]] = {}
    for number, (query, _, page, grade) in _lines(path, 4):
        try:
            qrels.setdefault(query, {})[page] = int(grade)
        except ValueError:
            raise OctavoError(f"{path}, line {number}: {grade!r} is no grade; {_FORM[4]} is expected") from None
    return qrels


_FORM = {6: "query Q0 page place score tag", 4: "query 0 page grade"}


def _lines(path: Path, fields: int) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != fields:
            raise OctavoError(f"{path}, line {number}: {len(parts)} fields; {_FORM[fields]} is expected")
        yield number, parts
