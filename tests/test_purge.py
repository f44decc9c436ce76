"""Compaction: purged content is in no file, staged pages and ids stay, and a reader that is in the way is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pages import add, content_of, dump, filled, origin_of, page_of, text_search, vectors_of

from index import Index, upkeep
from index.codec import decode
from index.errors import OctavoError

CANARY = "zebrafinch quagga"


def canaries(folder: Path, vector: bytes) -> set[str]:
    """What of a deleted document is in any file, raw."""
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    lowered = data.lower()
    return {word for word in [*CANARY.split(), "secretfile"] if word.encode() in lowered} | (
        {"vector"} if vector in data else set()
    )


@pytest.mark.parametrize("stage", ["exact", "pooled"])
def test_purge_leaves_no_byte_of_what_was_deleted(tmp_path: Path, stage: str) -> None:
    index = filled(tmp_path / "index", "abc", stage=stage, codec="fp16")
    secret = page_of("secret", 1, text=CANARY, tokens=4)
    vector = secret.vectors[2].astype("<f2").tobytes()
    with index.writing() as writer:
        add(writer, "secretfile", [secret, page_of("secret", 2)], metadata={"note": "quagga"})
    assert text_search(index, "quagga") != []
    everything = {*CANARY.split(), "secretfile", "vector"}
    assert canaries(index.folder, vector) == everything
    with index.writing() as writer:
        writer.delete([row["id"] for row in [writer.document(content_of("secretfile"))] if row])
    assert "vector" in canaries(index.folder, vector)
    assert text_search(index, "quagga") == []
    before = dump(index)
    upkeep.compact(index, purge=True)
    assert canaries(index.folder, vector) == set()
    assert dump(index) == before
    assert upkeep.check(index) == []
    index.close()


def test_purge_says_so_when_a_reader_keeps_the_log(tmp_path: Path) -> None:
    index, reader = filled(tmp_path / "index", "ab"), Index(tmp_path / "index")
    with index.writing() as writer:
        writer.delete([1])
    with reader.snapshot(), pytest.raises(OctavoError, match="another process is reading"):
        upkeep.compact(index, purge=True)
    upkeep.compact(index, purge=True)
    reader.close()
    index.close()


def test_compaction_keeps_staged_pages_and_ids(tmp_path: Path) -> None:
    index = filled(tmp_path / "index", "abc", 4)
    with index.snapshot() as snapshot:  # a state that does not know of what is staged next
        ids = [
            page
            for page, row in snapshot.pages(snapshot.state.ids.tolist()).items()
            if row["content"] != content_of("a")
        ]
    with index.writing() as writer:
        document, _ = writer.begin(content_of("staged"), origin_of("staged"), title="Title staged", page_count=3)
        writer.add_pages(document, [page_of("staged", number) for number in (1, 2)])
    assert upkeep.check(index) == []
    source = tmp_path / "there"
    source.touch()
    with index.writing() as writer:
        writer.db.execute("PRAGMA user_version")
        writer.begin(content_of("staged"), origin_of("staged")._replace(path=str(source)), title="Title staged")
        writer.delete([1])
    assert upkeep.compact(index)["bytes_after"] > 0
    assert upkeep.check(index) == []
    with index.snapshot() as snapshot:
        assert snapshot.state.ids.tolist() == ids
    with index.writing() as writer:
        assert writer.begin(content_of("staged"), origin_of("staged"))[1] == {1, 2}
        add(writer, "staged", 3)
    with index.snapshot() as snapshot:
        (row,) = [
            r
            for r in snapshot.pages(snapshot.state.ids.tolist()).values()
            if (r["content"], r["number"]) == (content_of("staged"), 2)
        ]
        expected = vectors_of("staged", 2, 5)
        np.testing.assert_allclose(decode(snapshot.gather([row["id"]])), expected, atol=0.01)
    index.close()
