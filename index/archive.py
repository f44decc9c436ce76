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
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from index import catalog, upkeep
from index.directory import Index
from index.errors import FormatError, OctavoError
from index.store import sync_folder

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
            _fill(index, target)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _fill(index: Index, target: zipfile.ZipFile) -> None:
    digests: dict[str, Any] = {}
    with index.snapshot() as snapshot, tempfile.TemporaryDirectory(dir=index.folder) as folder:
        copy = Path(folder) / catalog.FILE
        other = catalog.sqlite3.connect(str(copy))
        try:
            snapshot.db.conn.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")
        finally:
            other.close()
        with copy.open("rb") as file:
            digests[catalog.FILE] = _store(target, catalog.FILE, file, copy.stat().st_size)
        for shard, end in snapshot.state.shards.ends.items():
            name = f"shards/{shard:08d}.tok"
            with (index.folder / name).open("rb") as file:
                digests[name] = _store(target, name, file, end)
    manifest = {"octavo": FORMAT, "files": digests}
    target.writestr(MANIFEST, json.dumps(manifest, indent=1))


def _store(target: zipfile.ZipFile, name: str, file: BinaryIO, size: int) -> dict[str, Any]:
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
        (fresh / "shards").mkdir(parents=True, mode=0o700)
        try:
            with zipfile.ZipFile(path) as source:
                _extract(source, fresh)
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
            raise OctavoError(f"{path} is not a sound export of an index: {error}") from error
        index = Index(fresh)
        damage = upkeep.check(index)
        index.close()
        if damage:
            raise OctavoError(f"{path} holds a damaged index: {damage[0].reason}")
        for extra in (f"{catalog.FILE}-wal", f"{catalog.FILE}-shm"):
            (fresh / extra).unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()
        shutil.move(fresh, folder)
        sync_folder(folder.parent)


def _extract(source: zipfile.ZipFile, folder: Path) -> None:
    manifest = json.loads(source.read(MANIFEST)[:10_000_000])
    if manifest["octavo"] != FORMAT:
        raise FormatError(f"an export of format {manifest['octavo']}; this Octavo reads {FORMAT}")
    names = [info.filename for info in source.infolist() if info.filename != MANIFEST]
    if sorted(names) != sorted(manifest["files"]) or not all(_MEMBER.fullmatch(name) for name in names):
        raise ValueError("it does not hold what its manifest says")
    for info in source.infolist():
        if info.filename == MANIFEST:
            continue
        said = manifest["files"][info.filename]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != said["bytes"]:
            raise ValueError(f"{info.filename} is not as long as its manifest says")
        digest = hashlib.blake2b(digest_size=16)
        with source.open(info) as member, (folder / info.filename).open("xb") as file:
            for chunk in _chunks(member, info.file_size):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != said["blake2b"]:
            raise ValueError(f"{info.filename} is not what was exported")
    sync_folder(folder / "shards")
