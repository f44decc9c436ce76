"""Make the index of a format that every later Octavo has to read: `python tests/golden_index.py`, once a format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pages import add, content_of, origin_of, page_of, text_search, vectors_of, visual_search

from index import Index
from index.catalog import FILE
from index.codec import decode

DATA = Path(__file__).parent / "data"
FOLDER = DATA / "index_format_4"  # coded in 4 bits and pooled, as those of formats 2 and 3; that of format 1 is plain


def answers(index: Index) -> dict[str, Any]:
    """What the index says, as JSON holds it: pages with sums of their vectors, and hits of both lanes."""
    with index.snapshot() as snapshot:
        rows = snapshot.pages(snapshot.state.ids.tolist())
        pages = [
            [page, row["content"], row["number"], row["path"], row["metadata"], snapshot.text(page)[0]]
            + [float(np.abs(decode(snapshot.gather([page])), dtype=np.float64).sum().round(6))]
            for page, row in sorted(rows.items())
        ]
        visual = [
            [content, number, round(score, 4)]
            for content, number, score in visual_search(snapshot, vectors_of("b", 2, 4))
        ]
    text = [[content, number] for content, number, _ in text_search(index, "Straße 東京 stone")]
    return {"pages": pages, "visual": visual, "text": text}


def main() -> None:
    """Write the folder."""
    index = Index.create(FOLDER, dim=16, fingerprint={"name": "seed"}, stage="pooled", codec="int4", pool=2)
    with index.writing() as writer:
        add(writer, "a", 2, metadata={"year": 2020, "naïve": ["x", None]})
        add(writer, "b", [page_of("b", 1, text="Die Straße in 東京都"), page_of("b", 2), page_of("b", 3, tokens=0)])
        add(writer, "c", 1)
        add(writer, "d", 1)
        row = writer.document(content_of("c"))
        assert row is not None
        writer.delete([row["id"]])
        writer.fail(content_of("bad"), origin_of("bad"), "damaged", "a reason")
    (FOLDER / "expected.json").write_text(json.dumps(answers(index), indent=1, ensure_ascii=False))
    index.close()
    for left in ("-wal", "-shm"):
        (FOLDER / f"{FILE}{left}").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
