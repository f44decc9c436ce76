"""An exported index answers elsewhere as it did here; a made-up archive is refused and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import add, content_of, dump, filled, origin_of, page_of, text_search, vectors_of, visual_search

from index import Index, archive, catalog, upkeep
from index.errors import DamageError, OctavoError


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three documents and one that is staged."""
    folder = tmp_path_factory.mktemp("exported")
    index = filled(folder / "index", "abc", stage="pooled")
    with index.writing() as writer:
        document, _ = writer.begin(content_of("staged"), origin_of("staged"), page_count=2)
        writer.add_pages(document, [page_of("staged", 1)])
    archive.export(index, folder / "x.octavo")
    index.close()
    return folder / "x.octavo"


def results(folder: Path) -> Any:
    index = Index(folder)
    try:
        with index.snapshot() as snapshot:
            seen = visual_search(snapshot, vectors_of("b", 1, 4))
        return dump(index), seen, text_search(index, "title stone b")
    finally:
        index.close()


def test_an_import_answers_as_the_original(exported: Path, tmp_path: Path) -> None:
    archive.unpack(exported, tmp_path / "new" / "index")
    assert results(tmp_path / "new" / "index") == results(exported.parent / "index")
    index = Index(tmp_path / "new" / "index")
    with index.writing() as writer:
        assert writer.begin(content_of("staged"), origin_of("staged"))[1] == {1}
        add(writer, "d")
    assert upkeep.check(index) == []
    index.close()
    assert stat.S_IMODE((tmp_path / "new" / "index").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["index"]


def test_an_export_is_one_generation_while_a_writer_works(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", "abc")
    before, stop = dump(index), threading.Event()

    def write() -> None:
        while not stop.is_set():
            with index.writing() as writer:
                add(writer, "d", 3)
            with index.writing() as writer:
                writer.delete([row["id"] for row in [writer.document(content_of("d"))] if row])
            upkeep.compact(index, purge=False)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            archive.export(index, tmp_path / "x.octavo")
            archive.unpack(tmp_path / "x.octavo", tmp_path / str(number))
            copy = Index(tmp_path / str(number))
            assert [page for page in dump(copy) if page["content"] != content_of("d")] == before
            assert len(dump(copy)) in (6, 9)
            copy.close()
    finally:
        stop.set()
        thread.join()
    index.close()


def test_an_export_goes_over_a_file_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(tmp_path / "index")
    target = tmp_path / "x.octavo"
    target.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            archive.export(index, target)
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "x.octavo"]
    index.close()


Members = dict[str, bytes]


def read(path: Path) -> Members:
    with zipfile.ZipFile(path) as source:
        return {name: source.read(name) for name in source.namelist()}


def write(
    path: Path, members: Members, *, seal: bool = True, compress: set[str] = frozenset(), links: set[str] = frozenset()
) -> None:  # type: ignore[assignment]
    """An archive of these members. seal: with a manifest that fits them."""
    members = dict(members)
    if seal:
        files = {
            name: {"bytes": len(data), "blake2b": hashlib.blake2b(data, digest_size=16).hexdigest()}
            for name, data in members.items()
            if name != archive.MANIFEST
        }
        members[archive.MANIFEST] = json.dumps({"octavo": 1, "files": files}).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if name in links else 0o600 << 16
            target.writestr(info, data)


def sql(*statements: str) -> Callable[[Members], Members]:
    """The catalog, with something done to it."""

    def change(members: Members) -> Members:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c"
            path.write_bytes(members[catalog.FILE])
            connection = catalog.sqlite3.connect(path)
            for statement in statements:
                connection.execute(statement)
            connection.commit()
            connection.close()
            return members | {catalog.FILE: path.read_bytes()}

    return change


SHARD = "shards/00000001.tok"


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    def apply(members: Members) -> Members:
        told = json.loads(members[archive.MANIFEST])
        return members | {archive.MANIFEST: json.dumps(change(told)).encode()}

    return apply


SEALED: list[tuple[str, Callable[[Members], Members], str]] = [
    ("path up", lambda m: m | {"../evil": b"x"}, "does not hold"),
    ("absolute path", lambda m: m | {"/tmp/evil": b"x"}, "does not hold"),
    ("path in a shard", lambda m: m | {"shards/../../00000002.tok": b"x"}, "does not hold"),
    ("backslashes", lambda m: m | {"..\\evil": b"x"}, "does not hold"),
    ("a log beside the catalog", lambda m: m | {"catalog.sqlite3-wal": b"x"}, "does not hold"),
    ("a cache", lambda m: m | {"cache/pooled.cache": b"x"}, "does not hold"),
    ("a shard that no page needs", lambda m: m | {"shards/00000009.tok": b"x"}, "shard 9 belongs to no page"),
    ("no shard", lambda m: {k: v for k, v in m.items() if k != SHARD}, "damaged"),
    ("no catalog", lambda m: {k: v for k, v in m.items() if k != catalog.FILE}, "cannot be imported"),
    ("a shard cut short", lambda m: m | {SHARD: m[SHARD][:-64]}, "bytes long"),
    ("a flipped vector", lambda m: m | {SHARD: m[SHARD][:130] + b"\x55" + m[SHARD][131:]}, "not what was written"),
    ("a catalog that is none", lambda m: m | {catalog.FILE: b"SQLite format 3\0" + os.urandom(4096)}, "not a readable"),
    ("an empty catalog", lambda m: m | {catalog.FILE: b""}, "settings are gone"),
    ("a trigger", sql("CREATE TRIGGER evil AFTER INSERT ON pages BEGIN DELETE FROM pages; END"), "holds evil"),
    ("a view", sql("CREATE VIEW evil AS SELECT 1"), "holds evil"),
    ("a table", sql("CREATE TABLE evil (a)"), "holds evil"),
    ("another virtual table", sql("CREATE VIRTUAL TABLE evil USING fts5(a)"), "holds evil"),
    ("an index with an expression", sql("CREATE INDEX evil ON pages(abs(number))"), "holds evil"),
    ("a column", sql("ALTER TABLE paths ADD COLUMN evil TEXT"), "holds paths"),
    ("a catalog of the future", sql("PRAGMA user_version=99"), "format 99"),
    ("another application", sql("PRAGMA application_id=1"), "not an Octavo catalog"),
    ("a row without its checksum", sql("UPDATE documents SET title = 'evil'"), "a row of documents"),
    ("settings that are no settings", sql("UPDATE settings SET value = '5'"), "row of settings"),
    ("no settings", sql("DELETE FROM settings"), "settings are gone"),
]  # fmt: skip
UNSEALED: list[tuple[str, Callable[[Members], Members], str]] = [
    ("an altered byte", lambda m: m | {SHARD: m[SHARD][:-1] + b"\x01"}, "not what was exported"),
    ("a longer member", lambda m: m | {SHARD: m[SHARD] + b"\0"}, "not as long"),
    ("no manifest", lambda m: {k: v for k, v in m.items() if k != archive.MANIFEST}, "not a sound export"),
    ("a manifest that is no JSON", lambda m: m | {archive.MANIFEST: b"{"}, "not a sound export"),
    ("a manifest that is a list", lambda m: m | {archive.MANIFEST: b"[1]"}, "not a sound export"),
    ("a deep manifest", lambda m: m | {archive.MANIFEST: b"[" * 100_000}, "not a sound export"),
    ("a manifest of the future", manifest(lambda told: told | {"octavo": 2}), "format 2; this Octavo reads 1"),
    ("files that are a list", manifest(lambda told: told | {"files": [SHARD, catalog.FILE]}), "not a sound export"),
    (
        "a file that is a text",
        manifest(lambda told: told | {"files": dict.fromkeys(told["files"], "x")}),
        "not a sound",
    ),
    ("a file more", manifest(lambda told: {**told, "files": told["files"] | {"shards/00000007.tok": {}}}), "not hold"),
]


@pytest.mark.parametrize(
    ("seal", "change", "message"),
    [(True, *row[1:]) for row in SEALED] + [(False, *row[1:]) for row in UNSEALED],
    ids=[row[0] for row in SEALED + UNSEALED],
)
def test_a_made_up_archive_is_refused(
    exported: Path, tmp_path: Path, seal: bool, change: Callable[[Members], Members], message: str
) -> None:
    write(tmp_path / "x.octavo", change(read(exported)), seal=seal)
    refused(tmp_path, message)


def refused(folder: Path, message: str) -> None:
    """The archive x.octavo in a folder is refused, and leaves nothing behind."""
    with pytest.raises(OctavoError, match=message) as caught:
        archive.unpack(folder / "x.octavo", folder / "new")
    assert str(folder / "x.octavo") in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["x.octavo"]
    assert not Path("/tmp/evil").exists()


def test_compressed_members_bombs_and_links_are_refused(exported: Path, tmp_path: Path) -> None:
    members = read(exported)
    write(tmp_path / "x.octavo", members, compress={SHARD})
    refused(tmp_path, "compressed, or no plain file")
    write(
        tmp_path / "x.octavo", members | {archive.MANIFEST: b" " * 50_000_000}, seal=False, compress={archive.MANIFEST}
    )
    refused(tmp_path, "compressed, or no plain file")
    write(tmp_path / "x.octavo", members, links={SHARD})
    refused(tmp_path, "compressed, or no plain file")


def test_members_that_overlap_or_come_twice_are_refused(exported: Path, tmp_path: Path) -> None:
    data = bytearray(exported.read_bytes())
    with zipfile.ZipFile(exported) as source:
        sizes = {info.filename: info.file_size for info in source.infolist()}
    at = data.rindex(SHARD.encode()) - 46  # its entry in the directory at the end
    for field in (20, 24):
        data[at + field : at + field + 4] = (sizes[SHARD] + len(data)).to_bytes(4, "little")
    (tmp_path / "x.octavo").write_bytes(data)
    refused(tmp_path, "not a sound export")
    members = read(exported)
    with zipfile.ZipFile(tmp_path / "x.octavo", "w") as target, pytest.warns(UserWarning, match="Duplicate name"):
        for name in [*members, SHARD]:
            target.writestr(name, members[name])
    refused(tmp_path, "members overlap")


def test_a_cut_or_altered_archive_is_refused_or_the_same(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    for size in range(0, len(whole), len(whole) // 20):
        (tmp_path / "x.octavo").write_bytes(whole[:size])
        refused(tmp_path, "not a sound export")
    expected = results(exported.parent / "index")
    bad = 0
    for offset in range(5, len(whole), len(whole) // 60):
        (tmp_path / "x.octavo").write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        try:
            archive.unpack(tmp_path / "x.octavo", tmp_path / f"new{offset}")
            assert results(tmp_path / f"new{offset}") == expected
        except OctavoError:
            bad += 1
            assert not (tmp_path / f"new{offset}").exists()
    assert bad > 50


def test_a_shard_of_another_index_is_refused(exported: Path, tmp_path: Path) -> None:
    other = filled(tmp_path / "other", "abc")
    shard = (tmp_path / "other" / SHARD).read_bytes()
    other.close()
    members = read(exported)
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "x.octavo", members | {SHARD: shard.ljust(len(members[SHARD]), b"\0")})
    refused(folder, "belongs to another index")


def test_an_import_needs_an_archive_and_an_empty_place(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OctavoError, match="is not empty; import into a new folder"):
        archive.unpack(exported, tmp_path / "full")
    with pytest.raises(OctavoError, match="No such file"):
        archive.unpack(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(OctavoError, match="cannot be imported"):
        archive.unpack(tmp_path / "full", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    archive.unpack(exported, tmp_path / "empty")
    assert len(results(tmp_path / "empty")[0]) == 6


def test_a_damaged_index_is_not_imported(tmp_path: Path) -> None:
    index = filled(tmp_path / "index")
    path = tmp_path / "index" / SHARD
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    archive.export(index, tmp_path / "x.octavo")
    index.close()
    with pytest.raises(DamageError, match="the index in it is damaged: .*not what was written"):
        archive.unpack(tmp_path / "x.octavo", tmp_path / "new")
