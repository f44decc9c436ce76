"""Pictures of what went wrong: the page that answers, the page that came first, each with what the engine saw in it.

Heat maps come from stored vectors, so no page is encoded again. Text corpora have no pictures and show their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from index.errors import OctavoError
from ingest.page import Encoder
from retriever.engine import Retriever
from retriever.evaluation.datasets import QuestionSet
from retriever.evaluation.indexes import opened
from retriever.evaluation.run import Result
from retriever.sheet import source

MOST = 8  # failures of a data set
_SIDE = 720  # pixels of a picture's longer side
_SHOWN = 280  # letters of a text


def gallery(
    questions: QuestionSet, encoder: Encoder, cache: Path, result: Result, most: int = MOST
) -> list[dict[str, Any]]:
    """The failures of a result, spread from the worst to the nearest miss, each with `right` and `ours` as
    {page, picture (a data: address, or ""), text}."""
    system, missed = result.system, result.failures
    chosen = [missed[round(place)] for place in _spread(len(missed), most)]
    shown = []
    retriever, _ = opened(
        questions.corpus, encoder, cache, codec=system.codec, pool=system.pool, candidates=system.candidates
    )
    with retriever:
        for miss in chosen:
            pages = {side: _page(retriever, questions, miss[side], miss["text"]) for side in ("right", "ours")}
            shown.append(dict(miss) | pages)
    return shown


def _spread(n: int, most: int) -> Sequence[float]:
    if n <= most:
        return range(n)
    return [place * (n - 1) / (most - 1) for place in range(most)] if most > 1 else [0]


def _page(retriever: Retriever, questions: QuestionSet, page: str, query: str) -> dict[str, Any]:
    place = questions.corpus.place(page)
    if place is None:
        return {"page": page, "picture": "", "text": "This page is not in the corpus."}
    content, number = place
    if content in questions.corpus.texts:
        return {"page": page, "picture": "", "text": questions.corpus.texts[content][:_SHOWN]}
    try:
        hit = retriever.page(content, number, query)
        return {"page": page, "picture": source(hit.heatmap(dpi=80), _SIDE), "text": hit.snippet[:_SHOWN]}
    except OctavoError as error:
        return {"page": page, "picture": "", "text": f"The page cannot be drawn: {error}"}
