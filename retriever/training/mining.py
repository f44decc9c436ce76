"""Hard negatives: what our own index, filled by the model as it is, finds for a query though it does not answer it.

A page that scores nearly as the answer is likely an answer that nobody marked, and is passed over (Moreira et al. 2024,
NV-Retriever: positive-aware mining at 95 %; here from the ranking's last score on, since what pages have in common,
the prompt's tokens for one, adds to every MaxSim). Mined once and kept, so that a run that goes on has the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retriever.encoders.jina_v4 import JinaV4
from retriever.evaluation.indexes import opened
from retriever.training.data import Document, Material, PageOf, Pair, digest

DEPTH = 100
NEARLY = 0.95


def with_negatives(
    material: Material, model: JinaV4, n: int, folder: Path, told: Callable[[str, int, int], None]
) -> list[Pair]:
    """The pairs of a material with n negatives each, or fewer; pairs that came with some keep those.

    folder: where the index and what was mined are kept. Raises OctavoError where the pages cannot be indexed.
    """
    lacking = [pair for pair in material.pairs if not pair.negatives]
    if not lacking:
        return list(material.pairs)
    kept = folder / f"{digest(lacking)}-{n}.json"
    if not kept.exists():
        mined = _mined(material, lacking, model, n, folder, told)
        folder.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".part")
        partial.write_text(json.dumps([[_plain(one) for one in some] for some in mined]))
        partial.replace(kept)
    found = iter(json.loads(kept.read_text()))
    return [
        pair if pair.negatives else pair._replace(negatives=tuple(_document(one) for one in next(found)))
        for pair in material.pairs
    ]


def _mined(
    material: Material,
    pairs: Sequence[Pair],
    model: JinaV4,
    n: int,
    folder: Path,
    told: Callable[[str, int, int], None],
) -> list[list[Document]]:
    encoder: Any = model
    retriever, _ = opened(material.corpus, encoder, folder, told=told)
    found: list[list[Document]] = []
    with retriever:
        for number, pair in enumerate(pairs):
            told("mining negatives", number, len(pairs))
            hits = retriever.search(pair.query, DEPTH, "visual")
            scored = [(material.document(hit.document, hit.page), float(hit.lanes["visual"])) for hit in hits]
            found.append(negatives_of(scored, pair, n))
    return found


def negatives_of(scored: Sequence[tuple[Document, float]], pair: Pair, n: int) -> list[Document]:
    """The n best of a ranking that do not answer and lie below NEARLY of the way from its last score to the answer's;
    where there are none, or the answer is not in the ranking, its last."""
    right = next((score for document, score in scored if document == pair.document), None)
    others = [(document, score) for document, score in scored if document not in pair.answers]
    least = scored[-1][1] if scored else 0.0
    below = [] if right is None else [one for one in others if one[1] - least < NEARLY * (right - least)]
    return [document for document, _ in below[:n] or others[-n:]]


def _plain(document: Document) -> Any:
    return document if isinstance(document, str) else [str(document.path), document.number]


def _document(plain: Any) -> Document:
    return plain if isinstance(plain, str) else PageOf(Path(plain[0]), plain[1])
