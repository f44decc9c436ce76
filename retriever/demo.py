"""`octavo demo`: the sample documents indexed, four searches, a heat map of the best hit."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from index.errors import OctavoError
from retriever import terminal as term

QUERIES = (
    ("manager satisfaction with applicant quality", "a chart and the text around it"),
    ("Why did the airplane leave the snow covered runway?", "only the scan knows; it has no text layer and is read"),
    ("Katastrophenhilfe und Wiederaufbau nach Naturkatastrophen", "a German question, English pages"),
    ("retirement claims processing time", "tables"),
)


class NoSamples(OctavoError):
    """The sample documents are not where they are looked for."""


def run(documents: Path | None, index: Path, as_json: bool) -> int:
    """Index `documents` (None: the samples) into the folder `index` and search it; a heat map is written beside it."""
    from retriever.engine import Retriever

    source = documents or samples()
    started = time.perf_counter()
    with Retriever.open(index) as retriever:
        if not as_json:
            click.echo(f"Indexing {source} into {index}: about a minute ...")
        with term.progress(as_json) as progress:
            report = retriever.add([source], progress=progress)
        if not as_json:
            term.show_report(report)
        answers = []
        for query, about in QUERIES:
            begun = time.perf_counter()
            hits = retriever.search(query, k=3)
            answers.append((query, about, hits, time.perf_counter() - begun))
        best = next((hits[0] for _, _, hits, _ in answers[1:] if hits), None)
        picture = index.parent / "heat-map.png"
        if best is not None:
            best.heatmap().save(picture)
    seconds = time.perf_counter() - started
    if as_json:
        _emit(report, answers, picture if best else None, seconds)
    else:
        _show(answers, best, picture, index, seconds)
    return 1 if report.failed or best is None else 0


def samples() -> Path:
    """The folder samples/ of the current folder or of the repository that this file lies in. Raises NoSamples."""
    places = (Path("samples"), Path(__file__).resolve().parents[1] / "samples")
    for place in places:
        if place.is_dir() and any(place.glob("*.pdf")):
            return place
    raise NoSamples(
        "no sample documents here: they are in the repository's folder samples/, not in the installed package. "
        "Name a folder of PDFs: octavo demo --documents FOLDER"
    )


def _emit(report: Any, answers: list[Any], picture: Path | None, seconds: float) -> None:
    searches = [
        {"query": query, "about": about, "seconds": took, "hits": [hit.dict() for hit in hits]}
        for query, about, hits, took in answers
    ]
    term.emit({"report": report.dict(), "searches": searches, "heatmap": picture, "seconds": seconds})


def _show(answers: list[Any], best: Any, picture: Path, index: Path, seconds: float) -> None:
    for query, about, hits, took in answers:
        click.echo()
        term.console().print(f"{query}   [{about}; {took * 1000:.0f} ms]", style="bold", soft_wrap=True)
        term.show_hits(hits, lanes=False)
    click.echo()
    if best is not None:
        click.echo(f"Where page {best.page} of {Path(best.path).name} answers: {picture}")
    command = _command()
    click.echo(f"All of it took {term.duration(seconds)}. Try next:")
    click.echo(f'  {command} search --index {index} "how many people were hired" --html {index.parent}/hits.html')
    click.echo(f'  {command} show --index {index} DHS2020.pdf 13 --query "border security" -o {index.parent}/page.png')
    click.echo(f"  {command} add ~/Documents       your own files, into the default index")


def _command() -> str:
    """How to call octavo from here: by its name where the shell finds it, else by its path."""
    called = Path(sys.argv[0])
    if shutil.which("octavo") or called.name != "octavo":
        return "octavo"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) or not called.is_absolute() else str(called)
