"""Results brought together: means by language and data set as the leaderboards form them, intervals, files, comparison.

A data set's figure is the mean of its languages' (each the mean of its queries), a table's the mean of its data sets'.
A file holds everything that a report or a comparison needs, the value of every query included.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import OctavoError
from retriever.evaluation import trec
from retriever.evaluation.datasets import QuestionSet
from retriever.evaluation.metrics import ranked
from retriever.evaluation.run import Result, System, score, scored
from retriever.evaluation.significance import interval, mean, randomisation

FORMAT = 1
Row = dict[str, Any]
_PACKAGES = ("octavo", "numpy", "torch", "onnxruntime", "faiss-cpu", "pymupdf", "mteb")


def by_language(results: Sequence[Mapping[str, Any]], measure: str) -> dict[str, dict[str, list[float]]]:
    """data set -> language -> the values of its queries, of the results (as plain values) of one system."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for query, value in result["values"][measure].items():
            groups[result["dataset"]][result["languages"].get(query, "")].append(value)
    return {dataset: dict(languages) for dataset, languages in groups.items()}


def systems(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """label of the system -> its results, in order."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        found[result["system"]["label"]].append(result)
    return dict(found)


def table(results: Sequence[Mapping[str, Any]], measure: str) -> list[Row]:
    """Rows of system, dataset, language, queries, mean, low, high; language "" is the data set as a whole, dataset ""
    the mean of all. A language alone has no row of its own."""
    rows = []
    for label, of_system in systems(results).items():
        groups = by_language(of_system, measure)
        for dataset, languages in groups.items():
            rows.append(_row(label, dataset, "", [list(languages.values())]))
            if len(languages) > 1:
                rows += [_row(label, dataset, lang, [[values]]) for lang, values in sorted(languages.items())]
        if len(groups) > 1:
            rows.append(_row(label, "", "", [list(languages.values()) for languages in groups.values()]))
    return rows


Languages = Sequence[Sequence[float] | np.ndarray]


def _row(system: str, dataset: str, language: str, datasets: Sequence[Languages]) -> Row:
    """datasets: of each, its languages' values."""
    groups, weights = flat(datasets)
    low, high = interval(groups, weights)
    row = {"system": system, "dataset": dataset, "language": language, "queries": sum(map(len, groups))}
    return row | {"mean": mean(groups, weights), "low": low, "high": high}


def flat(datasets: Sequence[Languages]) -> tuple[list[Sequence[float] | np.ndarray], list[float]]:
    """The languages of all data sets, each with its weight: alike within a data set, data sets alike."""
    groups = [values for languages in datasets for values in languages]
    return groups, [1 / len(languages) for languages in datasets for _ in languages]


def document(results: Sequence[Result], measures: Sequence[str], command: Sequence[str] = ()) -> dict[str, Any]:
    """The file of a run: what was measured, where, when, how to do it again, and every value."""
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {p: v for p in _PACKAGES if (v := _version(p))},
        "measures": list(measures),
        "results": [result.dict() for result in results],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read(path: Path) -> dict[str, Any]:
    """A file that `document` made. Raises OctavoError for one that is not."""
    try:
        found = json.loads(path.read_text("utf-8"))
        assert found["format"] == FORMAT and all(result["values"] for result in found["results"])
    except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
        raise OctavoError(f"{path}: this is no result of octavo eval (eval.json of its report)") from error
    return dict(found)


def of_run(path: Path, questions: QuestionSet, measures: Sequence[str]) -> Result:
    """The result of a TREC run file. Raises OctavoError where it answers none of the queries."""
    pages = [page for grades in questions.qrels.values() for page in grades]
    run = trec.read_run(path, [query.id for query in questions.queries], pages)
    if not run.keys() & {query.id for query in questions.queries}:
        raise OctavoError(f"{path}: none of its queries is one of {questions.name}")
    rankings = {query: [(page, scores[page]) for page in ranked(scores)] for query, scores in run.items()}
    return score(System(path.name, codec="", candidates="", mode="run"), questions, rankings, measures)


def write_runs(folder: Path, measured: Sequence[tuple[QuestionSet, Sequence[Result]]]) -> None:
    """A qrels file a question set and a TREC run file a result, for trec_eval and other tools."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [questions.name for questions, _ in measured]
    for questions, results in measured:
        language = f".{questions.queries[0].lang}" if names.count(questions.name) > 1 else ""
        name = _file_name(questions.name + language)
        judged = {query.id: questions.qrels[query.id] for query in scored(questions)}
        trec.write_qrels(folder / f"{name}.qrels", judged)
        for result in results:
            system = result.system
            if system.mode == "run":
                continue
            how = f"{system.codec}.pool{system.pool}.{system.candidates}.{system.mode}"
            how = _file_name(system.label) if system.mode == "baseline" else how
            trec.write_run(folder / f"{name}.{how}.run", result.rankings, tag=system.encoder)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def compare(one: Mapping[str, Any], other: Mapping[str, Any], measure: str) -> list[Row]:
    """Rows of dataset, queries, a, b, difference, low, high (95 % of the difference), p (randomisation), better, worse:
    on the queries that both have; the last, with dataset "", over all data sets.

    Systems of the same name are compared, else the first with the first. Raises OctavoError where nothing is shared.
    """
    mine, theirs = systems(one["results"]), systems(other["results"])
    labels = [(label, label) for label in mine if label in theirs]
    labels = labels or list(zip(mine, theirs, strict=False))[:1]
    rows: list[Row] = []
    for label_a, label_b in labels:
        pairs = _pairs(mine[label_a], theirs[label_b], measure)
        names = {"a": label_a, "b": label_b}
        rows += [_compared(names, dataset, [pair]) for dataset, pair in pairs.items()]
        if len(pairs) > 1:
            rows.append(_compared(names, "", list(pairs.values())))
    if not rows:
        raise OctavoError("the two results share no query of any data set")
    return rows


Pairs = list[np.ndarray]


def _pairs(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Pairs]:
    """data set -> for each language (n, 2) values of the queries that both have."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for a in one:
        for b in other:
            if a["dataset"] != b["dataset"]:
                continue
            if measure not in a["values"] or measure not in b["values"]:
                raise OctavoError(f"{measure} is not in both results; they have {', '.join(a['values'])}")
            for query in a["values"][measure].keys() & b["values"][measure].keys():
                if a["languages"][query] == b["languages"][query]:
                    pair = (a["values"][measure][query], b["values"][measure][query])
                    found[a["dataset"]][a["languages"][query]].append(pair)
    return {dataset: [np.array(pairs) for pairs in langs.values()] for dataset, langs in found.items()}


def _compared(systems: dict[str, str], dataset: str, datasets: list[Pairs]) -> Row:
    groups, weights = flat(datasets)
    a, b = ([np.asarray(pairs)[:, side] for pairs in groups] for side in (0, 1))
    differences = [theirs - mine for mine, theirs in zip(a, b, strict=True)]
    low, high = interval(differences, weights)
    row = {"systems": systems, "dataset": dataset, "queries": sum(map(len, groups))}
    return row | {
        "a": mean(a, weights),
        "b": mean(b, weights),
        "difference": mean(differences, weights),
        "low": low,
        "high": high,
        "p": randomisation(differences, weights),
        "better": int(sum((d > 1e-9).sum() for d in differences)),
        "worse": int(sum((d < -1e-9).sum() for d in differences)),
    }
