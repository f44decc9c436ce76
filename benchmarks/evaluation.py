"""What `octavo eval` says of the encoder in the box on the development sets: every mode, codec and first stage.

    python benchmarks/evaluation.py [NAME ...] [--again]

Without names all of SETS, the cheap ones first. A set is measured by the command itself and kept in
results/eval_NAME.json, whole sets with the value of each query, for `octavo compare`. What was measured with the
weights as they are now is not measured again, so a killed run goes on; indexes are kept too. At the end README's
tables are printed and results/evaluation.svg is drawn, of all the files. `xquad_de>en` has German questions on the
English pages; of xquad only the second half of the pages is asked for, as the head was trained on the first.
`-pixels` sets are given as pictures alone, beside BM25 over what the reader in the package sees in them; `-scans`
sets are pages drawn from a set, so that rapidocr, where it is installed, can be there too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pymupdf
from _sets import DATA, HALF

from retriever import load_encoder
from retriever.cli import main as octavo
from retriever.encoders.box import tesseract
from retriever.evaluation.plots import Panel, Point, drawing
from retriever.evaluation.results import table

RESULTS = Path(__file__).parent / "results"
WORK = Path("~/.cache/octavo-bench/evaluation").expanduser()
MEASURE = "ndcg@5"
MODES = ("--mode", "hybrid", "--mode", "visual", "--baseline", "layer")
EXACT = ("--candidates", "exact")
ALONE = (*EXACT, "--mode", "text", *MODES)
CODECS = ("--sweep", "--pool", "1", *ALONE)
STAGES = (*(f for s in ("codes", "rows", "pooled") for f in ("--candidates", s)), *MODES[:4])
SCANS = (*EXACT, "--pixels-only", "--baseline", "ocr", *MODES)
PIXELS = (*SCANS, "--mode", "text")
ACROSS = (*EXACT, *MODES)
SHOWN = (("int8", "exact", "hybrid"), ("int8", "exact", "visual"), ("text",), ("the text layer",))
STAGED = tuple(("int8", stage, mode) for mode in ("hybrid", "visual") for stage in ("exact", "codes", "rows", "pooled"))
COSTS = (
    ("bytes_a_page", "what a page takes on disk", "bytes"),
    ("ms_a_query_cpu", "what a query takes of one core", "ms"),
)
READ = ("en", "de", "es", "ru", "el", "tr", "vi", "zh", "ro")
OTHER = {"ar": "Arabic", "hi": "Devanagari", "th": "Thai"}  # in pictures through tesseract alone
XQUAD = (*READ, *OTHER)


class Part(NamedTuple):
    """Of the set `name` the document whose name begins with `own`, or `pages` pages drawn from all of them. What is
    asked of it: at most `most` questions of its pages from `first` on, or of the same pages in the document `asked`."""

    name: str
    own: str = ""
    pages: int = 0
    options: tuple[str, ...] = CODECS
    most: int | None = None
    asked: str = ""
    first: int = 0


def spoken(own: str, asked: str = "", options: tuple[str, ...] = ALONE) -> Part:
    """The pages of one language, and questions in it or in another, of the pages that the head was not trained on."""
    return Part("xquad_pages", f"xquad_{own}.", options=options, asked=f"xquad_{asked or own}.", first=HALF)


WHOLE = {"piaf_pages": None, "jaquad_pages": None, "ohr_bench": None, "debian_headings": 210}
"""Set -> how many of its questions, None for all."""
FOUND = program.scripts if (program := tesseract.installed()) else []
SETS = {
    **{name: Part(name, most=most) for name, most in WHOLE.items()},
    **{f"xquad_{language}": spoken(language) for language in XQUAD},
    **{f"{name}-stages": Part(name, options=STAGES, most=most) for name, most in WHOLE.items()},
    **{f"{name}-pixels": Part(name, options=PIXELS, most=most) for name, most in WHOLE.items()},
    **{
        f"xquad_{language}-pixels": spoken(language, options=PIXELS)
        for language in (*READ, *(one for one, script in OTHER.items() if script in FOUND))
    },
    **{
        f"xquad_{asked}>{own}": spoken(own, asked, ACROSS)
        for language in XQUAD[1:]
        for asked, own in ((language, "en"), ("en", language))
    },
    **{f"{name}-scans": Part(name, pages=60, options=SCANS) for name in ("piaf_pages", "ohr_bench")},
}


def cut(part: Part, folder: Path) -> Path:
    """A part of a set with the questions that it answers, as a set of its own; a whole set where it lies."""
    source = DATA / part.name
    if not part.own and not part.pages:
        return source
    rows = [line.split("\t") for line in (source / "qrels.tsv").read_text("utf-8").splitlines()[1:]]
    rows = [
        [q, part.own + page.removeprefix(part.asked), grade] for q, page, grade in rows if page.startswith(part.asked)
    ]
    rows = [row for row in rows if int(row[1].rpartition("#")[2]) >= part.first]
    pages = sorted({row[1] for row in rows})
    if part.pages:
        pages = sorted(random.Random(0).sample(pages, part.pages))
    if part.pages and (folder / "queries.jsonl").exists():  # drawn before: the same bytes, so the same indexes
        return folder
    (folder / "pdf").mkdir(parents=True, exist_ok=True)
    place = _copy(source, folder, pages) if part.pages else _link(source, folder, part.own)
    kept = [[query, place.get(page, page), grade] for query, page, grade in rows if page in set(pages)]
    known = {query for query, _, _ in kept}
    lines = (source / "queries.jsonl").read_text("utf-8").splitlines()
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tpage-id\trelevance", *map("\t".join, kept), ""]), "utf-8")
    (folder / "queries.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["id"] in known), "utf-8")
    return folder


def _link(source: Path, folder: Path, prefix: str) -> dict[str, str]:
    for path in (source / "pdf").glob(f"{prefix}*"):
        shutil.copy(path, folder / "pdf" / path.name)
    return {}


def _copy(source: Path, folder: Path, pages: Sequence[str]) -> dict[str, str]:
    """Documents of those pages alone; the names of the pages there -> here."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for page in pages:
        name, _, number = page.rpartition("#")
        numbers[name].append(int(number))
    for name, wanted in numbers.items():
        with pymupdf.open(source / "pdf" / name) as document:
            document.select(sorted(wanted))
            document.save(folder / "pdf" / name, garbage=3)
    return {f"{name}#{n}": f"{name}#{i}" for name, wanted in numbers.items() for i, n in enumerate(sorted(wanted))}


def key(system: dict[str, Any]) -> tuple[str, ...]:
    """What tells systems of one encoder apart."""
    if system["mode"] in ("hybrid", "visual"):
        return system["codec"], system["candidates"], system["mode"]
    return (system["encoder"] if system["mode"] == "baseline" else system["mode"],)


def slim(document: dict[str, Any], keep: bool) -> dict[str, Any]:
    """A result file whose `systems` has means, costs and funnel of all; where `keep`, with the value of each query for
    SHOWN and the baselines."""
    found = {m: {row["system"]: row for row in table(document["results"], m)[::-1]} for m in document["measures"]}
    every, kept = [], []
    for result in document["results"]:
        system = result["system"]
        means = {m: {k: round(found[m][system["label"]][k], 4) for k in ("mean", "low", "high")} for m in found}
        every.append({"system": system, "means": means, "cost": result["cost"], "funnel": result["funnel"]})
        if keep and (key(system) in SHOWN or system["mode"] == "baseline"):
            values = {MEASURE: {q: round(v, 4) for q, v in result["values"][MEASURE].items()}}
            left = {k: v for k, v in result.items() if k not in ("failures", "cost", "funnel")}
            kept.append(left | {"values": values})
    return document | {"measures": [MEASURE], "results": kept, "systems": every}


def measure(name: str, work: Path) -> None:
    """Measure a set by the command and keep what it says."""
    part = SETS[name]
    options = [*part.options, *(("--queries", str(part.most)) if part.most else ())]
    if part.pages and importlib.util.find_spec("rapidocr"):
        options += ["--baseline", "rapidocr"]
    source, report = cut(part, work / "sets" / name), work / name
    if octavo(["eval", str(source), *options, "--report", str(report), "--cache", str(work / "cache")]):
        sys.exit(f"{name}: not measured")
    whole = json.loads((report / "eval.json").read_text("utf-8"))
    found = slim(whole, keep=name in WHOLE) | {"command": ["octavo", "eval", name, *options]}
    place(name).write_text(json.dumps(found) + "\n", "utf-8")


def place(name: str) -> Path:
    """Where what was measured on a set is kept."""
    return RESULTS / f"eval_{name}.json"


def measured(weights: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Set -> its file, of those that were measured with these weights of the encoder."""
    found = {name: json.loads(place(name).read_text("utf-8")) for name in SETS if place(name).exists()}
    return {name: one for name, one in found.items() if one["encoder"]["weights"] == weights}


def systems(*files: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The systems of some files."""
    return {key(one["system"]): one for file in files for one in file["systems"]}


def rows(found: dict[str, dict[tuple[str, ...], dict[str, Any]]], columns: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows of Markdown, a set each: nDCG@5 of the columns' systems, the best in bold; half of the widest interval."""
    yield f"| set | {' | '.join(' '.join(column) for column in columns)} | +- |"
    for name, every in found.items():
        means = [every[column]["means"][MEASURE] if column in every else None for column in columns]
        best = max(one["mean"] for one in means if one)
        cells = ["-" if one is None else f"{one['mean']:.3f}" for one in means]
        cells = [f"**{cell}**" if one and one["mean"] == best else cell for cell, one in zip(cells, means, strict=True)]
        spread = max((one["high"] - one["low"]) / 2 for one in means if one)
        yield f"| {name} | {' | '.join(cells)} | {spread:.3f} |"


def averaged(found: Sequence[dict[tuple[str, ...], dict[str, Any]]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """The systems of several sets, by the means of what was measured on each."""
    some = {system: [every[system]["means"][MEASURE] for every in found] for system in found[0]}
    means = {system: {k: float(np.mean([row[k] for row in each])) for k in each[0]} for system, each in some.items()}
    return {system: {"means": {MEASURE: row}} for system, row in means.items()}


def points(found: Sequence[dict[tuple[str, ...], dict[str, Any]]], cost: str) -> Iterator[Point]:
    """The systems that all sets have, by their means over the sets."""
    for system, one in found[0].items() if found else ():
        some = [every[system] for every in found if system in every]
        if len(some) < len(found) or cost not in one["cost"] or (cost == "bytes_a_page" and len(system) == 1):
            continue
        quality = float(np.mean([one["means"][MEASURE]["mean"] for one in some]))
        costs = [value["p50"] if isinstance(value := one["cost"][cost], dict) else value for one in some]
        kind, label = system[0] if len(system) > 1 else "BM25", one["system"]["label"]
        yield Point(label, float(np.mean(costs)), quality, quality, quality, kind, system[-1] == "visual")


def show(files: dict[str, dict[str, Any]]) -> None:
    """Print the tables of README, and draw its plot of the sets that were measured with every first stage."""
    scans = {name: systems(file) for name, file in files.items() if SETS[name].pages}
    plain, swept, seen, across = (
        {name: systems(file) for name, file in files.items() if SETS[name].options in options}
        for options in ((CODECS, ALONE), (CODECS,), (PIXELS,), (ACROSS,))
    )
    both = (*scans.values(), *seen.values())
    readers = dict.fromkeys(one for every in both for one in every if one[0].startswith("OCR"))
    other = {f"xquad_{language}-pixels" for language in XQUAD if language not in READ}
    for some, kind in ((plain, ""), (seen, "pixels"), (across, ">en"), (across, "xquad_en>")):
        names = {name for name in some if name in SETS and SETS[name].own and kind in name}
        for which in filter(None, (names - other, names & other)):
            some[f"mean of {len(which)} languages of xquad {kind}"] = averaged([some[name] for name in sorted(which)])
    staged = {n: systems(files[n], files[f"{n}-stages"]) for n in WHOLE if n in files and f"{n}-stages" in files}
    codecs = tuple((codec, "exact", "visual") for codec in ("fp16", "int8", "int4", "binary"))
    pictures = (*SHOWN[:2], *readers, SHOWN[3])
    tables = (
        (plain, SHOWN),
        (swept, codecs),
        (staged, STAGED),
        (scans, pictures),
        (seen, (*SHOWN[:3], *pictures[2:])),
        (across, (*SHOWN[:2], SHOWN[3])),
    )
    for found, columns in tables:
        sys.stdout.write("\n".join([*rows(found, columns), "\n"]))
    panels = []
    for cost, title, unit in COSTS:
        drawn = list(points(list(staged.values()), cost))
        panels.append(Panel(drawn, f"Mean of {len(staged)} sets against {title}", title, unit))
        for one in sorted(drawn, key=lambda point: point.cost):
            sys.stdout.write(f"{one.cost:10.0f} {unit:5} {one.quality:.4f} {one.name}\n")
    if staged:
        (RESULTS / "evaluation.svg").write_text(drawing(panels, "nDCG@5"), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--again", action="store_true", help="Measure sets that were measured.")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    weights = load_encoder().fingerprint["weights"]
    for name in given.names or SETS:
        if given.again or name not in measured(weights):
            measure(name, given.work)
    show(measured(weights))


if __name__ == "__main__":
    main()
