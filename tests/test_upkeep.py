"""Damage is found, named and kept away from results: flipped bytes everywhere, files cut, gone and swapped."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import add, content_of, dump, filled, origin_of, page_of, text_search, vectors_of, visual_search

from index import Index, catalog, store, upkeep
from index.codec import decode
from index.errors import DamageError, OctavoError

Served = dict[tuple[str, int], tuple[Any, ...]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index at rest: three shards, four documents, the blocks of a deleted one, a staged one, a cache."""
    folder = tmp_path_factory.mktemp("sound") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_BYTES", 700)
        index = filled(folder, "abcde", stage="pooled")
        with index.writing() as writer:
            writer.delete([row["id"] for row in [writer.document(content_of("b"))] if row])
            document, _ = writer.begin(content_of("staged"), origin_of("staged"), page_count=2)
            writer.add_pages(document, [page_of("staged", 1)])
        index.close()
    assert len(list((folder / "shards").iterdir())) >= 3
    for left in ("-wal", "-shm"):
        Path(f"{folder / catalog.FILE}{left}").unlink(missing_ok=True)
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "index"))


def served(folder: Path) -> Served:
    """What a reader is given of each page, by (content, page)."""
    index = Index(folder)
    try:
        with index.snapshot() as snapshot:
            rows = snapshot.pages(snapshot.state.ids.tolist())
            hits = visual_search(snapshot, vectors_of("d", 2, 3), 100)
            scores = {(content, number): score for content, number, score in hits}
            found: Served = {}
            for page, row in rows.items():
                key = (row["content"], row["number"])
                vectors = decode(snapshot.gather([page])).tobytes()
                words = snapshot.text(page)[0]
                found[key] = (vectors, scores.get(key), words, row["path"], row["title"], row["metadata"])
            assert scores.keys() <= found.keys()
            return found
    finally:
        index.close()


def checked(folder: Path) -> list[upkeep.Damage]:
    index = Index(folder)
    try:
        return upkeep.check(index)
    finally:
        index.close()


def never_wrong(truth: Served, found: Served) -> None:
    """Every page is as it was, or parts of it are left out."""
    assert found.keys() <= truth.keys()
    for key, (vectors, score, words, path, *rest) in found.items():
        expected = truth[key]
        assert (vectors, score) in (expected[:2], (b"", None))
        assert words in (expected[2], "")
        assert path in (expected[3], None)
        assert tuple(rest) == expected[4:]


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def test_a_sound_index_has_no_damage(sound: Path, copy: Path) -> None:
    assert checked(copy) == []
    assert len(served(copy)) == 8
    assert all(score is not None for _, score, *_ in served(copy).values())


def test_every_flipped_byte_of_a_shard_is_found_and_named(sound: Path, copy: Path) -> None:
    truth, rng, flips = served(sound), random.Random(1), 0
    index = Index(sound)
    with index.snapshot(anew=True) as snapshot:
        extents = dict(zip(snapshot.state.ids.tolist(), snapshot.state.extents, strict=True))
        owner = {
            (extent.shard, extent.offset): (row["content"], row["number"])
            for page, extent in extents.items()
            for row in [snapshot.pages([page])[page]]
        }
        layout = snapshot.layout
    index.close()
    for shard, path in store.shard_files(copy):
        clean = path.read_bytes()
        for offset in sorted({*range(64), *range(64, len(clean), 11)}):
            flip(path, offset, rng.randrange(8))
            flips += 1
            damage = checked(copy)
            assert damage, f"{path.name} at {offset}"
            assert all(entry.file == str(path) for entry in damage)
            found = served(copy)
            never_wrong(truth, found)
            owners = [
                key
                for (number, begin), key in owner.items()
                if number == shard and begin <= offset < begin + layout.block_bytes(5)
            ]
            if owners:
                assert [(entry.document, entry.page) for entry in damage] == owners
                assert 0 <= offset - damage[0].offset < layout.block_bytes(5)
                assert found[owners[0]][:2] == (b"", None)
                assert all(found[key] == truth[key] for key in truth if key != owners[0])
            path.write_bytes(clean)
    assert flips > 300


def test_no_flipped_byte_of_the_catalog_gives_a_wrong_result(sound: Path, copy: Path) -> None:
    truth, rng = served(sound), random.Random(2)
    index = Index(sound)
    words = text_search(index, "title harbour stone")
    index.close()
    assert words
    path = copy / catalog.FILE
    clean = path.read_bytes()
    full = [i for i, byte in enumerate(clean) if byte]
    reported = refused = 0
    for offset in sorted(rng.sample(full, 250)) + rng.sample(range(len(clean)), 30):
        flip(path, offset, rng.randrange(8))
        try:
            damage = checked(copy)
            found = served(copy)
            index = Index(copy)
            try:
                hits = text_search(index, "title harbour stone")
            finally:
                index.close()
            never_wrong(truth, found)
            if not damage:  # it lies in no row: on a free page, or between the cells of one
                assert (found, hits) == (truth, words), f"at {offset}"
            reported += bool(damage)
        except OctavoError as error:  # the text lane or all of it cannot be read
            assert str(path) in str(error), error
            refused += 1
        for left in copy.glob(f"{catalog.FILE}-*"):
            left.unlink()
        path.write_bytes(clean)
    assert reported + refused > 150


@pytest.mark.parametrize("table", list(catalog.CHECKED))
def test_a_row_that_changed_by_itself_is_reported(sound: Path, tmp_path: Path, table: str) -> None:
    if table == "page_clusters":  # which pooled pages have
        filled(tmp_path / "sound", pool=2).close()
        sound = tmp_path / "sound"
    truth = served(sound)
    for number, column in enumerate(catalog.CHECKED[table]):
        folder = Path(shutil.copytree(sound, tmp_path / f"{table}-{number}"))
        connection = catalog.sqlite3.connect(folder / catalog.FILE)
        (value,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
        other = (
            value + 1000
            if isinstance(value, (int, float))
            else bytes(value)[::-1] + b"x"
            if isinstance(value, bytes)
            else f"{value}x"
        )
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT min(rowid) FROM {table})", [other])
        connection.commit()
        connection.close()
        try:
            damage = checked(folder)
            never_wrong(truth, served(folder))
            assert [entry for entry in damage if f"row of {table}" in entry.reason], column
        except DamageError as error:
            assert table == "settings" and str(folder) in str(error)
            continue
        if table in ("shards", "settings"):
            index = Index(folder)
            with (
                pytest.raises(DamageError, match=f"a row of {table} is not what was written"),
                index.writing() as writer,
            ):
                add(writer, "late", 1)
            index.close()


def test_a_flipped_cache_is_reported_and_not_used(sound: Path, copy: Path) -> None:
    truth, path = served(sound), copy / "cache" / "pooled.cache"
    clean = path.read_bytes()
    for offset in range(0, len(clean), 3):
        flip(path, offset, offset % 8)
        assert [entry.file for entry in checked(copy)] == [str(path)]
        assert served(copy) == truth
        path.write_bytes(clean)
    for content in (b"", b"\n", b"{}\n", clean[:-1], clean + b"\0", b"[" * 100_000):
        path.write_bytes(content)
        assert [entry.file for entry in checked(copy)] == [str(path)]
        assert served(copy) == truth


def test_without_a_cache_results_are_the_same(sound: Path, copy: Path) -> None:
    shutil.rmtree(copy / "cache")
    assert served(copy) == served(sound)
    index = Index(copy)
    upkeep.rebuild(index)
    index.close()
    assert served(copy) == served(sound)
    assert checked(copy) == []
    assert (copy / "cache" / "pooled.cache").exists()


@pytest.mark.parametrize("harm", ["cut", "emptied", "gone", "swapped"])
def test_a_harmed_shard_loses_its_own_pages_only(sound: Path, copy: Path, harm: str) -> None:
    truth = served(sound)
    (_, first), (_, second), *_ = store.shard_files(copy)
    if harm == "swapped":
        spare = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(spare)
    elif harm == "gone":
        first.unlink()
    else:
        os.truncate(first, first.stat().st_size - 1 if harm == "cut" else 0)
    damage = checked(copy)
    files = {str(first), str(second)} if harm == "swapped" else {str(first)}
    assert {entry.file for entry in damage} == files
    assert all(entry.document and entry.page and entry.offset >= 64 for entry in damage if entry.offset)
    found = served(copy)
    never_wrong(truth, found)
    lost = {key for key in truth if found[key][0] == b""}
    assert lost == {(entry.document, entry.page) for entry in damage if entry.page}
    assert 0 < len(lost) < len(truth)
    assert all(found[key] == truth[key] for key in truth.keys() - lost)
    index = Index(copy)
    with index.writing() as writer:  # what is added now is not put behind what was harmed
        add(writer, "f", 2)
    with pytest.raises(DamageError, match=first.name):
        upkeep.compact(index, purge=True)
    with index.writing() as writer:
        contents = {document for document, _ in lost} | {entry.document for entry in damage if entry.document}
        writer.delete([row["id"] for content in contents if (row := writer.document(content))])
    upkeep.compact(index, purge=True)
    index.close()
    assert checked(copy) == []
    assert {key for key in served(copy) if key[0] == content_of("f")} == {(content_of("f"), 1), (content_of("f"), 2)}


def test_bytes_behind_the_committed_end_do_not_exist(sound: Path, copy: Path) -> None:
    *_, (_, last) = store.shard_files(copy)
    size = last.stat().st_size
    with last.open("ab") as file:
        file.write(os.urandom(1000))
    assert checked(copy) == []
    assert served(copy) == served(sound)
    index = Index(copy)
    with index.writing():
        assert last.stat().st_size == size
    index.close()


def test_damage_found_by_a_search_leaves_the_page_out_and_says_so(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, path = next(store.shard_files(copy))
    flip(path, 64 + 64 + 3, 0)
    index = Index(copy)
    with caplog.at_level(logging.WARNING, "octavo.index"), index.snapshot() as snapshot:
        hits = visual_search(snapshot, vectors_of("a", 1, 3), 100)
    index.close()
    assert (content_of("a"), 1) not in {hit[:2] for hit in hits}
    assert len(hits) == 7
    (record,) = caplog.records
    assert record.getMessage() == (
        f"Title a, page 1 is left out: {path}: the vectors at offset 128 are not what was written"
    )


def test_a_shard_cut_short_under_an_open_reader_is_no_sigbus(copy: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from index import Index, upkeep, store
folder = Path(sys.argv[1])
index = Index(folder)
with index.snapshot() as snapshot:
    before = [len(snapshot.gather([page]).values) for page in snapshot.state.ids.tolist()]
    for _, path in store.shard_files(folder):
        os.truncate(path, 64)
    after = [len(snapshot.gather([page]).values) for page in snapshot.state.ids.tolist()]
    snapshot.pooled(snapshot.state.ids)
with index.snapshot() as snapshot:
    again = [len(snapshot.gather([page]).values) for page in snapshot.state.ids.tolist()]
print(sum(before), sum(after), sum(again), len(upkeep.check(index)) > 0)
"""
    child = subprocess.run(
        [sys.executable, "-c", code, str(copy)], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert (child.returncode, child.stdout.split()) == (0, ["40", "0", "0", "True"]), child.stderr


def test_a_damaged_log_is_a_generation_before(copy: Path, tmp_path: Path) -> None:
    index = Index(copy)
    before = dump(index)
    with index.snapshot():  # keeps the log from being moved into the catalog
        with index.writing() as writer:
            add(writer, "f", 2)
        late = Path(shutil.copytree(copy, tmp_path / "late"))
    after = dump(index)
    index.close()
    log = late / f"{catalog.FILE}-wal"
    clean = log.read_bytes()
    assert len(clean) > 4096
    (late / f"{catalog.FILE}-shm").unlink(missing_ok=True)
    seen = set()
    for offset in range(0, len(clean), len(clean) // 40):
        log.write_bytes(clean)
        flip(log, offset, 3)
        index = Index(late)
        now = dump(index)
        assert now in (before, after)
        assert upkeep.check(index) == []
        seen.add(now == after)
        index.close()
        (late / f"{catalog.FILE}-shm").unlink(missing_ok=True)
    assert seen == {False} or seen == {True, False}
