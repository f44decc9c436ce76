"""The tables of a data set that lies in a folder as the hub, `save_to_disk` or BEIR leaves it, read a batch at a time.

A table is (config, split) and its files: parquet, arrow, JSON lines or tab separated. The README's front matter says
which they are; where there is none, folders are configs and file names begin with the split, as the hub reads it.
What the columns mean is not known here (see hub).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import OctavoError

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".tsv")
Row = dict[str, Any]
_SHARD = re.compile(r"(.+?)(?:[-_.]\d+(?:-of-\d+)?)?(?:-[0-9a-f]{16})?$")  # test-00000-of-00002, train-0000-a1b2...
_BATCH = 64


@dataclass(frozen=True)
class Table:
    """config: "" for a data set with one; files: in order."""

    config: str
    split: str
    files: tuple[Path, ...]

    @property
    def columns(self) -> set[str]:
        """The names of the columns, as `rows` gives them."""
        return set(next(self.rows(), {}))

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Row after row; column names with `-` for `_` (query_id is query-id) and without the leading one of `_id`.

        Raises OctavoError for a file that is no table."""
        for file in self.files:
            try:
                for row in _READERS[file.suffix](file):
                    named = {name.strip("_").replace("_", "-"): value for name, value in row.items()}
                    yield named if columns is None else {name: named.get(name) for name in columns}
            except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
                raise OctavoError(f"{file}: this is no table that can be read: {error}") from error


def tables(folder: Path) -> dict[str, list[Table]]:
    """The tables under a folder: config -> its splits."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith(("cache-", "."))
    )
    declared = _declared(folder)
    found: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        inside = file.relative_to(folder).as_posix()
        places = [key for key, pattern in declared if pattern.fullmatch(inside)] if declared else [_place(file, folder)]
        for place in places:
            found.setdefault(place, []).append(file)
    configs: dict[str, list[Table]] = {}
    for (config, split), paths in found.items():
        configs.setdefault(config, []).append(Table(config, split, tuple(paths)))
    return configs


def _place(file: Path, folder: Path) -> tuple[str, str]:
    """Config and split of a file by where it lies: corpus/test-0.parquet, fr/corpus/test/data-0.arrow, qrels/test.tsv,
    corpus.jsonl, data/test-0.parquet."""
    parts = list(file.relative_to(folder).parts[:-1])
    stem = _SHARD.fullmatch(file.stem)
    split = stem[1] if stem else file.stem
    if (file.parent / "state.json").exists():  # save_to_disk: the folder is the split, or the table itself
        split = parts.pop() if (file.parent.parent / "dataset_dict.json").exists() and parts else "train"
    elif file.suffix == ".jsonl" and not parts:
        parts, split = [split], "test"
    return "/".join(part for part in parts if part != "data"), split


def _declared(folder: Path) -> list[tuple[tuple[str, str], re.Pattern[str]]]:
    """((config, split), files) of the `configs` in a README's front matter."""
    if not (folder / "README.md").is_file():
        return []
    repocard = needed("huggingface_hub.repocard", "eval")
    try:
        configs = (repocard.metadata_load(folder / "README.md") or {}).get("configs") or []
        found = []
        for config in configs:
            for place in config["data_files"]:
                paths = place["path"] if isinstance(place["path"], list) else [place["path"]]
                found += [((config["config_name"], place["split"]), _glob(path)) for path in paths]
    except Exception:  # what YAML or its author got wrong: then where files lie has to tell
        return []
    return [item for item in found if item[0][0]]


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts))


def _parquet(file: Path) -> Iterator[Row]:
    arrow = needed("pyarrow.parquet", "eval")
    with arrow.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def _arrow(file: Path) -> Iterator[Row]:
    arrow = needed("pyarrow", "eval")
    with arrow.memory_map(str(file)) as source:
        try:
            batches = iter(arrow.ipc.open_stream(source))
        except arrow.ArrowInvalid:
            reader = arrow.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield from batch.slice(start, _BATCH).to_pylist()


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a line is {line[:40]!r}; an object is expected")
                yield row


def _tsv(file: Path) -> Iterator[Row]:
    """Judgements, with a header or without one."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, fields in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)):
            if not fields or (number == 0 and not fields[-1].strip().lstrip("-").isdecimal()):
                continue
            if len(fields) == 4:  # trec_eval's: query, 0, page, grade
                del fields[1]
            if len(fields) != 3:
                raise ValueError(f"line {number + 1} has {len(fields)} fields; query, page and grade are expected")
            yield dict(zip(("query-id", "corpus-id", "score"), fields, strict=True))


_READERS = {".parquet": _parquet, ".arrow": _arrow, ".jsonl": _jsonl, ".tsv": _tsv}


def needed(module: str, extra: str) -> Any:
    """An optional dependency. Raises OctavoError that says how to get it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise OctavoError(f"this needs {package}, which is not installed: pip install 'octavo[{extra}]'") from error
