"""mteb's own runner on our models, with toy tasks of mteb's own classes."""

import io
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import sets
from PIL import Image

pytest.importorskip("mteb", reason="pip install 'octavo[mteb]'")
import datasets
import mteb
from huggingface_hub import constants
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

from index.errors import OctavoError
from retriever import load_encoder
from retriever.cli import main
from retriever.evaluation.indexes import Retriever
from retriever.evaluation.mteb_models import EncoderModel, SearchModel, query_text, use_adapter
from retriever.evaluation.mteb_tasks import is_search, measure, question_sets, tasks
from retriever.evaluation.run import run

pytestmark = pytest.mark.filterwarnings("ignore")


def metadata(name, kind, score, **more):
    fields = {
        "name": name,
        "description": "a toy",
        "dataset": {"path": "octavo/toy", "revision": "1"},
        "type": kind,
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": score,
    }
    return TaskMetadata(**fields | more)


def pages():
    pictures = [Image.open(io.BytesIO(image["bytes"])) for image in sets.images()]
    return datasets.Dataset.from_dict(
        {"id": list(sets.PAGES), "image": pictures},
        features=datasets.Features(id=datasets.Value("string"), image=datasets.Image()),
    )


def texts():
    rows = {"id": list(sets.PAGES), "title": ["On it"] * 4, "text": list(sets.PAGES.values())}
    return datasets.Dataset.from_dict(rows)


def split(corpus, wrong=(), top_ranked=None):
    """The questions of `sets`; of those named in `wrong`, another page is said to be the right one."""
    queries = datasets.Dataset.from_dict({"id": [f"q-{n}" for n in sets.QUERIES], "text": list(sets.QUERIES.values())})
    names = list(sets.PAGES)
    right = {n: names[(names.index(n) + 1) % 4] if n in wrong else n for n in names}
    relevant = {f"q-{name}": {right[name]: 1} for name in names}
    return {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": top_ranked}


class ToyPages(AbsTaskRetrieval):
    metadata = metadata(
        "ToyPages",
        "DocumentUnderstanding",
        "ndcg_at_5",
        eval_langs={"english": ["eng-Latn"], "french": ["fra-Latn"]},
        modalities=["text", "image"],
        category="t2i",
    )

    def load_data(self, **_):
        self.dataset = {"english": {"test": split(pages())}, "french": {"test": split(pages(), wrong=("forest",))}}
        self.data_loaded = True


class ToyTexts(AbsTaskRetrieval):
    metadata = metadata("ToyTexts", "Retrieval", "ndcg_at_10", category="t2t")

    def load_data(self, **_):
        self.dataset = {"default": {"test": split(texts())}}
        self.data_loaded = True


class ToyReranking(AbsTaskRetrieval):
    metadata = metadata("ToyReranking", "Reranking", "map_at_1000", category="t2t")

    def load_data(self, **_):
        some = {f"q-{name}": [name, "bakery"] if name != "bakery" else ["bakery", "forest"] for name in sets.PAGES}
        self.dataset = {"default": {"test": split(texts(), top_ranked=some)}}
        self.data_loaded = True


class ToySTS(AbsTaskSTS):
    metadata = metadata("ToySTS", "STS", "cosine_spearman", category="t2t")
    min_score, max_score = 0, 5

    def load_data(self, **_):
        one = [
            "A man is playing a guitar.",
            "A dog runs in the park.",
            "The stock market fell today.",
            "She cooks soup.",
        ]
        two = ["A man plays the guitar.", "A dog is running in a park.", "A cat sleeps.", "Rockets fly to the moon."]
        rows = {"sentence1": one, "sentence2": two, "score": [5.0, 4.5, 0.2, 0.0]}
        self.dataset = {"default": {"test": datasets.Dataset.from_dict(rows)}}
        self.data_loaded = True


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def scores(model, task):
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (found,) = result.task_results
    return {row["hf_subset"]: row for row in found.scores["test"]}


def test_both_models_fit_mteb_s_protocols(encoder, cache):
    search, single = SearchModel(encoder, cache=cache), EncoderModel(encoder)
    assert isinstance(search, SearchProtocol) and not isinstance(search, EncoderProtocol)
    assert isinstance(single, EncoderProtocol) and not isinstance(single, SearchProtocol)
    assert search.mteb_model_meta.name == "octavo/octavo-box-1" == single.mteb_model_meta.name
    assert search.mteb_model_meta.revision != SearchModel(encoder, mode="text").mteb_model_meta.revision


@pytest.mark.parametrize("mode", ["hybrid", "visual", "text"])
def test_the_engine_is_a_search_model_and_languages_share_an_index(encoder, cache, mode, monkeypatch):
    model = SearchModel(encoder, cache=cache, mode=mode)
    found = scores(model, ToyPages())
    model.close()
    assert found["english"]["ndcg_at_5"] == 1.0
    assert 0.7 < found["french"]["ndcg_at_5"] < 1.0
    assert len(list((cache / "indexes").glob("*.json"))) == 1


@pytest.mark.parametrize("toy", [ToyPages, ToyTexts])
def test_our_own_run_of_a_task_gives_what_mteb_s_runner_gives(encoder, cache, toy):
    model = SearchModel(encoder, cache=cache)
    theirs = scores(model, toy())
    model.close()
    task = toy()
    assert is_search(task)
    for questions, row in zip(question_sets(task, cache), theirs.values(), strict=True):
        (ours,) = run(questions, encoder, cache)
        assert {query.lang for query in questions.queries} == {row["hf_subset"].replace("default", "")}
        for measure_, key in (("ndcg@5", "ndcg_at_5"), ("recall@1", "recall_at_1"), ("mrr@10", "mrr_at_10")):
            assert np.mean(list(ours.values[measure_].values())) == pytest.approx(row[key], abs=1e-5)


def test_reranking_scores_only_the_candidates_that_are_given(encoder, cache):
    task = ToyReranking()
    assert not is_search(task)
    found = measure(task, encoder, cache)
    assert (found["task"], found["value"]) == ("ToyReranking", 1.0)
    model = SearchModel(encoder, cache=cache)
    model.index(texts())
    asked = datasets.Dataset.from_dict({"id": ["q"], "text": ["How many ships did the harbour master count?"]})
    assert set(model.search(asked, top_k=9, top_ranked={"q": ["forest", "bakery"]})["q"]) == {"forest", "bakery"}
    assert list(model.search(asked, top_k=1)["q"]) == ["harbour"]
    model.close()


def test_encoders_are_models_for_tasks_without_a_search(encoder, cache):
    from scipy.stats import spearmanr

    found = measure(ToySTS(), encoder, cache)
    task = ToySTS()
    task.load_data()
    rows, model = task.dataset["default"]["test"], EncoderModel(encoder)
    one, two = (model.encode([{"text": rows[name]}]) for name in ("sentence1", "sentence2"))
    expected = spearmanr(model.similarity_pairwise(one, two), rows["score"]).statistic
    assert found["main_score"] == "cosine_spearman" and list(found["subsets"]) == ["test, default"]
    assert found["value"] == pytest.approx(expected) and expected > 0.5


def test_a_task_that_mteb_cannot_score_has_no_value(encoder, cache, capsys, monkeypatch):
    class Constant(ToySTS):
        metadata = metadata("Constant", "STS", "cosine_spearman", category="t2t")

        def load_data(self, **_):
            rows = {"sentence1": ["a b"] * 3, "sentence2": ["a b"] * 3, "score": [1.0, 2.0, 3.0]}
            self.dataset = {"default": {"test": datasets.Dataset.from_dict(rows)}}
            self.data_loaded = True

    assert measure(Constant(), encoder, cache)["value"] is None
    monkeypatch.setattr("retriever.evaluation.mteb_tasks.tasks", lambda name: [Constant()])
    assert main(["eval", "Constant", "--cache", str(cache), "--report", str(cache / "constant")]) == 0
    assert capsys.readouterr().out == "Constant\tcosine_spearman\t-\n"


@pytest.mark.parametrize("head", ["single", "multi"])
def test_mteb_searches_with_either_head_of_an_encoder(encoder, head):
    assert scores(EncoderModel(encoder, head), ToyTexts())["default"]["ndcg_at_10"] == 1.0


def test_pictures_are_encoded_too(encoder):
    model = EncoderModel(encoder, "multi")
    loader = [{"image": [Image.open(io.BytesIO(image["bytes"])) for image in sets.images()]}]
    found = model.encode(loader, prompt_type="document")
    asked = model.encode([{"text": list(sets.QUERIES.values())}], prompt_type="query")
    assert model.similarity(asked, found).argmax(dim=1).tolist() == [0, 1, 2, 3]
    pairs = model.similarity_pairwise(asked, found)
    assert np.allclose(pairs, model.similarity(asked, found).diagonal(), atol=1e-4)


def test_a_query_that_is_too_long_is_shortened_and_an_empty_one_finds_nothing(encoder, cache):
    model = SearchModel(encoder, cache=cache)
    model.index(texts())
    long = "Which trees cover the valley? " + "and so on " * 3000
    asked = datasets.Dataset.from_dict({"id": ["long", "empty"], "text": [long, " "]})
    found = model.search(asked, top_k=1)
    assert list(found["long"]) == ["forest"] and found["empty"] == {} and model.shortened > 0
    model.close()


def test_queries_may_have_instructions_or_be_conversations_but_not_be_pictures():
    assert query_text({"id": "1", "text": "a", "instruction": "be brief"}) == "a be brief"
    assert query_text({"id": "1", "text": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}) == "a b"
    with pytest.raises(OctavoError, match="pictures as queries"):
        query_text({"id": "1", "image": "x"})


def test_the_adapter_fits_the_task():
    class Several:
        task_names, task = ("retrieval", "text-matching", "code"), None

    chosen = {}
    for name in (
        "STS17",
        "ViDoRe(v2)",
        "CosQA",
        "LEMBNeedleRetrieval",
        "AppsRetrieval",
        "AmazonCounterfactualClassification",
    ):
        several = Several()
        use_adapter(several, tasks(name)[0].metadata)
        chosen[name] = several.task
    assert chosen == {
        "STS17": "text-matching",
        "ViDoRe(v2)": "retrieval",
        "CosQA": "code",
        "LEMBNeedleRetrieval": "retrieval",
        "AppsRetrieval": "code",
        "AmazonCounterfactualClassification": "text-matching",
    }


def test_names_are_those_of_mteb():
    assert len(tasks("ViDoRe(v1)")) == 10 and len(tasks("JinaVDR")) == 43
    assert [task.metadata.name for task in tasks("VidoreDocVQARetrieval")] == ["VidoreDocVQARetrieval"]
    with pytest.raises(OctavoError, match="nor a task or benchmark"):
        tasks("ViDoRe(v9)")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)  # where nobody listens any more
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (task,) = tasks("VidoreDocVQARetrieval")
    assert constants.is_offline_mode()
    with pytest.raises(OctavoError, match="not on this machine and the hub did not give it"):
        question_sets(task, Path())


def test_the_command_measures_tasks_by_name_and_says_which_could_not_be_had(cache, monkeypatch, capsys):
    class Lost(ToyTexts):
        metadata = metadata("Lost", "Retrieval", "ndcg_at_10", category="t2t")

        def load_data(self, **_):
            raise ConnectionError("no network")

    def known(name):
        return {"Toys": [ToyPages(), ToySTS(), Lost()], "Lost": [Lost()]}[name]

    monkeypatch.setattr("retriever.evaluation.mteb_tasks.tasks", known)
    assert main(["eval", "Toys", "--cache", str(cache), "--report", str(cache / "report"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["language"] for row in found["table"]} == {"", "english", "french"}
    assert [task["task"] for task in found["tasks"]] == ["ToySTS"] and list(found["skipped"]) == ["Lost"]
    text = (cache / "report" / "report.html").read_text()
    assert "ToySTS" in text and "no network" in text
    assert main(["eval", "Lost", "--cache", str(cache)]) == 3
    assert "no network" in capsys.readouterr().err


def test_an_index_of_a_corpus_is_made_once(encoder, cache, monkeypatch):
    monkeypatch.setattr(Retriever, "add", lambda *_, **__: pytest.fail("a page was taken in again"))
    model = SearchModel(encoder, cache=cache)
    model.index(pages())
    model.close()
