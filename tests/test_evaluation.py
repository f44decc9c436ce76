"""The whole engine measured on small question sets, by the command and by hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sets

from index.candidates import STAGES
from index.errors import OctavoError
from retriever import load_encoder
from retriever.cli import main
from retriever.evaluation import indexes
from retriever.evaluation.datasets import Corpus, Query, QuestionSet, load
from retriever.evaluation.known_items import known_items
from retriever.evaluation.metrics import evaluate, ranked
from retriever.evaluation.results import compare, document, table
from retriever.evaluation.run import Result, System, failures, run
from retriever.evaluation.trec import read_qrels, read_run


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return sets.plain(tmp_path_factory.mktemp("sets") / "mine")


@pytest.fixture
def octavo(cache, capsys):
    def octavo(*args):
        code = main([*args, "--cache", str(cache)] if args[0] == "eval" else list(args))
        out, err = capsys.readouterr()
        return code, out, err

    return octavo


@pytest.fixture(scope="module")
def report(mine, cache, tmp_path_factory):
    """What `octavo eval` wrote of all three modes."""
    folder = tmp_path_factory.mktemp("report")
    modes = ["--mode", "hybrid", "--mode", "visual", "--mode", "text"]
    assert main(["eval", str(mine), *modes, "--report", str(folder), "--cache", str(cache), "--json"]) == 0
    return folder


def test_every_page_of_print_is_found_and_what_was_measured_is_said(report):
    found = json.loads((report / "eval.json").read_text())
    hybrid, visual, text = found["results"]
    assert [result["system"]["mode"] for result in found["results"]] == ["hybrid", "visual", "text"]
    for result in (hybrid, visual, text):
        assert result["values"]["ndcg@5"] == {f"q-{name}": 1.0 for name in sets.PAGES}
        assert (result["pages"], result["left_out"], result["smoke"]) == (4, 0, False)
        assert result["languages"]["q-forest"] == "en"
    assert hybrid["system"]["label"] == "hybrid: octavo-box-1, int8, auto candidates"
    assert hybrid["cost"]["tokens_a_page"] > 5 and hybrid["cost"]["ms_a_query_cpu"]["p95"] > 0
    assert found["versions"]["octavo"] and found["command"][0] == "octavo"


def test_run_files_score_to_the_same_values(report):
    found = json.loads((report / "eval.json").read_text())
    qrels = read_qrels(report / "runs" / "mine.qrels")
    assert len(list((report / "runs").glob("*.run"))) == 3
    for result in found["results"]:
        path = report / "runs" / f"mine.int8.pool1.auto.{result['system']['mode']}.run"
        rankings = {query: ranked(scores) for query, scores in read_run(path).items()}
        assert evaluate(rankings, qrels, ["map@100", "ndcg@5"]) == {
            m: result["values"][m] for m in ("map@100", "ndcg@5")
        }


def test_a_run_file_is_scored_as_the_engine_was(octavo, mine, report, tmp_path):
    path = report / "runs" / "mine.int8.pool1.auto.visual.run"
    (tmp_path / "worse.run").write_text("q-harbour Q0 harbour.png#0 1 3 x\nq-harbour Q0 forest.png#0 1 4 x\n")
    code, out, _ = octavo("eval", str(mine), "--run", str(path), "--run", str(tmp_path / "worse.run"), "--json")
    same, worse = json.loads(out)["results"]
    visual = json.loads((report / "eval.json").read_text())["results"][1]
    assert code == 0 and same["values"] == visual["values"]
    assert worse["values"]["mrr@10"] == {"q-harbour": 0.5, "q-forest": 0, "q-bakery": 0, "q-railway": 0}
    assert worse["system"]["label"] == "run: worse.run"
    code, _, _ = octavo("eval", str(mine), "--run", str(path), "--report", str(tmp_path / "out"))
    assert code == 0 and "run: mine.int8.pool1.auto.visual.run" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "other.run").write_text("q1 Q0 d1 1 1 x\n")
    code, _, err = octavo("eval", str(mine), "--run", str(tmp_path / "other.run"))
    assert code == 3 and "none of its queries" in err


def test_a_second_run_encodes_nothing(mine, cache, encoder, report, monkeypatch):
    def refuse(pages):
        raise AssertionError("a page was encoded again")

    monkeypatch.setattr(encoder, "encode_pages", refuse)
    (questions,) = load(str(mine))
    (result,) = run(questions, encoder, cache)
    assert result.values["hit@5"] == {f"q-{name}": 1.0 for name in sets.PAGES}


def test_an_index_that_was_begun_is_taken_up(tmp_path, mine, encoder):
    (questions,) = load(str(mine))
    begun = indexes.place(questions.corpus, encoder, tmp_path, "int8", 1)
    with indexes.Retriever.open(begun, encoder) as retriever:
        retriever.add(list(questions.corpus.files.values())[:3])
    told = []
    retriever, made = indexes.opened(questions.corpus, encoder, tmp_path, told=lambda *step: told.append(step))
    with retriever:
        assert (made["encoded"], made["failed"]) == (1, [])
        assert retriever.status()["pages"] == 4
    assert told[-1][1:] == (1, 1)


def test_the_table_is_printed_and_a_language_can_be_chosen(octavo, mine):
    code, out, _ = octavo("eval", str(mine), "--mode", "text", "--language", "en", "--measure", "mrr@3")
    assert code == 0
    cells = out.strip().split("\t")
    assert cells == ["mine", "", "text: BM25 over words as read by octavo-box-1", "4", "1.000", "1.000 to 1.000"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--codec", "int5"], "'int5' is none of"),
        (["--candidates", "best"], "'best' is none of"),
        (["--measure", "dcg@5"], "no measure"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(octavo, mine, args, told):
    code, _, err = octavo("eval", str(mine), *args)
    assert code == 2 and told in err


def test_a_source_that_is_none_is_said(octavo):
    code, _, err = octavo("eval", "./no-such-folder")
    assert code == 3 and "no such folder" in err


def test_documents_alone_are_a_smoke_test_by_the_visual_lane_that_says_so(octavo, mine, tmp_path):
    documents = tmp_path / "documents"
    documents.mkdir()
    for path in (mine / "pages").iterdir():
        (documents / path.name).write_bytes(path.read_bytes())
    code, out, err = octavo("eval", str(documents), "--json")
    (result,) = json.loads(out)["results"]
    assert result["smoke"] and result["system"]["mode"] == "visual"
    assert set(result["values"]["hit@5"].values()) == {1.0}
    code, _, err = octavo("eval", str(documents), "--mode", "text")
    assert code == 2 and "made-up questions" in err
    code, _, err = octavo("eval", str(documents))
    assert code == 0 and "smoke test" in err


def test_known_items_are_rare_words_of_a_page_and_fit_every_page_that_has_them(tmp_path, encoder):
    common = "the the the the the the the the "
    texts = {"a": common + "quick brown foxes jump over lazy sleeping dogs " + common, "b": common * 2, "c": "short"}
    texts["d"] = texts["a"] + "again"
    contents = {f"{n:032x}": name for n, name in enumerate(texts)}
    named = {content: [name] for content, name in contents.items()}
    corpus = Corpus(texts={content: texts[name] for content, name in contents.items()}, names=named)
    retriever, _ = indexes.opened(corpus, encoder, tmp_path)
    with retriever:
        made = known_items(QuestionSet("texts", corpus, (), {}), retriever)
        assert made == known_items(QuestionSet("texts", corpus, (), {}), retriever)
    assert {query.text for query in made.queries} > {"quick brown foxes jump over lazy sleeping dogs"}
    by_text = {query.text: made.qrels[query.id] for query in made.queries}
    assert by_text["quick brown foxes jump over lazy sleeping dogs"] == {"a": 1, "d": 1}
    assert made.smoke and len(made.queries) == 3


def test_known_items_of_scripts_without_spaces_are_cut_between_letters(tmp_path, encoder):
    text = "港に船が入り、荷物を降ろす人々が朝から晩まで働いている。森には古い木が多く、川の水は冷たい。" * 2
    corpus = Corpus(texts={"0" * 32: text, "1" * 32: text[::-1]}, names={"0" * 32: ["a"], "1" * 32: ["b"]})
    retriever, _ = indexes.opened(corpus, encoder, tmp_path)
    with retriever:
        made = known_items(QuestionSet("texts", corpus, (), {}), retriever)
    assert sorted(made.qrels.values(), key=str) == [{"a": 1}, {"b": 1}]
    assert {len(query.text) for query in made.queries} == {24}


def test_texts_are_pages_too(tmp_path, encoder):
    names = list(sets.PAGES)
    texts = {f"{n:032x}": text for n, text in enumerate(sets.PAGES.values())}
    corpus = Corpus(texts=texts, names={content: [name] for content, name in zip(texts, names, strict=True)})
    queries = [Query(name, sets.QUERIES[name]) for name in names]
    questions = QuestionSet("texts", corpus, queries, {name: {name: 1} for name in names})
    for result in run(questions, encoder, tmp_path, modes=("visual", "text", "hybrid")):
        assert result.values["ndcg@5"] == dict.fromkeys(names, 1.0), result.system.mode
        assert result.pages == 4


def test_a_page_with_two_names_takes_two_places(tmp_path, encoder):
    folder = sets.plain(tmp_path / "mine")
    (folder / "pages" / "zz.png").write_bytes((folder / "pages" / "forest.png").read_bytes())
    (questions,) = load(str(folder))
    (result,) = run(questions, encoder, tmp_path / "cache", modes=("visual",))
    assert [page for page, _ in result.rankings["q-forest"]][:2] == ["forest.png#0", "zz.png#0"]


def test_the_first_stage_s_funnel_narrows(tmp_path, encoder, mine):
    (questions,) = load(str(mine))
    (result,) = run(questions, encoder, tmp_path, candidates="pooled")
    assert result.cost["stage"] == "pooled"
    assert list(result.funnel.values()) == [1.0] * 5 and list(result.funnel)[0] == "first stage, 150 pages"
    (exact,) = run(questions, encoder, tmp_path, candidates="exact")
    assert exact.cost["stage"] == "exact" and not exact.funnel


def test_failures_are_what_a_reader_wants_to_see():
    questions = QuestionSet("x", Corpus(), (), {"a": {"p": 1, "q": 2}, "b": {"r": 1}, "c": {"s": 1}})
    asked = [Query("a", "A?"), Query("b", "B?", "de"), Query("c", "C?")]
    rankings = {"a": [("z", 3.0), ("p", 2.0)], "b": [("z", 1.0)], "c": [("s", 1.0)]}
    assert failures(questions, asked, rankings) == [
        {"query": "b", "text": "B?", "lang": "de", "right": "r", "ours": "z", "place": None},
        {"query": "a", "text": "A?", "lang": "", "right": "q", "ours": "z", "place": 2},
    ]


def made_result(dataset, values, languages, mode="hybrid"):
    return Result(System("e", mode=mode), dataset, False, 9, {"ndcg@5": values}, languages, 0, {}, {}, {})


def test_means_are_formed_as_the_leaderboards_do():
    one = made_result("one", {"a": 1.0, "b": 0.0, "c": 1.0}, {"a": "en", "b": "de", "c": "de"})
    two = made_result("two", {"d": 0.0}, {"d": ""})
    rows = table(document([one, two], ["ndcg@5"])["results"], "ndcg@5")
    means = {(row["dataset"], row["language"]): row["mean"] for row in rows}
    assert means == {("one", ""): 0.75, ("one", "de"): 0.5, ("one", "en"): 1.0, ("two", ""): 0.0, ("", ""): 0.375}
    assert {row["dataset"]: row["queries"] for row in rows if not row["language"]} == {"one": 3, "two": 1, "": 4}


def test_two_results_are_compared_query_by_query():
    rng = np.random.default_rng(0)
    values = {f"q{n}": float(v) for n, v in enumerate(rng.random(200))}
    better = {q: min(1.0, v + 0.05) for q, v in values.items() if q != "q7"}
    languages = dict.fromkeys(values, "en")
    one, two = (document([made_result("d", v, languages)], ["ndcg@5"]) for v in (values, better))
    (row,) = compare(one, two, "ndcg@5")
    assert row["queries"] == 199 and 0.04 < row["difference"] < 0.05 and row["p"] < 0.001
    assert row["low"] < row["difference"] < row["high"] and row["worse"] == 0 and row["better"] > 190
    (same,) = compare(one, one, "ndcg@5")
    assert (same["difference"], same["p"], same["better"]) == (0.0, 1.0, 0)
    with pytest.raises(OctavoError, match="not in both"):
        compare(one, two, "mrr")


def test_compare_reads_two_reports(octavo, report, tmp_path):
    file = str(report / "eval.json")
    code, out, _ = octavo("compare", file, file, "--json")
    rows = json.loads(out)["rows"]
    assert code == 0 and [row["difference"] for row in rows] == [0.0] * 3
    (tmp_path / "other.json").write_text("{}")
    code, _, err = octavo("compare", file, str(tmp_path / "other.json"))
    assert code == 3 and "no result of octavo eval" in err


def test_a_data_set_with_a_corpus_a_language_is_one_in_the_report(octavo, tmp_path):
    folder = tmp_path / "readme_beir"
    for language in ("en", "jp"):
        sets.beir(folder, prefix=f"{language}/")
    sets.parquet(
        folder / "jp" / "corpus" / "test-00000-of-00001.parquet", {"corpus-id": [3, 2, 1, 0], "image": sets.images()}
    )
    code, out, _ = octavo("eval", str(folder), "--report", str(tmp_path / "out"), "--json")
    rows = {row["language"]: row for row in json.loads(out)["table"]}
    assert code == 0 and set(rows) == {"", "en", "jp"} and rows[""]["queries"] == 8
    assert rows["en"]["mean"] > 0.9 > 0.8 > rows["jp"]["mean"] and rows[""]["mean"] < rows["en"]["mean"]
    names = {path.name.split(".int8")[0] for path in (tmp_path / "out" / "runs").iterdir()}
    assert names == {"readme_beir.en", "readme_beir.jp", "readme_beir.en.qrels", "readme_beir.jp.qrels"}
    code, out, _ = octavo("eval", str(folder), "--language", "jp", "--queries", "2", "--json")
    assert code == 0 and json.loads(out)["table"] == [json.loads(out)["table"][0] | {"queries": 2}]
    code, _, err = octavo("eval", str(folder), "--language", "fr")
    assert code == 3 and "no queries in fr" in err


def test_a_sweep_recodes_one_index_and_measures_every_system(octavo, mine, tmp_path):
    chosen = [
        "--sweep",
        "--codec",
        "fp16",
        "--codec",
        "binary",
        "--pool",
        "1",
        "--pool",
        "2",
        "--mode",
        "hybrid",
        "--mode",
        "text",
    ]
    code, out, _ = octavo("eval", str(mine), *chosen, "--report", str(tmp_path), "--json")
    results = json.loads(out)["results"]
    systems = [tuple(result["system"][name] for name in ("codec", "pool", "candidates", "mode")) for result in results]
    visual = [(c, p, s, "hybrid") for c in ("fp16", "binary") for p in (1, 2) for s in STAGES[1:]]
    assert code == 0 and sorted(systems) == sorted([*visual, ("fp16", 1, "exact", "text")])
    costs = {system: result["cost"] for system, result in zip(systems, results, strict=True)}
    assert (
        costs["binary", 2, "codes", "hybrid"]["derived"] and costs["binary", 2, "codes", "hybrid"]["stage"] == "codes"
    )
    whole, halved = (costs["fp16", pool, "exact", "hybrid"]["bytes_by_part"]["shards"] for pool in (1, 2))
    assert costs["binary", 1, "exact", "hybrid"]["bytes_by_part"]["shards"] < whole / 2 and halved < 0.8 * whole
    assert (tmp_path / "report.html").read_text().count("<svg") == 2


def test_help_loads_nothing_heavy():
    code = "import sys; from retriever.cli import main; main(['eval', '--help']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.splitlines()[-1] == "False"
