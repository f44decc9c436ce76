"""Shards: blocks come back as they went in, a full disk loses nothing, a failed sync ends the writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import DIM, add, asked, content_of, dump, filled, origin_of, page_of, vectors_of

from index import Index, PageRecord, store, upkeep
from index.blocks import ALIGN, Extent, Layout, walk_block
from index.codec import decode, encode
from index.errors import DamageError, DiskFull, FormatError
from index.ragged import Codes, offsets_of
from index.store import Shards, ShardWriter

LAYOUT = Layout(bytes(range(16)), DIM, "int8", DIM)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from(["int8", "fp16"]))
def test_blocks_come_back_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], codec: str
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    layout = Layout(bytes(16), DIM, codec, 3)
    pages = [vectors_of("page", number, count) for number, count in enumerate(tokens)]
    pooled = [np.full(3, number / 8, np.float32) for number in range(len(pages))]
    writer = ShardWriter(folder, layout, {})
    extents = writer.append(
        layout.block(i, page, pool) for i, (page, pool) in enumerate(zip(pages, pooled, strict=True))
    )
    ends = dict(writer.ends)
    writer.close()
    shards = Shards(folder, layout, ends)
    assert (folder / "shards" / "00000001.tok").stat().st_size == ends[1]
    data, at = memoryview(shards.data(1)), ALIGN
    for i, extent in enumerate(extents):
        assert extent.offset == at and extent.offset % ALIGN == 0
        assert walk_block(data, at) == layout.block_bytes(tokens[i])
        at += layout.block_bytes(tokens[i])
        shards.check_block(i, extent)
        expected, expected_scales = encode(pages[i], codec)
        parts = expected.tobytes() + (b"" if expected_scales is None else expected_scales.tobytes())
        parts += pooled[i].astype("<f2").tobytes()
        assert bytes(data[extent.offset + ALIGN :][: len(parts)]) == parts
        with pytest.raises(DamageError, match=f"block header at offset {extent.offset} is not what was written"):
            shards.check_block(i + 1, extent)
    assert at == ends[1]


@pytest.mark.parametrize("extent", [(1, 0, 5), (1, 65, 5), (1, 64, -1), (1, 64, 10**9), (1, 1 << 40, 1), (2, 64, 5)])
def test_an_extent_that_points_nowhere_is_damage(tmp_path: Path, extent: tuple[int, int, int]) -> None:
    writer = ShardWriter(tmp_path, LAYOUT, {})
    writer.append([LAYOUT.block(1, vectors_of("a", 1, 5), np.zeros(DIM))])
    shards = Shards(tmp_path, LAYOUT, writer.ends)
    writer.close()
    for look in (shards.raw, shards.check_block):
        with pytest.raises(DamageError):
            look(1, Extent(*extent, 0))


def test_a_shard_of_the_future_is_refused_with_what_to_do(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, LAYOUT, {})
    writer.append([LAYOUT.block(1, vectors_of("a", 1, 5), np.zeros(DIM))])
    writer.close()
    path = tmp_path / "shards" / "00000001.tok"
    data = bytearray(path.read_bytes())
    data[8:12] = (2).to_bytes(4, "little")
    data[60:64] = zlib.crc32(bytes(data[:60])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="shard format 2, this Octavo reads up to 1; install a newer one"):
        Shards(tmp_path, LAYOUT, writer.ends)


def test_a_full_shard_is_left_and_the_next_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 1000)
    index = filled(tmp_path / "index", "abcdef", 3)
    sizes = [path.stat().st_size for _, path in store.shard_files(index.folder)]
    assert len(sizes) > 3
    assert all(1000 <= size < 1000 + LAYOUT.block_bytes(5) for size in sizes[:-1])
    assert len(dump(index)) == 18
    index.close()


BAD_PAGES = {
    "NaN": np.full((2, DIM), np.nan, np.float32),
    "Inf": np.array([[np.inf] + [0.0] * (DIM - 1)], np.float32),
    "both signs": np.array([[np.inf] + [0.0] * (DIM - 1), [-np.inf] + [0.0] * (DIM - 1)], np.float32),
    "beyond half precision": np.full((1, DIM), 1e6, np.float32),
    "another dimension": np.zeros((2, DIM + 1), np.float32),
    "one axis": np.zeros(DIM, np.float32),
}


@pytest.mark.parametrize("name", list(BAD_PAGES))
def test_what_cannot_be_stored_is_refused_and_nothing_of_its_batch_is(tmp_path: Path, name: str) -> None:
    index = filled(tmp_path / "index", "a")
    before = dump(index)
    size = (index.folder / "shards" / "00000001.tok").stat().st_size
    vectors = BAD_PAGES[name]
    with index.writing() as writer:
        document, _ = writer.begin(content_of("bad"), origin_of("bad"), page_count=2)
        bad = PageRecord(2, vectors, np.zeros((len(vectors), 4), np.float32))
        with pytest.raises(ValueError, match="page 2|within half precision"):
            writer.add_pages(document, [page_of("bad", 1), bad])
        assert writer.begin(content_of("bad"), origin_of("bad"))[1] == set()
        writer.add_pages(document, [page_of("bad", 1)])  # the writer goes on
        writer.delete([document])
    assert dump(index) == before
    assert (index.folder / "shards" / "00000001.tok").stat().st_size == size + LAYOUT.block_bytes(5)
    index.close()


@pytest.mark.parametrize("single", [np.full(DIM, np.nan), np.full(DIM, 1e6), np.full(DIM, -np.inf), np.zeros(DIM + 1)])
def test_a_pooled_vector_that_cannot_be_stored_is_refused(single: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite and within half precision"):
        LAYOUT.block(1, vectors_of("a", 1, 2), single)


def test_odd_pages_are_stored_and_stay_finite(tmp_path: Path) -> None:
    rows = {
        1: np.zeros((0, DIM), np.float32),
        2: np.zeros((3, DIM), np.float32),
        3: vectors_of("one", 1, 1),
        4: np.full((2, DIM), 65_504, np.float32),
        5: np.full((2, DIM), 1e-42, np.float32),
        6: np.concatenate([vectors_of("one", 1, 1), -vectors_of("one", 1, 1)]),
    }
    index = filled(tmp_path / "index", "", stage="pooled")
    boxes = np.array([[np.nan, -1, 2, np.inf]], np.float32)
    with index.writing() as writer:
        add(writer, "odd", [PageRecord(n, v, np.repeat(boxes, len(v), axis=0), "a b") for n, v in rows.items()])
    with index.snapshot() as snapshot:
        for page, (number, vectors) in zip(snapshot.state.ids.tolist(), rows.items(), strict=True):
            codes = snapshot.gather([page])
            assert np.isfinite(decode(codes)).all()
            np.testing.assert_allclose(decode(codes), vectors, rtol=0.01, atol=0.01)
            assert np.isfinite(snapshot.pooled([page])).all(), number
            np.testing.assert_array_equal(snapshot.text(page)[2], np.repeat([[0, 0, 1, 1]], len(vectors), axis=0))
        assert snapshot.gather([]).values.shape == (0, DIM)
        stage = snapshot.first_stage.search(asked(vectors_of("one", 1, 1)), 10)[0]
        assert 1 not in stage[1] and np.isfinite(stage[0]).all()
    assert upkeep.check(index) == []
    index.close()


FULL = """
import resource, signal, sys
from pathlib import Path
from pages import add, filled, page_of
from index import Index, errors
folder = Path(sys.argv[1])
index = filled(folder, "")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
added = 0
try:
    for number in range(200):
        with index.writing() as writer:
            add(writer, f"{number}", [page_of(f"{number}", 1, tokens=40)])
        added += 1
        print(number, flush=True)
except errors.DiskFull as error:
    print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with index.writing() as writer:
    add(writer, "after", 2)
print("after", flush=True)
index.close()
"""


@pytest.mark.parametrize("limit", [20_000, 50_000, 120_000, 200_000, 300_001])
def test_a_full_disk_loses_nothing_and_needs_no_repair(tmp_path: Path, limit: int) -> None:
    folder = tmp_path / "index"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, str(folder), str(limit)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    *acknowledged, error, last = child.stdout.splitlines()
    assert last == "after"
    assert str(folder) in error and "again" in error
    index = Index(folder)
    found = {page["content"] for page in dump(index)}
    assert {content_of(number) for number in acknowledged} <= found
    assert content_of("after") in found
    assert len(found) <= len(acknowledged) + 2
    assert upkeep.check(index) == []
    index.close()


def test_a_failed_sync_ends_the_writer_and_not_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(tmp_path / "index", "a")
    before = dump(index)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with index.writing() as writer:
        document, _ = writer.begin(content_of("b"), origin_of("b"), page_count=1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(DiskFull, match=r"00000001\.tok: Input/output error; what was added before is safe"):
                writer.add_pages(document, [page_of("b", 1)])
        with pytest.raises(DiskFull, match="an earlier write failed; open the index again"):
            writer.add_pages(document, [page_of("b", 1)])  # a second sync would say all is well
    assert dump(index) == before
    with index.writing() as writer:
        add(writer, "b", 1)
    assert len(dump(index)) == 3
    assert upkeep.check(index) == []
    index.close()


def test_what_a_killed_writer_left_behind_is_cleared_away(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", "a")
    shards = tmp_path / "index" / "shards"
    orphan, tail, note = shards / "00000042.tok", shards / "00000001.tok", shards / "note.txt"
    orphan.write_bytes(b"half a block")
    note.write_text("not ours")
    size = tail.stat().st_size
    with tail.open("ab") as file:
        file.write(b"half a block")
    (tmp_path / "index" / "cache").mkdir()
    (tmp_path / "index" / "cache" / "pooled.tmp").write_bytes(b"half")
    assert upkeep.check(index) == []
    assert len(dump(index)) == 2
    with index.writing() as writer:
        assert (orphan.exists(), tail.stat().st_size, note.exists()) == (False, size, True)
        add(writer, "b", 1)
    assert upkeep.check(index) == []
    index.close()


def test_views_of_pages_lie_in_the_map(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", "a")
    with index.snapshot() as snapshot:
        page = snapshot.state.ids.tolist()[0]
        extent, start = snapshot.extent(page), snapshot.state.shards.address(1)
        views = snapshot.views([page, page])
        assert views.addresses.tolist() == [start + extent.offset + ALIGN] * 2
        assert views.lengths.tolist() == [5, 5]
        assert views.scales is not None and views.scales.tolist() == [start + extent.offset + ALIGN + 5 * DIM] * 2
        codes = snapshot.gather([page, page])
        assert isinstance(codes, Codes) and codes.offsets.tolist() == offsets_of([5, 5]).tolist()
        assert codes.scales is not None and codes.scales.dtype == np.float16
        for pages in ([10**6], [page, 0], [-1]):
            with pytest.raises(KeyError):
                snapshot.gather(pages)
    index.close()
