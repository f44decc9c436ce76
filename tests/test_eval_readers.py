"""Baselines of octavo eval: BM25 by what gave the words, and encoders that are handed no text layer."""

import json
import math
import sys

import pymupdf
import pytest
import sets

from retriever import Retriever, load_encoder
from retriever.cli import main
from retriever.encoders.box.reader import Reader
from retriever.evaluation.bm25 import BM25
from retriever.evaluation.datasets import load
from retriever.evaluation.indexes import opened, texts
from retriever.evaluation.readers import PixelsOnly, ocr, text_layer
from retriever.evaluation.run import baseline, best


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages that print one text and, out of sight, hold the words of another: right by the text that is printed."""
    folder = sets.plain(tmp_path_factory.mktemp("sets") / "mine")
    (folder / "pdf").mkdir()
    names = list(sets.PAGES)
    for name, hidden in zip(names, names[1:] + names[:1], strict=True):
        with pymupdf.open() as document:
            page = document.new_page(width=560, height=320)
            page.insert_image(page.rect, stream=sets.picture(sets.PAGES[name]))
            page.insert_text((30, 60), sets.PAGES[hidden], fontsize=20, render_mode=3)
            document.save(folder / "pdf" / f"{name}.pdf")
        (folder / "pages" / f"{name}.png").unlink()
    (folder / "pages").rmdir()
    qrels = (folder / "qrels.tsv").read_text().replace(".png#0", ".pdf#0")
    (folder / "qrels.tsv").write_text(qrels)
    return folder


def test_baselines_are_measured_beside_the_engine_by_one_command(folder, tmp_path, capsys):
    wanted = ["--mode", "hybrid", "--mode", "text", "--baseline", "layer", "--baseline", "ocr", "--pixels-only"]
    options = ["--measure", "hit@1", "--report", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--json"]
    assert main(["eval", str(folder), *wanted, *options]) == 0
    rows = {row["system"]: row["mean"] for row in json.loads(capsys.readouterr().out)["table"]}
    assert rows == {
        "hybrid: octavo-box-1, pixels only, int8, auto candidates": 1.0,
        "text: BM25 over words as read by octavo-box-1, pixels only": 1.0,
        "baseline: BM25 over the text layer": 0.0,
        "baseline: BM25 over OCR by octavo-box-1": 1.0,
    }
    report = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert all(label in report for label in rows) and "not among the first" not in report
    written = {path.name for path in (tmp_path / "out" / "runs").glob("mine.baseline*")}
    assert written == {f"mine.baseline--BM25-over-{what}.run" for what in ("the-text-layer", "OCR-by-octavo-box-1")}


def test_the_text_layer_is_searched_by_its_words(folder, tmp_path):
    (questions,) = load(str(folder))
    result = baseline(questions, text_layer(), tmp_path)
    hidden = dict(zip([*sets.PAGES][1:] + [*sets.PAGES][:1], sets.PAGES, strict=True))
    assert {query: pages[0][0] for query, pages in result.rankings.items()} == {
        f"q-{name}": f"{holder}.pdf#0" for name, holder in hidden.items()
    }
    assert result.cost["encoded"] == 4 and result.pages == 4 and not result.funnel


def test_bm25_is_the_formula():
    pages = {"a": "ships ships harbour", "b": "Ships", "c": "forest of oak and beech", "d": "東京都"}
    lane, mean = BM25(pages), (3 + 1 + 5 + 2) / 4

    def weight(count, length, having):
        idf = math.log(1 + (4 - having + 0.5) / (having + 0.5))
        return idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))

    found = dict(lane.search("ships in the harbour", 9))
    assert found == pytest.approx({"a": weight(2, 3, 2) + weight(1, 3, 1), "b": weight(1, 1, 2)})
    assert lane.search("SHIPS", 1) == [("b", pytest.approx(weight(1, 1, 2)))]
    assert lane.search("京都", 9) == [("d", pytest.approx(weight(1, 2, 1)))] and lane.search("nothing", 9) == []
    assert BM25({}).search("x", 3) == [] and BM25({"empty": ""}).search("x", 3) == []


def test_what_is_ranked_is_what_the_engine_finds(folder, tmp_path):
    (questions,) = load(str(folder))
    retriever, _ = opened(questions.corpus, PixelsOnly(load_encoder(), tmp_path), tmp_path)
    with retriever:
        for mode in ("hybrid", "visual", "text"):
            for query in questions.queries:
                hits = retriever.search(query.text, 3, mode)
                expected = [(f"{name}#0", hit.score) for hit in hits for name in questions.corpus.names[hit.document]]
                assert best(retriever, questions.corpus, query.text, 3, mode) == expected and expected


def test_a_new_head_reads_nothing_again(folder, tmp_path, monkeypatch):
    (questions,) = load(str(folder))
    with opened(questions.corpus, PixelsOnly(load_encoder(), tmp_path), tmp_path)[0] as retriever:
        before = texts(retriever, questions.corpus)
    assert len(list(tmp_path.glob("readings/*/*.json"))) == 4 and all(before.values())
    monkeypatch.setattr(Reader, "words", lambda *_: pytest.fail("read again"))
    head = load_encoder()
    head.fingerprint = head.fingerprint | {"head": "another"}
    head._projection = -head._projection
    made, facts = opened(questions.corpus, PixelsOnly(head, tmp_path), tmp_path)
    with made:
        assert texts(made, questions.corpus) == before
    assert facts["encoded"] == 4
    kept = [json.loads(file.read_text())["seconds"] for file in tmp_path.glob("readings/*/*.json")]
    assert 0 < sum(kept) / 4 < facts["cpu_seconds_a_page"], "readings that were there count as what they took"
    baseline(questions, ocr(tmp_path), tmp_path)


def test_a_page_without_words_is_read_as_none(tmp_path):
    (tmp_path / "blank").mkdir()
    with pymupdf.open() as document:
        document.new_page()
        document.save(tmp_path / "blank" / "blank.pdf")
    with Retriever.open(tmp_path / "index", ocr(tmp_path)) as retriever:
        report = retriever.add(tmp_path / "blank")
        assert report.pages == 1 and not report.failed
        assert retriever.search("anything", mode="text") == []


def test_texts_have_no_pictures_to_read(tmp_path, capsys):
    folder, shard = sets.beir(tmp_path / "texts"), "test-00000-of-00001.parquet"
    sets.parquet(folder / "corpus" / shard, {"corpus-id": list(range(4)), "text": list(sets.PAGES.values())})
    for option in ("--pixels-only", "--baseline ocr"):
        assert main(["eval", str(folder), *option.split(), "--cache", str(tmp_path)]) == 2
        assert f"no pictures to read: leave out {option}" in capsys.readouterr().err
    assert main(["eval", str(folder), "--baseline", "layer", "--cache", str(tmp_path)]) == 0
    assert "baseline: BM25 over the text layer\t4\t1.000" in capsys.readouterr().out


def test_rapidocr_reads_the_picture_or_says_how_to_install_it(folder, tmp_path, capsys, monkeypatch):
    arguments = [
        "eval",
        str(folder),
        "--baseline",
        "rapidocr",
        "--measure",
        "hit@1",
        "--cache",
        str(tmp_path),
        "--json",
    ]
    try:
        import rapidocr  # noqa: F401
    except ImportError:
        assert main(arguments) == 3
        assert 'pip install "octavo[ocr]"' in capsys.readouterr().err
        return
    assert main(arguments) == 0
    rows = {row["system"]: row["mean"] for row in json.loads(capsys.readouterr().out)["table"]}
    assert [value for system, value in rows.items() if "rapidocr" in system] == [1.0]
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert main(arguments) == 3
