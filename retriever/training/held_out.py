"""How good the model is on what it is not trained on: the loss, nDCG@5 of both kinds of vectors, Spearman of grades.

Queries are ranked over the documents of the held-out pairs, so figures are higher than over a corpus: they say whether
training helps, not how good the model is (octavo eval does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from retriever.encoders.base import Embedding
from retriever.encoders.jina_v4 import JinaV4
from retriever.evaluation.metrics import ndcg, ranked
from retriever.training.batches import LONGEST, Batch, Pictures, batch_of
from retriever.training.data import Document, Graded, Pair


def evaluate(
    model: JinaV4, groups: Sequence[Sequence[Any]], task: str, pictures: Pictures, size: int, at_once: int
) -> dict[str, float]:
    """{loss: the mean over batches of `size`; and of pairs ndcg@5_single, ndcg@5_multi; of graded pairs spearman_...},
    means over the groups; {} where nothing is held out."""
    found: dict[str, list[float]] = {}
    model.network.eval()
    for items in filter(None, groups):
        for start in range(0, len(items), size):
            batch = batch_of(model, items[start : start + size], task, pictures, size)
            if batch is not None:
                found.setdefault("loss", []).append(_loss(model, batch, task, at_once))
        if isinstance(items[0], Graded):
            figures = _correlation(model, items, task, at_once)
        else:
            figures = _ranking(model, items, task, pictures, at_once)
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


@torch.no_grad()
def _loss(model: JinaV4, batch: Batch, task: str, at_once: int) -> float:
    vectors = []
    for start in range(0, len(batch.rows), at_once):
        rows = batch.rows[start : start + at_once]
        vectors += model.vectors(rows, [task] * len(rows))
    return float(batch.loss(vectors))


def _ranking(model: JinaV4, pairs: Sequence[Pair], task: str, pictures: Pictures, at_once: int) -> dict[str, float]:
    documents: dict[Document, Embedding] = {}
    wanted = list(dict.fromkeys(pair.document for pair in pairs))
    for start in range(0, len(wanted), at_once):
        drawn = [(one, picture) for one in wanted[start : start + at_once] if (picture := pictures.of(one)) is not None]
        inputs = [picture for _, picture in drawn]
        embedded = model.encode(inputs, task, prompt_name="passage", batch_size=at_once, max_length=LONGEST)
        documents |= {one: vectors for (one, _), vectors in zip(drawn, embedded, strict=True)}
    answers = {pair.query: pair.answers & documents.keys() for pair in pairs}
    texts = [text for text, right in answers.items() if right]
    if not texts:
        return {}
    queries = model.encode(texts, task, prompt_name="query", batch_size=at_once, max_length=LONGEST)
    names = {document: str(number) for number, document in enumerate(documents)}
    values: dict[str, list[float]] = {"ndcg@5_single": [], "ndcg@5_multi": []}
    late = model.similarity([one.multi for one in queries], [one.multi for one in documents.values()])
    for row, (text, query) in enumerate(zip(texts, queries, strict=True)):
        grades = {names[document]: 1 for document in answers[text]}
        dense = [float(query.single @ one.single) for one in documents.values()]  # type: ignore[operator]
        for name, scores in (("ndcg@5_single", dense), ("ndcg@5_multi", late[row].tolist())):
            ranking = ranked(dict(zip(names.values(), scores, strict=True)))
            values[name].append(ndcg(ranking, grades, 5))
    return {name: float(np.mean(some)) for name, some in values.items()}


def _correlation(model: JinaV4, items: Sequence[Graded], task: str, at_once: int) -> dict[str, float]:
    ones, others = (
        model.encode(texts, task, prompt_name="query", batch_size=at_once, max_length=LONGEST)
        for texts in ([item.one for item in items], [item.two for item in items])
    )
    grades = [item.grade for item in items]
    if len(set(grades)) < 2:
        return {}
    dense = [float(one.single @ two.single) for one, two in zip(ones, others, strict=True)]  # type: ignore[operator]
    late = [
        float(model.similarity([one.multi], [two.multi])[0, 0]) / len(one.multi)  # type: ignore[arg-type]
        for one, two in zip(ones, others, strict=True)
    ]
    return {
        f"spearman_{kind}": float(spearmanr(s, grades).statistic) for kind, s in (("single", dense), ("multi", late))
    }
