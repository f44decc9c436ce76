"""How good a ranking is: nDCG, recall, precision, MRR, MAP, hit rate, as trec_eval computes them.

A ranking is page ids, best first; grades say how relevant a page is to the query (integers, 0 and below: not at all).
A page that comes twice counts where it comes first. A query that found nothing scores 0; one to which no page is
relevant cannot be scored and is left out. Not here: intervals and tests (significance), run files (trec).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

Grades = Mapping[str, int]
Qrels = Mapping[str, Grades]
Measure = Callable[[Sequence[str], Grades, int | None], float]
MEASURES = ("ndcg@5", "ndcg@10", "recall@1", "recall@5", "recall@10", "recall@100", "mrr@10", "map@100", "hit@5")
"""What is computed where nothing else is asked for."""


def ndcg(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """nDCG@k with the grade as the gain, as in trec_eval and the ViDoRe leaderboards (Jarvelin and Kekalainen 2002)."""
    return _ndcg(ranking, grades, k, float)


def ndcg_exp(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """nDCG@k with the gain 2^grade - 1 (Burges et al. 2005): the same for grades 0 and 1, higher for most others."""
    return _ndcg(ranking, grades, k, lambda grade: 2.0**grade - 1)


def _ndcg(ranking: Sequence[str], grades: Grades, k: int | None, gain: Callable[[int], float]) -> float:
    found = [max(grades.get(page, 0), 0) for page in _top(ranking, k)]
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    ideal = _discounted(map(gain, best))
    return _discounted(map(gain, found)) / ideal if ideal else 0.0


def _discounted(gains: Iterable[float]) -> float:
    return sum(value / math.log2(place + 2) for place, value in enumerate(gains))


def recall(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """The share of the relevant pages that are among the first k."""
    relevant = _relevant(grades)
    return len(relevant.intersection(_top(ranking, k))) / len(relevant) if relevant else 0.0


def precision(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """The share of the first k places that hold a relevant page."""
    top = _top(ranking, k)
    places = k if k is not None else len(top)
    return len(_relevant(grades).intersection(top)) / places if places else 0.0


def mrr(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """1 / the place of the first relevant page, 0 where it is not among the first k."""
    relevant = _relevant(grades)
    return next((1 / place for place, page in enumerate(_top(ranking, k), 1) if page in relevant), 0.0)


def map_(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """Average precision: at the place of each relevant page among the first k, over all relevant pages."""
    relevant, hits, total = _relevant(grades), 0, 0.0
    for place, page in enumerate(_top(ranking, k), 1):
        if page in relevant:
            hits += 1
            total += hits / place
    return total / len(relevant) if relevant else 0.0


def hit(ranking: Sequence[str], grades: Grades, k: int | None = None) -> float:
    """1 where a relevant page is among the first k, else 0 (trec_eval's success)."""
    return float(not _relevant(grades).isdisjoint(_top(ranking, k)))


def _top(ranking: Sequence[str], k: int | None) -> list[str]:
    """The first k different pages."""
    if len(set(ranking)) != len(ranking):
        ranking = list(dict.fromkeys(ranking))
    return list(ranking[:k])


def _relevant(grades: Grades) -> set[str]:
    return {page for page, grade in grades.items() if grade > 0}


_KINDS: dict[str, Measure] = {
    "ndcg": ndcg,
    "ndcg_exp": ndcg_exp,
    "recall": recall,
    "precision": precision,
    "mrr": mrr,
    "map": map_,
    "hit": hit,
}


def measure(name: str) -> Callable[[Sequence[str], Grades], float]:
    """`ndcg@5` -> a function of ranking and grades; without @k the whole ranking counts. Raises ValueError."""
    found = re.fullmatch(r"(\w+?)(?:@([1-9]\d*))?", name)
    if not found or found[1] not in _KINDS:
        raise ValueError(f"{name!r} is no measure; a measure is one of {', '.join(_KINDS)}, with @k where it is cut")
    kind, k = _KINDS[found[1]], int(found[2]) if found[2] else None
    return lambda ranking, grades: kind(ranking, grades, k)


def judged(qrels: Qrels) -> list[str]:
    """The queries to which some page is relevant, in order: those that can be scored."""
    return [query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())]


def evaluate(
    rankings: Mapping[str, Sequence[str]], qrels: Qrels, measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """{measure: {query: value}} of every query that can be scored; one that is missing in `rankings` scores 0."""
    queries = judged(qrels)
    return {
        name: {query: function(rankings.get(query, ()), qrels[query]) for query in queries}
        for name, function in ((name, measure(name)) for name in measures)
    }


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Pages of a run, best first, in trec_eval's order: scores in single precision, ties by id, the last first."""
    singles = np.array(list(scores.values()), np.float32).tolist()
    return [page for _, page in sorted(zip(singles, scores, strict=True), reverse=True)]
