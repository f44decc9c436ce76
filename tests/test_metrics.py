"""The measures against trec_eval itself, and against figures worked out by hand."""

import math
import random

import numpy as np
import pytest

from index.errors import OctavoError
from retriever.evaluation.metrics import evaluate, judged, measure, ranked
from retriever.evaluation.significance import interval, mean, randomisation
from retriever.evaluation.trec import falling, read_qrels, read_run, write_qrels, write_run

OURS = {
    "ndcg@1": "ndcg_cut_1",
    "ndcg@5": "ndcg_cut_5",
    "ndcg@10": "ndcg_cut_10",
    "ndcg": "ndcg",
    "recall@5": "recall_5",
    "recall@20": "recall_20",
    "precision@5": "P_5",
    "mrr": "recip_rank",
    "map": "map",
    "map@10": "map_cut_10",
    "hit@5": "success_5",
}


def random_case(rng: random.Random):
    """Qrels and a run over one pool: grades from 0 to 3 (pytrec_eval hangs on some below), scores with many ties,
    pages that are not judged or not found, ids that sort differently as text and as numbers."""
    pool = [f"d{n}" if rng.random() < 0.7 else f"é{n}.pdf#{n % 3}" for n in range(rng.choice([3, 12, 60]))]
    qrels, run = {}, {}
    for q in range(rng.randint(1, 4)):
        judged_pages = rng.sample(pool, rng.randint(1, len(pool)))
        qrels[f"q{q}"] = {page: rng.choice([0, 0, 1, 1, 2, 3]) for page in judged_pages}
        levels = rng.choice([2, 5, 1000])
        found = rng.sample(pool, rng.randint(1, len(pool)))
        run[f"q{q}"] = {page: rng.randint(-levels, levels) / 7 + rng.choice([0, 0, 1e-9]) for page in found}
    return qrels, run


def test_measures_are_those_of_trec_eval_on_thousands_of_random_runs():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng, compared = random.Random(0), 0
    for _ in range(2000):
        qrels, run = random_case(rng)
        theirs = pytrec_eval.RelevanceEvaluator(qrels, set(OURS.values())).evaluate(run)
        mine = evaluate({query: ranked(scores) for query, scores in run.items()}, qrels, list(OURS))
        for query in judged(qrels):
            for name, their_name in OURS.items():
                assert mine[name][query] == pytest.approx(theirs[query][their_name], abs=1e-9), (name, qrels, run)
                compared += 1
    assert compared > 40_000


def test_a_run_file_means_the_same_to_trec_eval_as_the_ranking_it_was_written_from(tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = random.Random(1)
    for _ in range(200):
        qrels, run = random_case(rng)
        results = {
            q: [(p, scores[p]) for p in sorted(scores, key=scores.get, reverse=True)] for q, scores in run.items()
        }
        write_run(tmp_path / "run", results)
        with (tmp_path / "run").open(encoding="utf-8") as file:
            theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_5"}).evaluate(pytrec_eval.parse_run(file))
        mine = evaluate({q: [page for page, _ in found] for q, found in results.items()}, qrels, ["ndcg@5"])
        for query in judged(qrels):
            assert mine["ndcg@5"][query] == pytest.approx(theirs[query]["ndcg_cut_5"], abs=1e-9)


def test_measures_worked_out_by_hand():
    grades = {"a": 2, "b": 1, "c": 0, "x": -1}
    ranking = ["x", "b", "b", "a"]  # b comes twice and counts once, so a is third
    ideal = 2 + 1 / math.log2(3)
    assert measure("ndcg@5")(ranking, grades) == pytest.approx((1 / math.log2(3) + 2 / 2) / ideal)
    assert measure("ndcg_exp@5")(ranking, grades) == pytest.approx((1 / math.log2(3) + 3 / 2) / (3 + 1 / math.log2(3)))
    assert measure("recall@2")(ranking, grades) == 0.5
    assert measure("precision@2")(ranking, grades) == 0.5
    assert measure("mrr@10")(ranking, grades) == 0.5
    assert measure("map@3")(ranking, grades) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (measure("hit@1")(ranking, grades), measure("hit@2")(ranking, grades)) == (0, 1)


def test_a_query_with_nothing_relevant_is_left_out_and_one_that_found_nothing_is_not():
    qrels = {"one": {"a": 1}, "none": {"a": 0}, "lost": {"b": 1}}
    assert evaluate({"one": ["a"], "none": ["a"]}, qrels, ["mrr"]) == {"mrr": {"one": 1.0, "lost": 0.0}}


def test_exponential_gain_is_linear_gain_where_grades_are_0_and_1():
    rng = random.Random(2)
    for _ in range(100):
        grades = {f"p{n}": rng.randint(0, 1) for n in range(9)}
        ranking = rng.sample(sorted(grades), 9)
        assert measure("ndcg_exp@5")(ranking, grades) == pytest.approx(measure("ndcg@5")(ranking, grades))


@pytest.mark.parametrize("name", ["ndcg@0", "ndcg@", "dcg@5", "ndcg@five", ""])
def test_a_measure_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="no measure"):
        measure(name)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    rng, inside = np.random.default_rng(3), 0
    for trial in range(300):
        low, high = interval([rng.beta(2, 1, 60), rng.beta(1, 1, 40)], resamples=400, seed=trial)
        inside += low <= (2 / 3 + 1 / 2) / 2 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_the_interval_is_that_of_the_mean_of_means():
    values = np.random.default_rng(4).random(400)
    low, high = interval([values])
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)
    assert low < mean([values]) < high
    small_and_sure, large = [0.0] * 3, [1.0] * 3000
    assert interval([small_and_sure, large]) == (0.5, 0.5)
    assert interval([values], seed=1) == interval([values], seed=1)


def test_the_randomisation_test_is_exact_on_few_queries():
    assert randomisation([[1, 1, 1]]) == 2 / 8
    assert randomisation([[1, 2, -3]]) == 1.0
    assert randomisation([[0, 0, 0]]) == 1.0
    assert randomisation([[0.1] * 10]) == 2 / 1024


def test_the_randomisation_test_tells_a_difference_from_noise():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, 300)
    assert randomisation([noise + 0.3]) < 0.001
    wrong = sum(randomisation([rng.normal(0, 1, 30)], resamples=500, seed=n) < 0.05 for n in range(200))
    assert wrong <= 22  # 10 of 200 are expected, 22 has a chance of 1 in 3,000


def test_run_and_qrels_files_go_out_and_in(tmp_path):
    results = {"a query": [("my report.pdf#3", 2.5), ("b", 2.5), ("c", -1.0)], "q2": [("b", 0.1)]}
    write_run(tmp_path / "run", results)
    first = (tmp_path / "run").read_text().splitlines()[0]
    assert first == "a%20query Q0 my%20report.pdf#3 1 2.5 octavo"
    run = read_run(tmp_path / "run", results, ["my report.pdf#3"])
    assert ranked(run["a query"]) == ["my report.pdf#3", "b", "c"] and list(run) == list(results)
    qrels = {"q": {"a": 2, "b": 0}, "r": {"c": 1}}
    write_qrels(tmp_path / "qrels", qrels)
    assert read_qrels(tmp_path / "qrels") == qrels


def test_scores_in_a_run_file_fall_in_single_precision():
    scores = falling([1.0, 1.0, 1.0 - 1e-12, 0.5, 0.5, -3e38, -3e38])
    singles = [np.float32(f"{score:.9g}") for score in scores]
    assert all(a > b for a, b in zip(singles, singles[1:], strict=False))
    assert scores == pytest.approx([1, 1, 1, 0.5, 0.5, -3e38, -3e38], rel=1e-6)


def test_a_page_that_comes_twice_in_a_run_file_counts_once_and_a_bad_line_is_named(tmp_path):
    (tmp_path / "run").write_text("q Q0 a 1 0.5 x\nq Q0 b 2 0.4 x\nq Q0 b 3 0.9 x\n\n")
    assert read_run(tmp_path / "run") == {"q": {"a": 0.5, "b": 0.9}}
    for line, told in (("q Q0 a 1 0.5", "5 fields"), ("q Q0 a 1 nan x", "no score"), ("q Q0 a 1 high x", "no score")):
        (tmp_path / "run").write_text(f"q Q0 a 1 0.5 x\n{line}\n")
        with pytest.raises(OctavoError, match=f"line 2: .*{told}"):
            read_run(tmp_path / "run")
    (tmp_path / "qrels").write_text("q 0 a yes\n")
    with pytest.raises(OctavoError, match="line 1: 'yes' is no grade"):
        read_qrels(tmp_path / "qrels")
