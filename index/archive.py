"""An index as one file: encode on one machine, search on another.

A zip without compression that holds the catalog, the committed part of each shard, and a manifest with the BLAKE2b of
each. Unpacking believes nothing: names, sizes and digests are checked while the bytes are copied into a new folder, the
index in it is checked as `octavo check` does, and only then is the folder given its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from index import catalog, schema, upkeep
from index.directory import Index
from index.errors import DamageError, FormatError, OctavoError
from index.store import shard_files, sync_folder

FORMAT = 1
MANIFEST = "manifest.json"
_MEMBER = re.compile(r"catalog\.sqlite3|shards/[0-9]{8}\.tok")
_CHUNK = 1 << 20


def export(index: Index, path: Path) -> Path:
    """Write one generation of the index to `path`, whole or not at all; the path."""
    path = path.expanduser().absolute()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as target:
            _fill(index, target, path.parent)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _fill(index: Index, target: zipfile.ZipFile, folder: Path) -> None:
    digests: dict[str, Any] = {}
    with index.snapshot(anew=True) as snapshot, tempfile.TemporaryDirectory(prefix=".octavo.", dir=folder) as scratch:
        copy = Path(scratch) / catalog.FILE
        other = catalog.sqlite3.connect(str(copy))
        try:
            snapshot.db.conn.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")
        finally:
            other.close()
        with copy.open("rb") as file:
            digests[catalog.FILE] = _store(target, catalog.FILE, file, copy.stat().st_size)
        for shard in snapshot.state.shards.ends:
            data = memoryview(snapshot.state.shards.data(shard))
            digests[f"shards/{shard:08d}.tok"] = _store(target, f"shards/{shard:08d}.tok", _Reader(data), len(data))
    manifest = {"octavo": FORMAT, "files": digests}
    target.writestr(MANIFEST, json.dumps(manifest, indent=1))


class _Reader:
    """A map, read like a file: one that another process compacts away meanwhile is still whole in it."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        chunk, self.data = bytes(self.data[:size]), self.data[size:]
        return chunk


def _store(target: zipfile.ZipFile, name: str, file: BinaryIO | _Reader, size: int) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    with target.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
        for chunk in _chunks(file, size):
            digest.update(chunk)
            member.write(chunk)
    return {"bytes": size, "blake2b": digest.hexdigest()}


def _chunks(file: Any, size: int) -> Any:
    while size:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            raise OctavoError("the file ends before its time; it was cut short or is damaged")
        size -= len(chunk)
        yield chunk


def unpack(path: Path, folder: Path) -> None:
    """Make an index folder of an exported file.

    Raises OctavoError where the file or anything in it is not sound, or the folder holds something already."""
    if folder.exists() and any(folder.iterdir()):
        raise OctavoError(f"{folder} is not empty; import into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
        fresh = Path(parent) / "index"
        fresh.mkdir(mode=0o700)
        (fresh / "shards").mkdir(mode=0o700)
        try:
            with zipfile.ZipFile(path) as source:
                _extract(source, fresh, path.stat().st_size)
            _prove(fresh)
        except OctavoError as error:
            raise type(error)(f"{path} cannot be imported: {error}") from error
        except OSError as error:
            raise OctavoError(f"{path} cannot be imported: {error}") from error
        except (zipfile.BadZipFile, EOFError, *_ODD) as error:
            raise OctavoError(f"{path} is not a sound export of an index: {error}") from error
        if folder.exists():
            folder.rmdir()
        shutil.move(fresh, folder)
        sync_folder(folder.parent)


_ODD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a made-up archive can lead Python into. NotImplementedError and RecursionError are RuntimeErrors."""


def _extract(source: zipfile.ZipFile, folder: Path, size: int) -> None:
    """Copy the members into a folder, believing none of what the archive says of them. size: of the archive."""
    members = {info.filename: info for info in source.infolist()}
    for info in source.infolist():
        if info.compress_type != zipfile.ZIP_STORED or stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ValueError(f"{info.filename!a} is compressed, or no plain file")
    if len(members) != len(source.infolist()) or sum(info.file_size for info in members.values()) > size:
        raise ValueError("members overlap")
    manifest = json.loads(source.read(MANIFEST))
    if manifest["octavo"] != FORMAT:
        raise FormatError(f"an export of format {manifest['octavo']}; this Octavo reads {FORMAT}")
    names = members.keys() - {MANIFEST}
    if names != manifest["files"].keys() or not all(_MEMBER.fullmatch(name) for name in names):
        raise ValueError("it does not hold what its manifest says")
    for name in sorted(names):
        said, info = manifest["files"][name], members[name]
        if info.file_size != said["bytes"]:
            raise ValueError(f"{name} is not as long as its manifest says")
        digest = hashlib.blake2b(digest_size=16)
        with source.open(info) as member, (folder / name).open("xb") as file:
            for chunk in _chunks(member, info.file_size):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != said["blake2b"]:
            raise ValueError(f"{name} is not what was exported")
    sync_folder(folder / "shards")


def _prove(folder: Path) -> None:
    """Raise OctavoError unless an unpacked index is whole, and holds nothing else."""
    schema.connect(folder, write=True).close()  # to this format, with a write-ahead log
    index = Index(folder)
    try:
        damage = upkeep.check(index)
        with index.snapshot() as snapshot:
            extra = {shard for shard, _ in shard_files(folder)} - snapshot.state.shards.ends.keys()
    finally:
        index.close()
    if damage or extra:
        reason = damage[0].reason if damage else f"shard {min(extra)} belongs to no page"
        raise DamageError(f"the index in it is damaged: {reason}")
    for left in (f"{catalog.FILE}-wal", f"{catalog.FILE}-shm"):
        (folder / left).unlink(missing_ok=True)
    sync_folder(folder)
