"""The whole engine over a question set: each query searched, scored, timed; what its first stage loses, what it missed.

A system is what is measured: encoder, codec, pooling, first stage, mode. A result keeps the value of every query, so
that two systems can be compared query by query. Not here: intervals, means and files (results), pictures (gallery).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ingest.page import Encoder
from retriever.engine import Retriever
from retriever.evaluation.bm25 import BM25
from retriever.evaluation.datasets import Corpus, Query, QuestionSet
from retriever.evaluation.indexes import Told, opened, texts
from retriever.evaluation.metrics import MEASURES, evaluate, judged
from retriever.evaluation.readers import WordsOnly
from retriever.query import Query as Asked
from retriever.query import of_texts, words_only
from retriever.ranking import CANDIDATES, TEXT_SHARE, check_search, rank

DEPTH = 100
"""Places of a ranking that are looked at."""
Encoded = dict[str, Asked]
"""Text of a query -> what the encoder made of it."""
_FUNNEL, _TIMED = 100, 40  # queries that the funnel, and the clock, look at


@dataclass(frozen=True)
class System:
    """What is measured. encoder: its name; candidates: the first stage; mode: visual, text or hybrid; or baseline, and
    `encoder` is what read the words; or run, of a ranking that was made elsewhere, whose name `encoder` then is."""

    encoder: str
    codec: str = "int8"
    pool: int = 1
    candidates: str = "auto"
    mode: str = "hybrid"

    @property
    def label(self) -> str:
        """The parts in one line."""
        if self.mode == "run":
            return f"run: {self.encoder}"
        if self.mode == "baseline":
            return f"baseline: BM25 over {self.encoder}"
        if self.mode == "text":
            return f"text: BM25 over words as read by {self.encoder}"
        pooled = f", pool {self.pool}" if self.pool != 1 else ""
        return f"{self.mode}: {self.encoder}, {self.codec}{pooled}, {self.candidates} candidates"


@dataclass
class Result:
    """One system on one question set. values: measure -> query -> value; languages: query -> language; rankings: query
    -> (page, score), best first; cost: bytes_a_page, ms_a_query, ...; funnel: step -> share of the relevant pages that
    are left; failures: the queries whose page is not first, see `failures`; smoke: whether queries were made up."""

    system: System
    dataset: str
    smoke: bool
    pages: int
    values: dict[str, dict[str, float]]
    languages: dict[str, str]
    left_out: int
    rankings: dict[str, list[tuple[str, float]]]
    cost: dict[str, Any]
    funnel: dict[str, float]
    failures: list[dict[str, Any]] = field(default_factory=list)

    def dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the rankings, which are in the run file."""
        plain = {name: value for name, value in self.__dict__.items() if name not in ("system", "rankings")}
        return plain | {"system": asdict(self.system) | {"label": self.system.label}}


def run(
    questions: QuestionSet,
    encoder: Encoder,
    cache: Path,
    *,
    codec: str = "int8",
    pool: int = 1,
    candidates: str = "auto",
    modes: Sequence[str] = ("hybrid",),
    measures: Sequence[str] = MEASURES,
    derive: bool = False,
    known: Encoded | None = None,
    told: Told | None = None,
) -> list[Result]:
    """Measure the engine on a question set, a result a mode. known: texts that this encoder has encoded, which gets
    those that it encodes. Raises OctavoError where no query can be scored."""
    known = {} if known is None else known
    tell = told or (lambda what, done, total: None)
    retriever, made = opened(
        questions.corpus, encoder, cache, codec=codec, pool=pool, candidates=candidates, derive=derive, told=tell
    )
    with retriever:
        status = retriever.status()
        results = []
        for mode in modes:
            system = System(encoder.name, codec, pool, candidates, mode)
            asked = scored(questions)
            rankings = search(retriever, questions.corpus, asked, mode, known, tell)
            cost = made | _cost(status) | _times(retriever, asked, mode)
            result = score(system, questions, rankings, measures, cost)
            result.pages = status["pages"]
            if mode != "text" and status["candidates"] != "exact":
                result.funnel = funnel(retriever, questions, asked[:_FUNNEL], rankings, mode, known, tell)
            results.append(result)
    return results


def baseline(
    questions: QuestionSet, reader: WordsOnly, cache: Path, measures: Sequence[str] = MEASURES, told: Told | None = None
) -> Result:
    """Measure plain BM25 over the words that `reader` gives. Raises OctavoError where no query can be scored."""
    retriever, made = opened(questions.corpus, reader, cache, told=told)
    with retriever:
        lane = BM25(texts(retriever, questions.corpus))
    rankings = {query.id: lane.search(query.text, DEPTH) for query in scored(questions)}
    return score(System(reader.name, codec="", candidates="", mode="baseline"), questions, rankings, measures, made)


def scored(questions: QuestionSet) -> list[Query]:
    """The queries to which some page is relevant."""
    wanted = set(judged(questions.qrels))
    return [query for query in questions.queries if query.id in wanted]


def search(
    retriever: Retriever,
    corpus: Corpus,
    queries: Sequence[Query],
    mode: str,
    known: Encoded,
    tell: Told,
) -> dict[str, list[tuple[str, float]]]:
    """query -> (page, score), best first, pages by the names that the data set gives them."""
    found: dict[str, list[tuple[str, float]]] = {}
    for number, query in enumerate(queries):
        tell(f"searching ({mode})", number, len(queries))
        found[query.id] = best(retriever, corpus, query.text, DEPTH, mode, known=known)
    tell(f"searching ({mode})", len(queries), len(queries))
    return found


def best(
    retriever: Retriever,
    corpus: Corpus,
    text: str,
    k: int,
    mode: str,
    where: dict[str, Any] | None = None,
    candidates: int | str | None = None,
    known: Encoded | None = None,
) -> list[tuple[str, float]]:
    """(page, score) of what `Retriever.search` finds, without the evidence that its hits carry, which costs more than
    finding them; a page with several names takes several places."""
    limit = check_search([text], k, mode, candidates)
    known = {} if known is None or mode == "text" else known
    if text not in known:
        dim, encode = retriever.index.settings.dim, mode != "text"
        (known[text],) = of_texts(retriever.encoder, [text]) if encode else words_only([text], dim)
    asked = known[text]
    with retriever.index.snapshot() as snapshot:
        found = rank(snapshot, asked.said, asked.vectors, asked.single, k, mode, where, limit)
        rows = snapshot.pages(one.page for one in found)
    places = [(rows[one.page], one.score) for one in found]
    return [(name, score) for row, score in places for name in corpus.ids(row["content"], row["number"])]


def score(
    system: System,
    questions: QuestionSet,
    rankings: Mapping[str, list[tuple[str, float]]],
    measures: Sequence[str],
    cost: dict[str, Any] | None = None,
) -> Result:
    """The result of rankings, the engine's or another's: query -> (page, score), best first."""
    asked = scored(questions)
    qrels = {query.id: questions.qrels[query.id] for query in asked}
    values = evaluate({query: [page for page, _ in found] for query, found in rankings.items()}, qrels, measures)
    return Result(
        system=system,
        dataset=questions.name,
        smoke=questions.smoke,
        pages=len(questions.corpus.names),
        values=values,
        languages={query.id: query.lang for query in asked},
        left_out=len(questions.queries) - len(asked),
        rankings=dict(rankings),
        cost=cost or {},
        funnel={},
        failures=failures(questions, asked, rankings),
    )


def failures(
    questions: QuestionSet, asked: Sequence[Query], rankings: Mapping[str, list[tuple[str, float]]]
) -> list[dict[str, Any]]:
    """The queries whose first page is not relevant, worst first: query, text, lang, right (the best graded page), ours,
    and the place of the right page, None where it is not in the ranking."""
    missed = []
    for query in asked:
        grades = questions.qrels[query.id]
        found = [page for page, _ in rankings.get(query.id, ())]
        if not found or grades.get(found[0], 0) > 0:
            continue
        right = max(grades, key=lambda page: (grades[page], page))
        places = [place for place, page in enumerate(found, 1) if grades.get(page, 0) > 0]
        ours = {"query": query.id, "text": query.text, "lang": query.lang, "right": right, "ours": found[0]}
        missed.append(ours | {"place": places[0] if places else None})
    return sorted(missed, key=lambda miss: (-(miss["place"] or DEPTH + 1), miss["query"]))


def funnel(
    retriever: Retriever,
    questions: QuestionSet,
    asked: Sequence[Query],
    rankings: Mapping[str, list[tuple[str, float]]],
    mode: str,
    known: Encoded,
    tell: Told,
) -> dict[str, float]:
    """The share of the relevant pages that is left at each step, mean over queries."""
    shares: dict[str, list[float]] = {}
    lexical = CANDIDATES // TEXT_SHARE
    for number, query in enumerate(asked):
        tell("what the first stage loses", number, len(asked))
        relevant = {page for page, grade in questions.qrels[query.id].items() if grade > 0}

        def within(n: int, lane: str, text: str = query.text) -> set[str]:
            return {page for page, _ in best(retriever, questions.corpus, text, n, lane, None, n, known)}

        first = within(CANDIDATES, "visual")
        steps = {f"first stage, {CANDIDATES} pages": first}
        if mode == "hybrid":
            steps |= {f"with {lexical} by their words": first | within(lexical, "text")}
        ranking = [page for page, _ in rankings[query.id]]
        steps |= {f"in the first {k}": set(ranking[:k]) for k in (10, 5, 1)}
        for step, pages in steps.items():
            shares.setdefault(step, []).append(len(relevant & pages) / len(relevant))
    return {step: float(np.mean(values)) for step, values in shares.items()}


def _cost(status: Mapping[str, Any]) -> dict[str, Any]:
    pages = max(status["pages"], 1)
    return {
        "stage": status["candidates"],
        "tokens_a_page": status["tokens"] / pages,
        "bytes_a_page": status["bytes"] / pages,
        "bytes_by_part": status["bytes_by_part"],
    }


def _times(retriever: Retriever, asked: Sequence[Query], mode: str) -> dict[str, Any]:
    """Milliseconds of a warm search for ten pages, median and 95th percentile, of the CPU and of the wall clock."""
    cpu, wall = [], []
    for query in asked[:_TIMED]:
        begun = time.process_time(), time.perf_counter()
        retriever.search(query.text, 10, mode)
        cpu.append(1e3 * (time.process_time() - begun[0]))
        wall.append(1e3 * (time.perf_counter() - begun[1]))
    clocks = (("cpu", cpu), ("wall", wall))
    return {
        f"ms_a_query_{name}": {"p50": float(np.median(t)), "p95": float(np.percentile(t, 95))} for name, t in clocks
    }
