"""Pairs that are no search: pictures with captions, and sentences with a similarity that people gave.

    captions     a folder of pictures with captions.txt, .csv, .tsv or .jsonl (image, caption), Karpathy's or COCO's
                 JSON, XM3600's captions.jsonl, XTD10's lists; or the hub's tables of image and caption (one or a list)
    sentences    a .tsv, .csv, .jsonl or .parquet file of sentence1, sentence2, score

Not here: what is measured on them (alignment).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from index.errors import OctavoError
from retriever.evaluation.tables import Row, Table, tables

IMAGE = ("image", "image-name", "filename", "file-name", "image-path", "img")
CAPTION = ("caption", "captions", "text", "sentences", "comment", "alt-text", "raw")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
_LISTS = re.compile(r"(?:test_)?(?:1k)?captions?_([a-z]{2})\.txt")  # XTD10: test_1kcaptions_de.txt


class Caption(NamedTuple):
    """A text and the name of its picture."""

    text: str
    image: str
    lang: str = ""


@dataclass
class Captioned:
    """images: name -> a path, or what the hub stores; captions: of them, in order."""

    name: str
    images: dict[str, Any] = field(default_factory=dict)
    captions: list[Caption] = field(default_factory=list)


class Sentences(NamedTuple):
    """Pairs with the similarity that people gave them."""

    name: str
    one: list[str]
    two: list[str]
    scores: list[float]


def sentences(path: Path) -> Sentences | None:
    """The pairs of a file; None where its columns are others. Raises OctavoError for a row that has no score."""
    if path.suffix not in (".tsv", ".csv", ".jsonl", ".parquet"):
        return None
    found: tuple[list[str], list[str], list[float]] = ([], [], [])
    for number, row in enumerate(_rows(path), 1):
        if not {"sentence1", "sentence2", "score"} <= row.keys():
            return None
        try:
            found[2].append(float(row["score"]))
        except (TypeError, ValueError):
            raise OctavoError(f"{path}, row {number}: {row['score']!r} is no score") from None
        found[0].append(str(row["sentence1"]))
        found[1].append(str(row["sentence2"]))
    return Sentences(path.stem, *found) if found[2] else None


def captioned(folder: Path) -> Captioned | None:
    """The pictures of a folder with their captions; None where it is no such folder. Raises OctavoError where captions
    name pictures that are not there."""
    name = folder.resolve().name
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json" and (captions := _from_json(path)):
            return _with_files(name, folder, captions)
        if path.stem.startswith(("captions", "results")) and path.suffix in (".txt", ".csv", ".tsv", ".jsonl"):
            captions = [caption for row in _rows(path) for caption in _from_row(row)]
            if captions:
                return _with_files(name, folder, captions)
    if captions := _from_lists(folder):
        return _with_files(name, folder, captions)
    return _from_tables(name, folder)


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix in (".jsonl", ".parquet"):
        yield from Table("", "", (path,)).rows()
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        mark = next((mark for mark in ("\t", "|", ",") if mark in first), "\t")
        if mark == ",":
            rows = csv.reader(file, skipinitialspace=True)
        else:
            rows = csv.reader(file, delimiter=mark, quoting=csv.QUOTE_NONE, skipinitialspace=True)
        names = [name.strip().lower().replace("_", "-") for name in next(rows, [])]
        for row in rows:
            yield dict(zip(names, row, strict=False))


def _from_row(row: Mapping[str, Any], lang: str = "") -> Iterator[Caption]:
    if "image/key" in row:  # XM3600: {"image/key", "en": {"caption": [...]}, ...}
        for language, given in row.items():
            if isinstance(given, dict) and "caption" in given:
                yield from (Caption(text, str(row["image/key"]), language) for text in given["caption"])
        return
    image = next((row[name] for name in IMAGE if isinstance(row.get(name), str)), None)
    language = str(row.get("language") or row.get("lang") or lang)
    if image is not None:
        yield from (Caption(text, image.split("#")[0], language) for text in _texts(row))


def _texts(row: Mapping[str, Any]) -> list[str]:
    given: Any = next((row[name] for name in CAPTION if row.get(name)), [])
    some = [given] if isinstance(given, str | dict) else given
    texts = [one["raw"] if isinstance(one, dict) else str(one) for one in some]
    return [text.strip() for text in texts if text.strip()]


def _from_json(path: Path) -> list[Caption]:
    """COCO's annotations, or Karpathy's splits (their test part)."""
    try:
        found = json.loads(path.read_text("utf-8"))
        images = found["images"]
        if "annotations" in found:
            names = {image["id"]: image["file_name"] for image in images}
            return [Caption(one["caption"].strip(), names[one["image_id"]]) for one in found["annotations"]]
        kept = [image for image in images if image.get("split", "test") == "test"]
        return [Caption(text, image["filename"]) for image in kept for text in _texts(image)]
    except (ValueError, KeyError, TypeError):
        return []


def _from_lists(folder: Path) -> list[Caption]:
    """XTD10: a list of picture names, and a list of captions a language, line by line."""
    names = next((path for path in sorted(folder.glob("*image_names.txt"))), None)
    if names is None:
        return []
    images = names.read_text("utf-8").split("\n")
    return [
        Caption(text.strip(), image.strip(), match[1])
        for path in sorted(folder.glob("*.txt"))
        if (match := _LISTS.fullmatch(path.name))
        for text, image in zip(path.read_text("utf-8").split("\n"), images, strict=False)
        if text.strip()
    ]


def _with_files(name: str, folder: Path, captions: Iterable[Caption]) -> Captioned:
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _PICTURES:
            files.setdefault(path.stem, path)
            files[path.name] = path
    found = Captioned(name)
    for caption in captions:
        file = files.get(Path(caption.image).name) or files.get(Path(caption.image).stem)
        if file is None:
            raise OctavoError(f"{folder}: there is a caption for {caption.image}, but no such picture")
        found.images[file.name] = file
        found.captions.append(caption._replace(image=file.name))
    return found


def _from_tables(name: str, folder: Path) -> Captioned | None:
    for some in tables(folder).values():
        table = next((table for table in some if table.split == "test"), some[0])
        if table.files[0].suffix not in (".parquet", ".arrow"):
            continue
        columns = table.columns
        if "image" not in columns or not columns & set(CAPTION) or "query" in columns:
            continue
        found = Captioned(name)
        for number, row in enumerate(table.rows()):
            image = str(row.get("filename") or row.get("image-id") or number)
            found.images.setdefault(image, row["image"])
            found.captions += [Caption(text, image, str(row.get("language") or "")) for text in _texts(row)]
        return found if found.captions else None
    return None
