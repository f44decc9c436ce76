"""`octavo recall`: what the first stage and the codecs lose on this very index, and what each setting costs.

The truth is exact MaxSim over every stored token. Questions are the user's own, or a run of words out of a page each,
which are easier than what people ask: they rank settings, they do not promise a quality. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from index import Ragged, candidates
from index.candidates import Queries
from index.codec import CENTRED, CODECS, PACKED, encode
from index.errors import QueryError
from index.ragged import Codes
from index.snapshot import Snapshot
from retriever import query
from retriever.kernels import maxsim
from retriever.ranking import suits
from retriever.rerank import rerank, score, top

if TYPE_CHECKING:
    from retriever.engine import Retriever

K = 10
DEPTHS = (10, 20, 30, 50, 100, 150, 300)
QUESTIONS, WORDS = 100, 8
PAGES = 2000  # that the codecs are compared on
GOALS = (0.95, 0.99)

Told = Callable[[int, int], None] | None


class Setting(NamedTuple):
    """A way to search: its name; recall: share of the exact top 10; ms: median CPU time a query; bytes: a token, that
    this stage looks at."""

    name: str
    recall: float
    ms: float
    bytes: float


def measure(retriever: Retriever, texts: Sequence[str] | None, told: Told = None) -> dict[str, Any]:
    """Recall of every stage and codec. texts: questions, None to make some; told: of steps done, of how many.

    Raises QueryError where there are none.

    Returns pages, tokens, questions, made (whether they were), stages and codecs (of `Setting`), and reached: for each
    goal the cheapest stage that reaches it, or None.
    """
    tell = told or (lambda done, total: None)
    with retriever.index.snapshot() as snapshot:
        made = texts is None
        asked = made_of(snapshot) if texts is None else list(texts)
        if not asked:
            raise QueryError(f"{snapshot.folder}: no page has {WORDS} words to make questions of; give some: --queries")
        tell(0, 6)
        tokens = retriever.encoder.encode_queries(asked)
        singles = query.singles(retriever.encoder, asked, tokens)
        tell(1, 6)
        ids = snapshot.state.ids

        def whole(i: int) -> np.ndarray:
            return top(score(Ragged.of([tokens[i]]), ids, snapshot)[0], ids, snapshot, K)[1]

        exact, times = _timed(whole, asked)
        stages = [Setting("exact", 1.0, times, snapshot.layout.token_bytes)]
        for done, kind in enumerate(("codes", "rows", "pooled"), 2):
            tell(done, 6)
            stages += _stage(snapshot, kind, tokens, singles, exact)
        tell(5, 6)
        codecs = _codecs(snapshot, tokens)
        reached = {str(goal): _cheapest(stages, goal) for goal in GOALS}
        return {
            "pages": len(ids),
            "tokens": snapshot.state.tokens,
            "questions": len(asked),
            "made": made,
            "stages": [stage._asdict() for stage in stages],
            "codecs": [codec._asdict() for codec in codecs],
            "reached": reached,
        }


def made_of(snapshot: Snapshot, seed: int = 0) -> list[str]:
    """A run of WORDS words out of each of at most QUESTIONS pages, the same for the same pages."""
    rng = np.random.default_rng(seed)
    questions: list[str] = []
    for page in rng.permutation(snapshot.state.ids)[: 5 * QUESTIONS].tolist():
        words = snapshot.text(page)[0].split()
        if len(words) >= WORDS and len(questions) < QUESTIONS:
            start = int(rng.integers(len(words) - WORDS + 1))
            questions.append(" ".join(words[start : start + WORDS]))
    return questions


def _stage(
    snapshot: Snapshot, kind: str, tokens: list[np.ndarray], singles: np.ndarray, exact: list[np.ndarray]
) -> list[Setting]:
    stage: Any = snapshot.first_stage
    own = stage.kind == kind
    if not own:
        stage = candidates.empty(kind, snapshot.layout.dim, snapshot.layout.single_dim)
        stage.update(snapshot.state.ids[snapshot.state.extents.tokens > 0], snapshot)
    size = sum(array.nbytes for array in stage.state()[1].values()) / max(snapshot.state.tokens, 1)
    settings = []
    asked = [(depth, f"{kind}, {depth} pages") for depth in DEPTHS if depth < len(snapshot)]
    for n, name in [*asked, *([(0, f"{kind}, by default")] if own else [])]:

        def search(i: int, n: int = n) -> np.ndarray:
            query = Ragged.of([tokens[i]])
            promise, ids = stage.search(Queries(query, singles[i : i + 1]), n or suits(snapshot))[0]
            return rerank(query, ids, snapshot, K, None if n else promise)[0][1]

        found, ms = _timed(search, tokens)
        settings.append(Setting(name, _recall(exact, found), ms, size))
    return settings


def _codecs(snapshot: Snapshot, tokens: list[np.ndarray]) -> list[Setting]:
    """Each codec that is coarser than the stored one, over every page of at most PAGES, against what is stored."""
    ids = np.sort(np.random.default_rng(0).permutation(snapshot.state.ids)[:PAGES])
    stored, pages = snapshot.layout, snapshot.vectors(ids)
    centre = pages.values.mean(axis=0) if len(pages.values) else np.zeros(stored.dim, np.float32)

    def best(codes: Codes) -> tuple[list[np.ndarray], float]:
        return _timed(lambda i: _best(maxsim(tokens[i], codes)), tokens)

    exact, ms = best(snapshot.gather(ids))
    settings = [Setting(stored.codec, _recall(exact, exact), ms, stored.token_bytes)]
    for codec in CODECS:
        layout = replace(stored, codec=codec, centre=centre if codec in CENTRED else None)
        if layout.token_bytes < stored.token_bytes and not stored.dim % PACKED.get(codec, 1):
            values, scales = encode(pages.values, codec, layout.centre)
            rows, ms = best(Codes(values, pages.offsets, codec, scales, layout.centre))
            settings.append(Setting(codec, _recall(exact, rows), ms, layout.token_bytes))
    return settings


def _best(scores: np.ndarray) -> np.ndarray:
    order = np.lexsort((np.arange(len(scores)), -scores))[:K]
    return order[np.isfinite(scores[order])]


def _timed(search: Callable[[int], np.ndarray], queries: Sequence[Any]) -> tuple[list[np.ndarray], float]:
    found, times = [], []
    for i in range(len(queries)):
        begun = time.process_time()
        found.append(search(i))
        times.append(1e3 * (time.process_time() - begun))
    return found, float(np.median(times))


def _recall(exact: list[np.ndarray], found: list[np.ndarray]) -> float:
    return float(np.mean([np.isin(best, got).mean() for best, got in zip(exact, found, strict=True) if len(best)]))


def _cheapest(stages: list[Setting], goal: float) -> dict[str, Any] | None:
    enough = [stage for stage in stages if stage.recall >= goal]
    return min(enough, key=lambda stage: stage.ms)._asdict() if enough else None
