"""Small question sets in the forms that are published: the column names and types of the real ones, pages of print."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

PAGES = {
    "harbour": "The harbour master counted ninety ships in March",
    "forest": "Oak and beech trees cover the northern valley",
    "bakery": "Bread is baked with salt, flour and warm water",
    "railway": "The night train to Vienna leaves from platform nine",
}
QUERIES = {
    "harbour": "How many ships did the harbour master count?",
    "forest": "Which trees cover the valley?",
    "bakery": "What is bread baked with?",
    "railway": "From which platform does the train to Vienna leave?",
}


def picture(text: str, kind: str = "PNG") -> bytes:
    """A page of print."""
    page = Image.new("RGB", (560, 320), "white")
    font = ImageFont.load_default(26)
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 32:
            lines.append("")
        lines[-1] += f"{word} "
    ImageDraw.Draw(page).multiline_text((30, 40), "\n".join(lines), "black", font, spacing=14)
    buffer = io.BytesIO()
    page.save(buffer, kind)
    return buffer.getvalue()


def images() -> list[dict[str, Any]]:
    """The pages as the hub stores pictures; one of them a JPEG."""
    kinds = {"forest": "JPEG"}
    return [{"bytes": picture(text, kinds.get(name, "PNG")), "path": None} for name, text in PAGES.items()]


def parquet(path: Path, columns: Mapping[str, Sequence[Any]], types: Mapping[str, Any] | None = None) -> None:
    """A table as the hub stores it, with the types of the hub's features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: _array(name, values, types or {}) for name, values in columns.items()}), path)


def arrow(folder: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A table as `Dataset.save_to_disk` leaves it."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    table = pa.table({name: _array(name, values, {}) for name, values in columns.items()})
    file = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file}], "_split": None}))
    (folder / "dataset_info.json").write_text("{}")


def _array(name: str, values: Sequence[Any], types: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array(values, types.get(name, image if name == "image" else None))


def front_matter(folder: Path, configs: Mapping[str, str], split: str = "test") -> None:
    """A README that says where the tables are. configs: name -> pattern."""
    lines = ["---", "license: mit", "configs:"]
    for name, pattern in configs.items():
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {pattern}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "", "# A data set"]))


def beir(folder: Path, *, language: str | None = None, prefix: str = "", shard: str = "test-00000-of-00001") -> Path:
    """ViDoRe v1 as mteb has it, v2 (with `language`) and JinaVDR (prefix `en/`): ids are numbers, pages pictures.

    Query 3 is answered by page 3 well and by page 0 somewhat; query 4 by none."""
    asked = [*QUERIES.values(), "What is on none of the pages?"]
    queries = {"query-id": list(range(5)), "query": asked}
    if language:
        queries["language"] = [language] * 5
    parquet(folder / f"{prefix}queries" / f"{shard}.parquet", queries)
    parquet(folder / f"{prefix}corpus" / f"{shard}.parquet", {"corpus-id": list(range(4)), "image": images()})
    judged = {"query-id": [0, 1, 2, 3, 3, 4], "corpus-id": [0, 1, 2, 3, 0, 1], "score": [1, 1, 1, 2, 1, 0]}
    parquet(folder / f"{prefix}qrels" / f"{shard}.parquet", judged)
    return folder


def plain(folder: Path, *, where: str = "pages") -> Path:
    """A folder of one's own: pages/, queries.jsonl, qrels.tsv."""
    (folder / where).mkdir(parents=True)
    for name, text in PAGES.items():
        (folder / where / f"{name}.png").write_bytes(picture(text))
    rows = [{"id": f"q-{name}", "text": text, "lang": "en"} for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"q-{name}\t{name}.png#0\t1\n" for name in QUERIES]
    (folder / "qrels.tsv").write_text("query-id\tpage-id\trelevance\n" + "".join(lines))
    return folder
