"""What `octavo eval` says of the encoder in the box on the development sets: modes, first stages, codecs and pools.

    python benchmarks/evaluation.py piaf_pages [--only PREFIX] [--queries 200] [--sweep] [-- OPTIONS of octavo eval]

Runs the command on a set of shared/data, or on the documents of it whose names begin with PREFIX and the questions that
they answer, and keeps the figures in results/eval_*.json: means of all measures, costs, funnel, nDCG@5 of every query.
`octavo compare` reads these files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from _sets import DATA

from retriever.cli import main as octavo
from retriever.evaluation.results import systems, table

KEPT = ("ndcg@5",)
HERE = Path(__file__).parent


def part(name: str, prefix: str, folder: Path) -> Path:
    """The documents of a set whose names begin with `prefix`, with their questions, as a set of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pdf").mkdir(parents=True)
    files = [path for path in (DATA / name / "pdf").iterdir() if path.name.startswith(prefix)]
    for path in files:
        shutil.copy(path, folder / "pdf" / path.name)
    names = {path.name for path in files}
    rows = (DATA / name / "qrels.tsv").read_text("utf-8").splitlines()
    kept = [row for row in rows[1:] if row.split("\t")[1].rpartition("#")[0] in names]
    asked = {row.split("\t")[0] for row in kept}
    lines = (DATA / name / "queries.jsonl").read_text("utf-8").splitlines()
    (folder / "qrels.tsv").write_text("\n".join([rows[0], *kept, ""]), "utf-8")
    (folder / "queries.jsonl").write_text("\n".join(line for line in lines if json.loads(line)["id"] in asked), "utf-8")
    return folder


def slim(document: dict[str, Any]) -> dict[str, Any]:
    """A result file without the failures, and with the values of each query for KEPT alone."""
    means = {
        measure: [row for row in table(document["results"], measure) if not row["language"]]
        for measure in document["measures"]
    }
    results = [
        {name: value for name, value in result.items() if name != "failures"}
        | {"values": {name: {q: round(v, 5) for q, v in result["values"][name].items()} for name in KEPT}}
        for result in document["results"]
    ]
    return document | {"command": ["octavo", "eval"], "means": means, "measures": list(KEPT), "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("set")
    parser.add_argument("--only", default="", metavar="PREFIX")
    parser.add_argument("--queries", default="200")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/octavo-bench/evaluation").expanduser())
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    name = given.set + (f"-{given.only}" if given.only else "") + ("-sweep" if given.sweep else "")
    source = part(given.set, given.only, given.work / "sets" / name) if given.only else DATA / given.set
    modes = ["--sweep"] if given.sweep else [word for mode in ("hybrid", "visual", "text") for word in ("--mode", mode)]
    report = given.work / name
    options = [*modes, "--queries", given.queries, *given.options]
    code = octavo(["eval", str(source), *options, "--report", str(report), "--cache", str(given.work / "cache")])
    if code:
        sys.exit(code)
    found = slim(json.loads((report / "eval.json").read_text("utf-8")))
    for label, some in systems(found["results"]).items():
        sys.stdout.write(f"{label}: {json.dumps(some[0]['funnel'])}\n")
    (HERE / "results" / f"eval_{name}.json").write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main()
