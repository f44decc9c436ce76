"""Question sets out of every published form: what was written is what is read."""

import json
import shutil

import pytest

pytest.importorskip("pyarrow", reason="pip install 'octavo[eval]'")
import pyarrow as pa
import sets

from index.errors import OctavoError
from retriever.evaluation.datasets import Query, load
from retriever.evaluation.hub import picture

GRADES = {"0": {"0": 1}, "1": {"1": 1}, "2": {"2": 1}, "3": {"3": 2, "0": 1}, "4": {"1": 0}}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def contents(loaded) -> dict[str, bytes]:
    """Page name -> the bytes that will be indexed."""
    return {name: loaded.corpus.files[c].read_bytes() for c, names in loaded.corpus.names.items() for name in names}


def expected() -> dict[str, bytes]:
    return {str(n): image["bytes"] for n, image in enumerate(sets.images())}


def test_vidore_v1_as_mteb_has_it(tmp_path, cache):
    folder = sets.beir(tmp_path / "docvqa_test_subsampled_beir")
    sets.front_matter(folder, {part: f"{part}/test-*" for part in ("corpus", "queries", "qrels")})
    (loaded,) = load(str(folder), cache=cache)
    assert loaded.name == "docvqa_test_subsampled_beir"
    assert loaded.queries[1] == Query("1", "Which trees cover the valley?", "")
    assert loaded.qrels == GRADES
    assert contents(loaded) == expected()
    assert [path.suffix for path in loaded.corpus.files.values()] == [".png", ".jpg", ".png", ".png"]
    assert not loaded.smoke


def test_vidore_v2_with_a_language_a_query_and_more_tables_than_are_needed(tmp_path, cache):
    folder = sets.beir(tmp_path / "esg_reports_v2", language="french")
    sets.parquet(folder / "docs" / "test-00000-of-00001.parquet", {"doc-id": ["a.pdf"], "pages": [4]})
    (loaded,) = load(str(folder), cache=cache)
    assert {query.lang for query in loaded.queries} == {"french"} and loaded.qrels == GRADES
    with pytest.raises(OctavoError, match="no queries in german; it has french"):
        loaded.only(["german"])


def test_vidore_v3_as_mteb_has_it_a_config_a_language_with_one_corpus(tmp_path, cache):
    folder, asked = tmp_path / "vidore_v3_hr_mteb_format", list(sets.QUERIES.values())
    for language in ("english", "french"):
        mark = language[0]
        path = "{}-{}/test-00000-of-00001.parquet"
        ids = [f"{mark}{n}" for n in range(4)]
        sets.parquet(
            folder / path.format(language, "queries"), {"id": ids, "text": [f"{mark} {text}" for text in asked]}
        )
        corpus = {"id": [f"c{n}" for n in range(4)], "image": sets.images()}
        sets.parquet(folder / path.format(language, "corpus"), corpus)
        judged = {"query-id": ids, "corpus-id": [f"c{n}" for n in range(4)], "score": [2, 1, 1, 2]}
        sets.parquet(folder / path.format(language, "qrels"), judged, {"score": pa.int32()})
    english, french = load(str(folder), cache=cache)
    assert [query.id for query in french.queries] == ["f0", "f1", "f2", "f3"]
    assert french.queries[0] == Query("f0", f"f {asked[0]}", "french")
    assert english.qrels == {"e0": {"c0": 2}, "e1": {"c1": 1}, "e2": {"c2": 1}, "e3": {"c3": 2}}
    assert english.corpus.key == french.corpus.key and english.name == french.name


def test_vidore_v3_as_first_published_with_underscores(tmp_path, cache):
    folder, asked = tmp_path / "vidore_v3_hr", list(sets.QUERIES.values())
    sets.parquet(
        folder / "corpus" / "test-00000-of-00001.parquet",
        {"corpus_id": [0, 1, 2, 3], "image": sets.images(), "doc_id": ["a"] * 4, "markdown": list(sets.PAGES.values())},
    )
    queries = {"query_id": [0, 1, 2, 3], "query": asked, "language": ["english"] * 4, "query_types": [["open"]] * 4}
    sets.parquet(folder / "queries" / "test-00000-of-00001.parquet", queries)
    judged = {"query_id": [0, 1, 2, 3], "corpus_id": [0, 1, 2, 3], "score": [2, 2, 1, 1], "content_type": ["text"] * 4}
    sets.parquet(folder / "qrels" / "test-00000-of-00001.parquet", judged)
    (loaded,) = load(str(folder), cache=cache)
    assert loaded.qrels == {"0": {"0": 2}, "1": {"1": 2}, "2": {"2": 1}, "3": {"3": 1}}
    assert contents(loaded) == expected()


def test_jina_vdr_with_a_folder_a_language_and_a_corpus_of_its_own(tmp_path, cache):
    folder = tmp_path / "github-readme-retrieval-multilingual_beir"
    sets.beir(folder, prefix="en/")
    sets.beir(folder, prefix="jp/")
    part = folder / "jp" / "corpus" / "test-00000-of-00001.parquet"
    sets.parquet(part, {"corpus-id": [0, 1, 2, 3], "image": sets.images()[::-1]})
    english, japanese = load(str(folder), cache=cache)
    assert {query.lang for query in japanese.queries} == {"jp"}
    assert english.corpus.key != japanese.corpus.key
    assert contents(japanese)["0"] == contents(english)["3"]
    single = sets.beir(tmp_path / "medical-prescriptions_beir", prefix="default/")
    (loaded,) = load(str(single), cache=cache)
    assert {query.lang for query in loaded.queries} == {""} and loaded.qrels == GRADES


def test_vidore_v1_as_first_published_is_deduplicated_by_image_filename(tmp_path, cache):
    asked, pictures = list(sets.QUERIES.values()), sets.images()
    rows = [  # (query, page); a question twice on one page and once more on another, a page that answers nothing
        (asked[0], 0),
        (asked[0], 0),
        (asked[0], 1),
        (asked[1], 1),
        (None, 2),
    ]
    sets.parquet(
        tmp_path / "docvqa_test_subsampled" / "data" / "test-00000-of-00001.parquet",
        {
            "questionId": [str(n) for n in range(5)],
            "query": [query for query, _ in rows],
            "answer": ["x"] * 5,
            "image": [pictures[page] for _, page in rows],
            "image_filename": [f"images/{page}.jpg" for _, page in rows],
            "options": [None] * 5,
            "page": ["1"] * 5,
            "model": ["m"] * 5,
            "prompt": ["p"] * 5,
            "source": ["docvqa"] * 5,
        },
    )
    (loaded,) = load(str(tmp_path / "docvqa_test_subsampled"), cache=cache)
    assert [(query.id, query.text) for query in loaded.queries] == [("q0", asked[0]), ("q3", asked[1])]
    assert loaded.qrels == {"q0": {"images/0.jpg": 1, "images/1.jpg": 1}, "q3": {"images/1.jpg": 1}}
    assert contents(loaded) == {f"images/{n}.jpg": pictures[n]["bytes"] for n in range(3)}


def test_a_copy_made_by_save_to_disk(tmp_path, cache):
    folder = tmp_path / "saved"
    sets.arrow(folder / "corpus" / "test", {"corpus-id": [0, 1, 2, 3], "image": sets.images()})
    (folder / "corpus" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    sets.arrow(folder / "queries", {"query-id": [0, 1, 2, 3], "query": list(sets.QUERIES.values())})
    sets.arrow(folder / "qrels", {"query-id": [0, 1, 2, 3], "corpus-id": [0, 1, 2, 3], "score": [1, 1, 1, 1]})
    (loaded,) = load(str(folder), cache=cache)
    assert contents(loaded) == expected()
    assert loaded.qrels == {str(n): {str(n): 1} for n in range(4)}


def test_texts_in_beir_s_own_folder(tmp_path, cache):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "Harbour", "text": "Ninety ships"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "How many ships?"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq9\td1\t1\n")
    (loaded,) = load(str(tmp_path), cache=cache)
    assert list(loaded.corpus.texts.values()) == ["Harbour\nNinety ships"] and not loaded.corpus.files
    assert loaded.queries == [Query("q1", "How many ships?")] and loaded.qrels == {"q1": {"d1": 1}}
    with pytest.raises(OctavoError, match="no split 'dev'; it has test, train"):
        load(str(tmp_path), "dev", cache=cache)


def test_pictures_that_are_the_same_are_one_page_with_two_names(tmp_path, cache):
    folder = sets.beir(tmp_path / "twins")
    same = sets.images()[0]
    corpus = {"corpus-id": [0, 1, 2, 3], "image": [same, same, *sets.images()[2:]]}
    sets.parquet(folder / "corpus" / "test-00000-of-00001.parquet", corpus)
    (loaded,) = load(str(folder), cache=cache)
    twins = loaded.corpus.place("1")
    assert twins == loaded.corpus.place("0") and loaded.corpus.ids(*twins) == ["0", "1"]
    assert len(loaded.corpus.files) == 3


def test_pictures_of_kinds_that_are_not_ingested_become_png(tmp_path):
    from PIL import Image

    Image.new("P", (3, 2), 7).save(tmp_path / "page.gif")
    data, suffix = picture({"bytes": (tmp_path / "page.gif").read_bytes(), "path": "page.gif"}, "1")
    assert suffix == ".png" and data.startswith(b"\x89PNG")
    assert picture(Image.new("RGB", (3, 2), "red"), "1")[1] == ".png"
    with pytest.raises(OctavoError, match="page 7: the picture cannot be read"):
        picture({"bytes": b"nothing", "path": None}, "7")


def test_a_folder_of_one_s_own(tmp_path):
    (loaded,) = load(str(sets.plain(tmp_path / "mine")))
    assert loaded.name == "mine" and loaded.corpus.paged
    assert loaded.queries[0] == Query("q-harbour", sets.QUERIES["harbour"], "en")
    content, page = loaded.corpus.place("forest.png#0")
    assert page == 1 and loaded.corpus.files[content].name == "forest.png"
    assert loaded.corpus.ids(content, 1) == ["forest.png#0"]
    assert loaded.qrels["q-forest"] == {"forest.png#0": 1}


def test_pages_of_pictures_may_be_called_by_their_file_alone_and_qrels_be_trec_s(tmp_path):
    folder = sets.plain(tmp_path / "mine")
    (folder / "qrels.tsv").write_text("q-harbour\t0\tharbour\t2\nq-forest\t0\tforest.png\t1\n")
    (loaded,) = load(str(folder))
    assert loaded.qrels == {"q-harbour": {"harbour.png#0": 2}, "q-forest": {"forest.png#0": 1}}


def test_two_files_of_the_same_content_are_both_named(tmp_path):
    folder = sets.plain(tmp_path / "mine")
    shutil.copy(folder / "pages" / "forest.png", folder / "pages" / "wood.png")
    (loaded,) = load(str(folder))
    assert loaded.corpus.ids(*loaded.corpus.place("wood.png#0")) == ["forest.png#0", "wood.png#0"]


def test_documents_alone_are_a_set_without_questions_whatever_lies_beside_them(tmp_path):
    folder = tmp_path / "documents"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a page.png").write_bytes(sets.picture("Some words"))
    (folder / "notes.tsv").write_text("a\tb\n")
    (folder / "rows.jsonl").write_text("[1]\n")
    sets.parquet(folder / "other.parquet", {"a": [1]})
    (loaded,) = load(str(folder))
    assert not loaded.queries and loaded.corpus.place("deep/a page.png#0") is not None


def test_what_does_not_fit_is_said(tmp_path, monkeypatch):
    folder = sets.plain(tmp_path / "mine")
    (folder / "qrels.tsv").write_text("q-harbour\tharbour.png#0\t1\nq-forest\tlost.pdf#3\t1\n")
    with pytest.raises(OctavoError, match=r"1 of 2 pages are not there, 'lost.pdf#3'"):
        load(str(folder))
    (folder / "qrels.tsv").write_text("q-harbour\tharbour.png#0\tgood\n" * 2)
    with pytest.raises(OctavoError, match="'good' is no grade, for query q-harbour"):
        load(str(folder))
    (folder / "qrels.tsv").write_text("other\tharbour.png#0\t1\n")
    with pytest.raises(OctavoError, match="no query"):
        load(str(folder))
    (folder / "queries.jsonl").write_text(json.dumps({"id": "a", "text": " "}))
    with pytest.raises(OctavoError, match="query 1: id and text are expected"):
        load(str(folder))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OctavoError, match="there are no documents"):
        load(str(tmp_path / "empty"))


def test_a_name_of_the_hub_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OctavoError, match="copy it here and name its folder"):
        load("vidore/no-such-set", cache=tmp_path)


def test_a_sample_takes_of_every_language_alike_and_only_what_can_be_scored(tmp_path, cache):
    folder = sets.beir(tmp_path / "v2")
    asked = [*sets.QUERIES.values(), "What is on none of the pages?"]
    languages = ["en", "en", "de", "de", "de"]
    queries = {"query-id": list(range(5)), "query": asked, "language": languages}
    sets.parquet(folder / "queries" / "test-00000-of-00001.parquet", queries)
    (loaded,) = load(str(folder), cache=cache)
    assert [query.lang for query in loaded.sample(2).queries].count("en") == 1
    assert {query.id for query in loaded.sample(100).queries} == {"0", "1", "2", "3"}
    assert loaded.sample(2) == loaded.sample(2)
