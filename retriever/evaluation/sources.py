"""What is to be measured, by the names people give: folders, data sets of the hub, tasks and benchmarks of mteb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index.errors import OctavoError
from retriever.evaluation import datasets
from retriever.evaluation.datasets import QuestionSet
from retriever.evaluation.pairs import Captioned, Sentences, captioned, sentences


@dataclass
class Named:
    """sets: to be searched; tasks: of mteb, that are no search; pairs: of pictures and captions, and of sentences;
    skipped: name -> why, of what could not be had."""

    sets: list[QuestionSet] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)
    pairs: list[Captioned | Sentences] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def named(sources: Sequence[str], split: str, cache: Path) -> Named:
    """What the names mean. Raises OctavoError or FileNotFoundError for a name that means nothing, and where of all that
    a name means nothing can be had."""
    found = Named()
    for source in sources:
        path = Path(source).expanduser()
        if pairs := sentences(path) if path.is_file() else captioned(path) if path.is_dir() else None:
            found.pairs.append(pairs)
        elif path.is_file():
            raise OctavoError(f"{source}: a file is expected to have the columns sentence1, sentence2 and score")
        elif path.is_dir() or "/" in source or source.startswith(("~", ".")):
            found.sets += datasets.load(source, split, cache)
        else:
            _add_tasks(source, cache, found)
    return found


def _add_tasks(source: str, cache: Path, found: Named) -> None:
    from retriever.evaluation import mteb_tasks

    several = mteb_tasks.tasks(source)
    reasons = []
    for task in several:
        if not mteb_tasks.is_search(task):
            found.tasks.append(task)
            continue
        try:
            found.sets += mteb_tasks.question_sets(task, cache)
        except OctavoError as error:
            reasons.append(error)
            found.skipped[task.metadata.name] = str(error)
    if len(reasons) == len(several):
        raise reasons[0]
