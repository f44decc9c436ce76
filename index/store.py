"""The token store: append-only shard files, written with pwrite and read through memory maps.

A block exists once the catalog names it: the writer syncs blocks, the catalog commits them after, and what lies beyond
the committed end is cut off by the next writer. Nothing is ever changed in place or written through a map, and a map
never reaches past the committed end. Not here: what a block looks like (index.blocks), which page is where (catalog).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from index.blocks import ALIGN, Block, Extent, Layout
from index.errors import DamageError, DiskFull
from index.failpoint import failpoint

SHARD_BYTES = 1 << 30  # a shard that has reached this is left as it is and the next one begun


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / "shards" / f"{shard:08d}.tok"


class ShardWriter:
    """Appends blocks behind the committed end. After a failed sync it refuses everything: what the system then holds is
    unknown, and only opening the index again reads it back from the disk."""

    def __init__(self, folder: Path, layout: Layout, committed: dict[int, int], first: int = 1) -> None:
        """committed: bytes of each shard; first: the lowest number a new shard may have, as none is ever used twice."""
        self.folder, self.layout, self.first = folder, layout, first
        self.ends = dict(committed)
        self._files: dict[int, int] = {}
        self._failed = False
        (folder / "shards").mkdir(exist_ok=True)
        for shard, path in shard_files(folder):
            if path.stat().st_size > self.ends.get(shard, 0):
                os.truncate(path, self.ends.get(shard, 0))  # what no catalog names does not exist

    def append(self, blocks: Iterable[Block], *, fresh: int = 0) -> list[Extent]:
        """Write blocks and sync them. They exist once the catalog says so.

        fresh: begin no block in a shard below this number. Raises DiskFull, with nothing acknowledged lost.
        """
        if self._failed:
            raise DiskFull(f"{self.folder}: an earlier write failed; open the index again to go on")
        extents, touched, shard = [], set(), self.first
        self._failed = True  # until all is well
        try:
            for block in blocks:
                shard = self._room(fresh)
                if shard not in self._files:
                    self._files[shard] = self._open(shard)
                offset = self.ends[shard]
                _write_all(self._files[shard], block.data, offset)
                self.ends[shard] = offset + len(block.data)
                touched.add(shard)
                extents.append(Extent(shard, offset, block.tokens, block.crc))
            failpoint("blocks written")
            for shard in touched:
                fdatasync(self._files[shard])
            failpoint("blocks synced")
            self._failed = False
        except OSError as error:
            raise DiskFull(
                f"{shard_path(self.folder, shard)}: {error.strerror or error}; what was added before is safe. "
                "Free some space and run the same command again"
            ) from error
        return extents

    def _room(self, fresh: int) -> int:
        """The shard to append to: the last, or a new one where that is full, or is not the file it should be."""
        shard = max([fresh, self.first, *self.ends])
        if shard in self.ends and shard not in self._files:
            try:
                _map(shard_path(self.folder, shard), self.layout, shard, self.ends[shard]).close()
            except (DamageError, FileNotFoundError):
                return shard + 1
        return shard + 1 if self.ends.get(shard, 0) >= SHARD_BYTES else shard

    def _open(self, shard: int) -> int:
        path = shard_path(self.folder, shard)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if shard not in self.ends:
            _write_all(descriptor, self.layout.shard_header(shard), 0)
            os.fsync(descriptor)
            sync_folder(path.parent)
            self.ends[shard] = ALIGN
        return descriptor

    def drop(self, shard: int) -> None:
        """Write to a shard no more, and know it no more."""
        self.first = max(self.first, shard + 1)
        del self.ends[shard]
        if shard in self._files:
            os.close(self._files.pop(shard))

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])


class Shards:
    """The committed blocks of one generation, mapped for reading. ends: {shard: committed bytes}.

    A shard that is cut short or not the file it should be is remembered as such, and so is one that has gone where
    `missing`; the blocks of the others are served. Raises FileNotFoundError where one has gone (the snapshot is out of
    date) and not `missing`, FormatError where a newer Octavo wrote it.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        ends: dict[int, int],
        before: Shards | None = None,
        *,
        missing: bool = False,
    ) -> None:
        self.folder, self.layout, self.ends = folder, layout, dict(ends)
        self.faults: dict[int, str] = {}
        self._maps: dict[int, mmap.mmap] = {}
        for shard, end in self.ends.items():
            if before is not None and before.ends.get(shard) == end and shard in before._maps:
                self._maps[shard] = before._maps[shard]
                continue
            path = shard_path(folder, shard)
            try:
                self._maps[shard] = _map(path, layout, shard, end)
            except DamageError as error:
                self.faults[shard] = str(error)
            except FileNotFoundError:
                if not missing:
                    raise
                self.faults[shard] = (
                    f"{path}: the file has gone; restore it, or delete its documents and add them again"
                )

    def data(self, shard: int) -> mmap.mmap:
        """The committed bytes of a shard. Raises DamageError where they are not there: to look beyond the end of a file
        that was cut short since it was mapped would end the process."""
        if shard in self.faults:
            raise DamageError(self.faults[shard])
        if shard not in self._maps:
            raise DamageError(f"{shard_path(self.folder, shard)}: the catalog does not know this shard")
        size = self._maps[shard].size()
        if size < self.ends[shard]:
            raise _cut_short(shard_path(self.folder, shard), size, self.ends[shard])
        return self._maps[shard]

    def address(self, shard: int) -> int:
        """Where in memory a shard's first byte lies; as long as this object lives. Raises as `data` does."""
        return np.frombuffer(self.data(shard), np.uint8).ctypes.data

    def will_need(self, shard: int, offset: int, size: int) -> None:
        """Ask the system to have some bytes of a shard read soon; nothing waits for them."""
        if hasattr(mmap, "MADV_WILLNEED") and offset >= 0 and offset + size <= self.ends[shard]:
            start = offset - offset % mmap.PAGESIZE
            self._maps[shard].madvise(mmap.MADV_WILLNEED, start, offset + size - start)

    def raw(self, page: int, extent: Extent) -> Block:
        """A block as it lies on the disk, sound or not, for copying. Raises DamageError where it is not there."""
        begin, end = self._bounds(page, extent)
        return Block(extent.tokens, extent.crc, self.data(extent.shard)[begin:end])

    def _bounds(self, page: int, extent: Extent) -> tuple[int, int]:
        path, begin = shard_path(self.folder, extent.shard), extent.offset
        end = begin + self.layout.block_bytes(extent.tokens)
        if begin % ALIGN or begin < ALIGN or extent.tokens < 0 or end > self.ends.get(extent.shard, 0):
            raise DamageError(f"{path}: the block of page {page} at offset {begin} reaches past the committed end")
        return begin, end

    def check_block(self, page: int, extent: Extent) -> None:
        """Raise DamageError unless header, payload and padding of a block are what was written."""
        view = memoryview(self.data(extent.shard))
        begin, end = self._bounds(page, extent)
        wrong = self.layout.check_block(view[begin:end], page, extent)
        if wrong is not None:
            path = shard_path(self.folder, extent.shard)
            raise DamageError(f"{path}: {wrong[1].format(begin + wrong[0])}")


def _map(path: Path, layout: Layout, shard: int, end: int) -> mmap.mmap:
    """The first `end` bytes of a shard. Raises DamageError, or FormatError, unless it is what this index wrote."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < max(end, ALIGN):
            raise _cut_short(path, size, end)
        data = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ)
    layout.check_shard(data[:ALIGN], shard, path)
    return data


def _cut_short(path: Path, size: int, end: int) -> DamageError:
    return DamageError(f"{path}: {size} bytes long, {end} were committed; restore the file, or run octavo check")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def fdatasync(descriptor: int) -> None:
    """Put the written bytes of a file on the disk; on macOS through the drive's cache as well."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
        return
    import fcntl

    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def sync_folder(folder: Path) -> None:
    """Make names just created in or removed from a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shard_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """(number, path) of the shard files that are there, named by a catalog or not."""
    for path in sorted((folder / "shards").glob("*.tok")):
        if path.stem.isdigit():
            yield int(path.stem), path
