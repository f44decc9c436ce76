"""Every codec and pool through a whole life, and from one to another in place; kills are in tests/test_kill.py."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sets
from pages import DIM, add, content_of, dump, embed, filled, origin_of, page_of, text_search, vectors_of, visual_search
from words import WordEncoder, document

from index import Index, archive, store, upkeep
from index.codec import CENTRED, CODECS
from index.errors import DamageError, DiskFull, QueryError
from index.recode import FINENESS, Anew, recode
from index.store import shard_files
from retriever import Retriever
from retriever.cli import main
from retriever.encoders.box import BoxEncoder

ALLOWED = {"fp16": 1e-6, "int8": 1e-4, "int4": 0.02, "binary": 0.5}  # share of a page's squares that may be lost
KINDS = [(codec, pool) for codec in CODECS for pool in (1, 2)]


def vectors_in(page: dict) -> np.ndarray:
    return np.frombuffer(page["vectors"], np.float32).reshape(-1, DIM)


def lost(before: np.ndarray, after: np.ndarray) -> float:
    return float(((before - after) ** 2).sum() / max((before**2).sum(), 1e-9))


@pytest.mark.parametrize(("codec", "pool"), KINDS)
def test_a_life_in_every_codec(tmp_path: Path, codec: str, pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 700)
    folder = tmp_path / "index"
    index = filled(folder, "abc", 3, codec=codec, pool=pool, stage="pooled")
    with index.writing() as writer:
        add(writer, "d", [page_of("d", 1, tokens=0), page_of("d", 2, tokens=1)])
    pages = dump(index)
    assert len(pages) == 11
    for page in pages:
        name = next(name for name in "abcd" if content_of(name) == page["content"])
        tokens = {("d", 1): 0, ("d", 2): 1}.get((name, page["page"]), 5)
        stored, given = vectors_in(page), vectors_of(name, page["page"], tokens)
        assert len(stored) == -(-tokens // pool)
        if pool == 1:
            assert lost(given, stored) <= ALLOWED[codec]
        elif tokens:
            np.testing.assert_array_equal(np.unique(page["clusters"] or 0), np.arange(len(stored)))
    with index.snapshot() as snapshot:
        best = visual_search(snapshot, vectors_of("b", 2, 5))[0]
        assert best[:2] == (content_of("b"), 2)
    with index.writing() as writer:
        writer.delete([row["id"] for row in [writer.document(content_of("a"))] if row])
    upkeep.compact(index, purge=True)
    assert upkeep.check(index) == []
    left = [page for page in pages if page["content"] != content_of("a")]
    assert dump(index) == left
    archive.export(index, tmp_path / "x.octavo")
    archive.unpack(tmp_path / "x.octavo", tmp_path / "copy")
    copy = Index(tmp_path / "copy")
    assert dump(copy) == left and copy.settings == index.settings
    copy.close()
    index.close()
    shard = next(path for _, path in shard_files(folder))
    data = bytearray(shard.read_bytes())
    data[64 + 64 + 1] ^= 16
    shard.write_bytes(data)
    index = Index(folder)
    (damage,) = upkeep.check(index)
    assert damage.document and damage.page and damage.file == str(shard) and damage.offset == 64
    index.close()


@pytest.mark.parametrize("old", list(CODECS))
@pytest.mark.parametrize("new", list(CODECS))
def test_from_every_codec_to_every_other(tmp_path: Path, old: str, new: str) -> None:
    index = filled(tmp_path, "ab", 3, codec=old, stage="pooled")
    with index.writing() as writer:
        staged, _ = writer.begin(content_of("staged"), origin_of("staged"), page_count=2)
        writer.add_pages(staged, [page_of("staged", 1)])
    before, words = dump(index), text_search(index, "harbour stone title a b")
    told: list[tuple[int, int]] = []
    facts = recode(index, new, progress=lambda done, total: told.append((done, total)))
    assert (facts["codec"], facts["pool"], facts["pages"]) == (new, 1, 0 if new == old else 7)
    finer = FINENESS.index(new) > FINENESS.index(old)
    assert ("now holds what" in facts["note"]) == finer
    assert (told[-1] == (7, 7)) if new != old else not told
    assert upkeep.check(index) == []
    after = dump(index)
    for was, is_ in zip(before, after, strict=True):
        assert lost(vectors_in(was), vectors_in(is_)) <= ALLOWED[new]
        assert {**was, "vectors": 0} == {**is_, "vectors": 0}
    assert text_search(index, "harbour stone title a b") == words
    with index.writing() as writer:
        staged, done = writer.begin(content_of("staged"), origin_of("staged"), page_count=2)
        assert done == {1}
        writer.add_pages(staged, [page_of("staged", 2)])
        writer.finish(staged, origin_of("staged"), "ok")
        assert {shard for shard, _ in shard_files(tmp_path)} == set(writer.shards.ends)
    again = Index(tmp_path)
    assert (again.settings.codec, bool(again.settings.centre)) == (new, new in CENTRED)
    assert len(dump(again)) == 8 and upkeep.check(again) == []
    again.close()
    index.close()


def test_pooling_goes_further_and_never_back(tmp_path: Path) -> None:
    pages = [page_of("x", 1, tokens=12), page_of("x", 2, tokens=1), page_of("x", 3, tokens=0)]
    index = filled(tmp_path, "x", pages)  # type: ignore[arg-type]
    for pool in (2, 3, 6):
        recode(index, pool=pool)
        first, second, third = dump(index)
        assert [len(vectors_in(page)) for page in (first, second, third)] == [12 // pool, 1, 0]
        assert len(first["clusters"]) == 12 and set(first["clusters"]) == set(range(12 // pool))
        for cluster, vector in enumerate(vectors_in(first)):
            members = vectors_of("x", 1, 12)[np.array(first["clusters"]) == cluster]
            assert vector @ members.mean(axis=0) > 0.9 * np.linalg.norm(vector) * np.linalg.norm(members.mean(axis=0))
        assert upkeep.check(index) == []
    assert index.settings.pool == 6
    with pytest.raises(QueryError, match="keeps one vector for 6 tokens, so pool is 6 or more; got 1"):
        recode(index, pool=1)
    with pytest.raises(QueryError, match="codec is one of fp16, int8, int4, binary; got 'int2'"):
        recode(index, "int2")
    index.close()


@pytest.mark.parametrize(("codec", "pool"), KINDS)
def test_vectors_made_again_of_words_are_those_of_a_new_index(tmp_path: Path, codec: str, pool: int) -> None:
    old, new = filled(tmp_path / "old", "ab", 3, codec="int4", pool=3), Index(_made_anew(tmp_path / "new", codec, pool))
    with old.writing() as writer:
        add(writer, "c", [page_of("c", 1, tokens=0), page_of("c", 2, tokens=1)])
    words = text_search(old, "harbour stone title a b")
    told: list[tuple[int, int]] = []
    facts = recode(old, codec, pool, lambda done, total: told.append((done, total)), Anew(embed, {"name": "seed 2"}))
    assert (facts["codec"], facts["pool"], facts["pages"], facts["note"]) == (codec, pool, 8, "") and told[-1] == (8, 8)
    assert (old.settings.fingerprint, old.settings.codec, old.settings.pool) == ({"name": "seed 2"}, codec, pool)
    for ours, theirs in zip(dump(old), dump(new), strict=True):
        limit = 1e-9 if codec not in CENTRED else ALLOWED[codec]  # centred on pages of its own choice
        assert lost(vectors_in(theirs), vectors_in(ours)) <= limit
        assert {**ours, "vectors": 0} == {**theirs, "vectors": 0}
    assert text_search(old, "harbour stone title a b") == words and upkeep.check(old) == []
    for index in (old, new):
        index.close()


def _made_anew(folder: Path, codec: str, pool: int) -> Path:
    """An index whose pages were embedded by `embed` from the beginning."""
    index = Index.create(folder, dim=DIM, fingerprint={"name": "seed 2"}, codec=codec, pool=pool)
    with index.writing() as writer:
        for name in "abc":
            tokens = [5, 5, 5] if name != "c" else [0, 1]
            pages = [page_of(name, number, count) for number, count in enumerate(tokens, 1)]
            made = [embed(page.text, page.word_boxes) for page in pages]
            parts = [replace(page, vectors=v, token_boxes=b) for page, (v, b, _) in zip(pages, made, strict=True)]
            add(writer, name, parts)
    index.close()
    return folder


def test_an_index_of_an_earlier_encoder_in_the_package_becomes_one_of_this(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "files" / "scan.png"
    scan.parent.mkdir()
    scan.write_bytes(sets.picture(sets.PAGES["forest"]))
    document(tmp_path / "files" / "quay.pdf", ["The harbour authority widened the quay", "Trees"])
    earlier = BoxEncoder()
    earlier.fingerprint = earlier.fingerprint | {"weights": earlier.fingerprint["weights"] | {"states.onnx": "0" * 64}}
    earlier._projection = earlier._projection[:, ::-1].copy()
    at = ["--index", str(tmp_path / "index")]
    for vectors, sought in (("tokens", 1), ("single", 1)):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        with Retriever.open(tmp_path / "index", earlier, vectors=vectors) as retriever:
            retriever.add(scan.parent)
        assert main(["search", "harbour", *at]) == 3
        assert "(octavo recode --anew)" in capsys.readouterr().err
        assert main(["recode", "--anew", *at]) == 0
        capsys.readouterr()
        with Retriever.open(tmp_path / "index") as ours, Retriever.open(tmp_path / vectors, vectors=vectors) as theirs:
            theirs.add(scan.parent)
            for query in ("widened harbour", "trees in a forest"):
                found = [[(h.id, h.score, h.lanes, h.tokens) for h in r.search(query)] for r in (ours, theirs)]
                assert found[0] == found[1] and len(found[0]) >= sought
            assert not ours.check()
    with Retriever.open(tmp_path / "words", WordEncoder()) as other:
        other.add(scan.parent / "quay.pdf")
        with pytest.raises(QueryError, match="words makes its vectors of pictures"):
            other.recode(anew=True)


def test_readers_keep_their_generation_and_notice_the_next(tmp_path: Path) -> None:
    index, other = filled(tmp_path, "abc", stage="pooled"), Index(tmp_path)
    before = dump(other)
    with other.snapshot() as snapshot:
        ids = snapshot.state.ids
        recode(index, "binary", pool=2)
        assert snapshot.layout.codec == "int8"
        assert snapshot.gather(ids).values.shape == (30, DIM)
        assert snapshot.pages(ids.tolist()).keys() == set(ids.tolist())
    with other.snapshot() as snapshot:
        assert (snapshot.layout.codec, other.settings.codec, other.settings.pool) == ("binary", "binary", 2)
        assert snapshot.gather(ids).values.shape == (18, DIM // 8)
    assert dump(other) == dump(index) != before
    with other.writing() as writer:
        add(writer, "d")
    assert upkeep.check(index) == [] and len(dump(index)) == 8
    with other.snapshot() as snapshot:
        assert snapshot.gather(snapshot.state.ids[-2:]).values.shape == (6, DIM // 8)
    for opened in (index, other):
        opened.close()


def test_a_full_disk_or_a_damaged_page_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(tmp_path, "abc")
    before, files = dump(index), sorted(path.name for path in (tmp_path / "shards").iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "fdatasync", full)
        with pytest.raises(DiskFull, match="No space left"):
            recode(index, "int4")
    assert dump(index) == before and index.settings.codec == "int8"
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == files
    (_, shard), *_ = shard_files(tmp_path)
    index.close()
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    index = Index(tmp_path)
    with pytest.raises(DamageError, match="not what was written; nothing was changed. Run octavo retry"):
        recode(index, "int4")
    assert len(upkeep.check(index)) == 1 and index.settings.codec == "int8"
    index.close()


def test_an_interrupted_one_changes_nothing_even_right_after_its_commit(tmp_path: Path) -> None:
    for point, codec in ((0, "int8"), (6, "int4")):
        folder = tmp_path / str(point)
        index = filled(folder, "abc")

        def stop(done: int, total: int, point: int = point) -> None:
            if done == point:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            recode(index, "int4", progress=stop)
        index.close()
        index = Index(folder)
        assert index.settings.codec == codec and upkeep.check(index) == [] and len(dump(index)) == 6
        with index.writing() as writer:
            assert {shard for shard, _ in shard_files(folder)} == set(writer.shards.ends)
        index.close()


def test_a_dimension_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="binary packs 8 components into a byte; 12 do not divide by that"):
        Index.create(tmp_path / "new", dim=12, fingerprint={}, codec="binary")
    assert not (tmp_path / "new").exists()
    index = Index.create(tmp_path / "odd", dim=12, fingerprint={"name": "seed"})
    with pytest.raises(QueryError, match="12 do not divide"):
        recode(index, "binary")
    assert recode(index, "int4")["codec"] == "int4"  # an empty index
    assert Index(tmp_path / "odd").settings.codec == "int4"
    index.close()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "a").close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert main(["recode", "--index", str(tmp_path / "a"), "--codec", "int4", "--pool", "2"]) == 0
    shown = capsys.readouterr()
    assert "codec         int4" in shown.out and shown.err == ""
    assert main(["recode", "--index", str(tmp_path / "a"), "--codec", "fp16", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["codec"], facts["pool"], facts["pages"]) == ("fp16", 2, 6)
    assert facts["note"].startswith("fp16 now holds what int4 had left of the vectors")
    assert facts["bytes_before"] > 0 < facts["bytes_after"]
    assert main(["status", "--index", str(tmp_path / "a"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["codec"], status["pool"], status["tokens"]) == ("fp16", 2, 18)
    assert main(["recode", "--index", str(tmp_path / "b"), "--codec", "int8"]) == 0
    assert "in int8 already" in capsys.readouterr().err
    assert main(["recode", "--index", str(tmp_path / "b")]) == 2
    assert main(["recode", "--index", str(tmp_path / "a"), "--pool", "1"]) == 3
    assert "keeps one vector for 2 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(("codec", "pool"), KINDS)
def test_a_search_in_every_codec_finds_the_page_and_lights_the_word(tmp_path: Path, codec: str, pool: int) -> None:
    pages = ["ship owl mill lamp ship owl mill lamp", "tree stone river mill wheel bread salt lamp"]
    with Retriever.open(tmp_path / "index", WordEncoder(), codec=codec, pool=pool) as retriever:
        assert not retriever.add(document(tmp_path / "a.pdf", pages)).failed
        facts = retriever.status()
        assert (facts["codec"], facts["pool"], facts["tokens"]) == (codec, pool, 16 // pool)
        for _ in range(2):
            hits = retriever.search("ship", mode="visual")
            assert [hit.page for hit in hits] == [1, 2]
            assert hits[0].score_norm > 0.6
            weights = hits[0].evidence.weights()
            assert np.flatnonzero(weights == 1.0).tolist() == [0, 4]
            assert hits[0].evidence.token_boxes.shape == (8, 4)
            assert hits[0].heatmap(dpi=30).size == hits[0].image(dpi=30).size
            retriever.recode("fp16")
    with pytest.raises(QueryError, match="pool 1 or more; got int8, auto, 0"):
        Retriever.open(tmp_path / "other", WordEncoder(), pool=0).add(tmp_path / "a.pdf")
