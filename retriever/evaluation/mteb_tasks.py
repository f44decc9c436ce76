"""Tasks and benchmarks by the names that mteb knows: `ViDoRe(v2)`, `JinaVDRDocVQARetrieval`, `STS17`.

Tasks that search become question sets, so that they get everything other sets get (intervals, funnel, gallery) and the
values that mteb's own runner gives the search model; a reranking task's fixed candidates are searched by mteb's runner,
as is everything that is no search. Data comes from the hub through mteb, or from its cache.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from index.errors import OctavoError
from ingest.page import Encoder
from retriever.evaluation.datasets import Query, QuestionSet
from retriever.evaluation.hub import corpus_of, rows_of
from retriever.evaluation.mteb_models import SEARCHES, EncoderModel, SearchModel, query_text
from retriever.evaluation.tables import needed


def tasks(name: str) -> list[Any]:
    """The tasks of a benchmark, or the one task of that name. Raises OctavoError for a name that mteb does not know."""
    try:
        _ask_the_hub_once()
        mteb = needed("mteb", "mteb")
    except OctavoError as error:
        raise OctavoError(f"{name}: there is no such folder; if it is a task or benchmark of mteb, {error}") from error
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        pass
    try:
        return [mteb.get_task(name)]
    except (KeyError, ValueError) as error:
        raise OctavoError(
            f"{name}: neither a folder, nor a data set of the hub, nor a task or benchmark of mteb"
        ) from error


def _ask_the_hub_once() -> None:
    """Where the hub cannot be reached, what is on this machine is used at once; its libraries would try for minutes."""
    hub, constants = needed("huggingface_hub", "mteb"), needed("huggingface_hub.constants", "mteb")
    try:
        hub.get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whatever kind its HTTP library raises
        constants.HF_HUB_OFFLINE = True


def is_search(task: Any) -> bool:
    """Whether a task is one of finding texts or pages by a text, in a whole corpus."""
    reranks = "Reranking" in str(task.metadata.type)
    asked_by_text = task.metadata.category is None or str(task.metadata.category).startswith("t2")
    return any(kind in str(task.metadata.type) for kind in SEARCHES) and asked_by_text and not reranks


def question_sets(task: Any, cache: Path) -> list[QuestionSet]:
    """The question sets of a task, one a language. Raises OctavoError where its data cannot be had."""
    try:
        task.load_data()
    except Exception as error:
        told = str(error).splitlines()[0][:200] if str(error) else ""
        raise OctavoError(
            f"{task.metadata.name}: the data of the task is not on this machine and the hub did not give it "
            f"({type(error).__name__}: {told}). Fetch it where there is a network (HF_HOME says where it is kept), or "
            "copy the data set here and name its folder"
        ) from error
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    sets = []
    for subset, splits in task.dataset.items():
        data = splits[task.metadata.eval_splits[0]]
        lang = "" if subset == "default" else subset
        queries = [Query(str(row["id"]), query_text(row), lang) for row in data["queries"]]
        qrels = {q: {page: int(score) for page, score in grades.items()} for q, grades in data["relevant_docs"].items()}
        sets.append(QuestionSet(task.metadata.name, corpus_of(rows_of(data["corpus"]), cache), queries, qrels))
    return sets


def measure(task: Any, encoder: Encoder, cache: Path, **settings: Any) -> dict[str, Any]:
    """A task that is not run as a question set, by mteb's own runner: task, main_score, value, and subsets."""
    mteb = needed("mteb", "mteb")
    reranks = "Reranking" in str(task.metadata.type)
    model: Any = SearchModel(encoder, cache=cache, **settings) if reranks else EncoderModel(encoder)
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (found,) = result.task_results
    rows = [(split, row) for split, some in found.scores.items() for row in some]
    subsets = {f"{split}, {row['hf_subset']}": _number(row["main_score"]) for split, row in rows}
    return {
        "task": task.metadata.name,
        "type": str(task.metadata.type),
        "main_score": task.metadata.main_score,
        "value": _number(found.get_score()),
        "subsets": subsets,
    }


def _number(value: float) -> float | None:
    """None for what mteb could not compute: a nan, as of a correlation with a constant."""
    return float(value) if math.isfinite(value) else None
