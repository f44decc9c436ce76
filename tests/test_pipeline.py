"""Files into an index: what is skipped, replaced, renamed, recorded as failed, tried again, resumed after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from PIL import Image
from words import WordEncoder, document

from index.errors import IndexLocked
from ingest.render import Limits
from ingest.report import Progress
from retriever import Retriever


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two PDFs and a picture."""
    files = tmp_path / "files"
    document(files / "harbour.pdf", ["ships in the harbour", "cranes and ships"], title="The Harbour")
    document(files / "deep" / "forest.pdf", ["trees of the forest"], title="The Forest")
    Image.new("RGB", (60, 40), "white").save(files / "empty.png")
    return files


def opened(tmp_path: Path, **options: Any) -> Retriever:
    return Retriever.open(tmp_path / "index", options.pop("encoder", WordEncoder()), **options)


def found(retriever: Retriever, query: str) -> list[tuple[str, int]]:
    """(file name, page) of what has the words."""
    return sorted((Path(hit.path).name, hit.page) for hit in retriever.search(query, mode="text"))


def dump(retriever: Retriever) -> list[Any]:
    """Everything a user can tell apart, without ids and times."""
    documents = []
    for entry in retriever.documents():
        pages = retriever.pages(entry["document"])
        hits = [retriever.page(entry["document"], page["page"], query="ships") for page in pages]
        scores = [(hit.lanes["visual"], hit.evidence.vectors.tobytes()) for hit in hits]
        documents.append([{key: value for key, value in entry.items() if key != "added"}, pages, scores])
    return documents


def test_a_folder_goes_in_once(tmp_path: Path, folder: Path) -> None:
    told: list[Progress] = []
    with opened(tmp_path) as retriever:
        report = retriever.add(folder, metadata={"year": 2023}, progress=told.append)
        assert sorted(Path(entry["path"]).name for entry in report.added) == ["empty.png", "forest.pdf", "harbour.pdf"]
        assert {Path(entry["path"]).name: entry["state"] for entry in report.added} == {
            "harbour.pdf": "ok",
            "forest.pdf": "ok",
            "empty.png": "blank",
        }
        assert report.pages == 4 and not report.failed
        assert (told[0].pages_total, told[0].documents_total) == (4, 3), "the work ahead is known before the first page"
        assert (told[-1].pages_done, told[-1].documents_done) == (4, 3)
        again = retriever.add(folder)
        assert len(again.skipped) == 3 and not again.added and again.pages == 0
        assert found(retriever, "ships") == [("harbour.pdf", 1), ("harbour.pdf", 2)]
        assert {entry["title"] for entry in retriever.documents()} == {"The Harbour", "The Forest", ""}
        assert all(entry["metadata"] == {"year": 2023} for entry in retriever.documents())


def test_one_content_under_two_paths_is_one_document(tmp_path: Path, folder: Path) -> None:
    twin = folder / "twin.pdf"
    twin.write_bytes((folder / "harbour.pdf").read_bytes())
    with opened(tmp_path) as retriever:
        retriever.add(folder)
        (entry,) = [entry for entry in retriever.documents() if entry["title"] == "The Harbour"]
        assert [Path(path).name for path in entry["paths"]] == ["harbour.pdf", "twin.pdf"]
        assert len(retriever.search("ships", mode="text")) == 2


def test_a_renamed_file_is_recognised(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        retriever.add(folder)
        (folder / "harbour.pdf").rename(folder / "quay.pdf")
        report = retriever.add(folder)
        assert [Path(entry["path"]).name for entry in report.renamed] == ["quay.pdf"] and report.pages == 0
        assert found(retriever, "ships") == [("quay.pdf", 1), ("quay.pdf", 2)]
        assert found(retriever, "quay") == [("quay.pdf", 1), ("quay.pdf", 2)], "the text lane knows the new name"


def test_a_changed_file_replaces_its_old_content(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        retriever.add(folder)
        document(folder / "harbour.pdf", ["boats instead"], title="New")
        report = retriever.update()
        assert [Path(entry["path"]).name for entry in report.updated] == ["harbour.pdf"]
        assert found(retriever, "ships") == [] and found(retriever, "boats") == [("harbour.pdf", 1)]
        (folder / "deep" / "forest.pdf").unlink()
        assert [Path(entry["path"]).name for entry in retriever.update().gone] == ["forest.pdf"]
        assert found(retriever, "trees") == [("forest.pdf", 1)], "a vanished file stays until it is pruned"
        retriever.update(prune=True)
        assert found(retriever, "trees") == []


def test_a_bad_new_content_leaves_the_old_one_searchable(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        retriever.add(folder)
        (folder / "harbour.pdf").write_bytes(b"%PDF-1.7\nnothing more")
        report = retriever.add(folder)
        assert [entry["state"] for entry in report.failed] == ["damaged"]
        assert found(retriever, "ships") == [("harbour.pdf", 1), ("harbour.pdf", 2)]
        assert [problem["state"] for problem in retriever.status()["problems"]] == ["damaged"]


def test_bad_files_are_recorded_and_stop_nothing(tmp_path: Path, folder: Path) -> None:
    (folder / "cut.pdf").write_bytes((folder / "harbour.pdf").read_bytes()[:300])
    (folder / "zero.pdf").write_bytes(b"")
    (folder / "big.pdf").write_bytes(b"%PDF-1.4\n" + bytes(300_000))
    (folder / "notes.txt").write_bytes(b"not\0text")
    locked = pymupdf.open(folder / "harbour.pdf")
    locked.save(folder / "locked.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw="o", user_pw="secret")
    locked.close()
    with opened(tmp_path, limits=Limits(max_bytes=200_000)) as retriever:
        report = retriever.add([folder, folder / "notes.txt"])
        assert len(report.added) == 3
        states = {Path(entry["path"]).name: entry["state"] for entry in report.failed}
        assert states == {
            "big.pdf": "oversize",
            "cut.pdf": "damaged",
            "locked.pdf": "encrypted",
            "notes.txt": "unsupported",
            "zero.pdf": "empty",
        }
        assert all(entry["reason"] for entry in report.failed)
        assert {Path(problem["path"]).name for problem in retriever.status()["problems"]} == set(states)
        again = retriever.add(folder)
        assert len(again.failed) == 5 and again.pages == 0, "known failures are told again, not tried again"
        retried = retriever.retry(password="secret")
        assert [Path(entry["path"]).name for entry in retried.added] == ["locked.pdf"]
        assert ("locked.pdf", 2) in found(retriever, "cranes")


def test_a_page_the_encoder_chokes_on_costs_that_page(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path, encoder=WordEncoder(fail="cranes")) as retriever:
        report = retriever.add(folder)
        (entry,) = [entry for entry in report.added if entry["state"] == "partial"]
        assert "1 of 2 pages crash" in entry["reason"] and "a page says cranes" in entry["reason"]
        assert found(retriever, "ships") == [("harbour.pdf", 1)]
    with opened(tmp_path) as retriever:
        report = retriever.retry()
        assert report.pages == 1 and [entry["state"] for entry in report.added] == ["ok"]
        assert found(retriever, "ships") == [("harbour.pdf", 1), ("harbour.pdf", 2)]


def test_a_page_damaged_on_the_disk_is_read_again(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        retriever.add(folder)
        whole = dump(retriever)
    shard = tmp_path / "index" / "shards" / "00000001.tok"
    data = bytearray(shard.read_bytes())
    data[64 + 64 + 5] ^= 1  # in the codes of the first page stored
    shard.write_bytes(data)
    with opened(tmp_path) as retriever:
        (damage,) = retriever.check()
        assert damage.page == 1 and damage.document and damage.file == str(shard)
        report = retriever.retry()
        assert report.pages == 1 and [entry["state"] for entry in report.added] == ["ok"]
        assert dump(retriever) == whole
        retriever.compact(purge=True)
        assert retriever.check() == [] and dump(retriever) == whole


def test_a_dry_run_changes_nothing(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        report = retriever.add(folder, dry_run=True)
        assert (len(report.added), report.pages, report.dry_run) == (3, 4, True)
        assert report.bytes > 0 and report.seconds > 0
        assert not (tmp_path / "index").exists()
        retriever.add(folder)
        assert retriever.add(folder, dry_run=True).pages == 0


def test_a_missing_path_is_said_before_anything_is_done(tmp_path: Path, folder: Path) -> None:
    with opened(tmp_path) as retriever:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            retriever.add([folder, tmp_path / "nowhere"])
        retriever.add(folder)
        assert len(retriever.documents()) == 3


SCRIPT = textwrap.dedent("""
    import sys
    from retriever import Retriever
    from words import WordEncoder
    with Retriever.open(sys.argv[1], WordEncoder(seconds=float(sys.argv[3]))) as retriever:
        retriever.add(sys.argv[2], progress=lambda told: print(told.pages_done, flush=True))
""")


def child(index: Path, files: Path, seconds: float) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SCRIPT, str(index), str(files), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_ingest_goes_on_where_it_was(tmp_path: Path) -> None:
    files = tmp_path / "files"
    for n in range(4):
        document(files / f"{n}.pdf", [f"ships {n} page {i}" for i in range(9)])
    with Retriever.open(tmp_path / "whole", WordEncoder()) as retriever:
        retriever.add(files)
        whole = dump(retriever)
    index = tmp_path / "index"
    acknowledged = 0
    for pages in (3, 8, 11):
        process = child(index, files, 0.02)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= pages:
                process.send_signal(signal.SIGKILL)
                acknowledged += int(line)
                break
        process.wait()
        process.stdout.close()
        with Retriever.open(index, WordEncoder()) as retriever:
            counts = [len(retriever.pages(entry["document"])) for entry in retriever.documents()]
            assert set(counts) <= {9}, "a document is searchable whole or not at all"
    with Retriever.open(index, WordEncoder()) as retriever:
        report = retriever.add(files)
        assert report.pages <= 36 - acknowledged, "no acknowledged page is encoded again"
        assert dump(retriever) == whole
        assert retriever.check() == []


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    files = tmp_path / "files"
    document(files / "a.pdf", ["ships"] * 40)
    process = child(tmp_path / "index", files, 0.05)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    with opened(tmp_path) as retriever:
        started = time.monotonic()
        with pytest.raises(IndexLocked, match=f"process {process.pid} on "):
            retriever.add(files)
        assert time.monotonic() - started < 5
        assert retriever.documents() == []
        process.kill()
        process.wait()
        process.stdout.close()
        assert len(retriever.add(files).added) == 1, "a dead writer's lock is free"


def test_names_that_are_no_text_go_in_and_come_out(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n<b>.pdf")
    document(tmp_path / "plain.pdf", ["ships"])
    (tmp_path / "plain.pdf").rename(tmp_path / name)
    with opened(tmp_path) as retriever:
        retriever.add(tmp_path / name)
        (hit,) = retriever.search("ships")
        assert hit.path == str(tmp_path / name) and "%E9" in hit.url
        assert hit.image().size[0] > 100
        json.dumps(hit.dict())
        assert retriever.delete(str(tmp_path / name)) == 1
