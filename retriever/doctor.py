"""`octavo doctor`: what is installed, what holds, what does not, and what to do about it.

Each check gives findings; a check that itself fails is a finding too, so that one broken part does not hide the others.
Does not read the stored vectors (`octavo check` does) and does not import torch.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_LEAST_FREE = 2 * 10**9


class Finding(NamedTuple):
    """what was looked at; its state, "ok", "warning" or "problem"; what was found; advice: what to do about it."""

    what: str
    state: str
    found: str
    advice: str = ""


def run(folder: Path, as_json: bool) -> int:
    """Look at everything and print it. 0 where nothing is a problem, else 1."""
    from retriever import terminal as term

    findings = examine(folder)
    if as_json:
        term.emit({"findings": [f._asdict() for f in findings]})
    else:
        show(findings)
    return 1 if any(f.state == PROBLEM for f in findings) else 0


def show(findings: list[Finding]) -> None:
    from rich.text import Text

    from retriever import terminal as term

    out, width = term.console(), max(len(f.what) for f in findings)
    styles = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}
    for f in findings:
        line = Text.assemble((f"{f.state:<8}", styles[f.state]), f" {f.what:<{width}}  {term.printable(f.found)}")
        out.print(line, soft_wrap=True)
        if f.advice:
            out.print(f"{'':<{width + 11}}{term.printable(f.advice)}", soft_wrap=True)


def examine(folder: Path) -> list[Finding]:
    """All findings; folder: of the index, which need not exist."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("installation", _installation),
        ("kernels", _kernels),
        ("encoder", _encoder),
        ("tesseract", _tesseract),
        ("renderer", _renderer),
        ("SQLite", _sqlite),
        ("disk", lambda: _disk(folder)),
        ("index", lambda: _index(folder)),
    ]
    findings: list[Finding] = []
    for what, check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(what, PROBLEM, type(error).__name__, str(error) or "No reason was given."))
    return findings


def _installation() -> Iterator[Finding]:
    yield Finding("octavo", OK, version("octavo"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores"
    yield Finding("Python", OK, system)
    for requirement in requires("octavo") or ():
        spec, _, marker = requirement.partition(";")
        if "extra" in marker:
            continue
        match = re.match(r"\s*([\w.-]+)(?:.*?>=\s*([\d.]+))?", spec)
        assert match, spec
        replaced = match[1] == "pymupdf" and find_spec("pypdfium2") is not None
        yield _package(match[1], match[2], optional=bool(marker.strip()) or replaced)


def _package(name: str, floor: str | None, optional: bool) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        state, advice = (OK, "") if optional else (PROBLEM, f"pip install '{name}>={floor or 0}'")
        return Finding(name, state, "not installed" + (", not needed here" if optional else ""), advice)
    if floor and _numbers(found) < _numbers(floor):
        return Finding(name, PROBLEM, f"{found}, older than {floor}", f"pip install '{name}>={floor}'")
    return Finding(name, OK, found)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.split("+")[0])[:3])


def _kernels() -> Iterator[Finding]:
    from index import native

    runs = native.available()
    others = [name for name in native.instruction_sets() if name and name != runs]
    if runs:
        yield Finding("kernels", OK, f"MaxSim on {runs}" + (f" (also here: {', '.join(others)})" if others else ""))
    elif others:
        yield Finding("kernels", WARNING, "numpy, as OCTAVO_KERNELS says", f"Without it {others[-1]} runs.")
    else:
        advice = (
            "Scoring is several times slower. Get a C++ compiler (Debian: apt install g++; macOS: xcode-select "
            "--install), then install Octavo again from its source: pip install --force-reinstall --no-deps FOLDER"
        )
        yield Finding("kernels", WARNING, "numpy only: nothing was compiled", advice)


def _encoder() -> Iterator[Finding]:
    from retriever.encoders import DEFAULT
    from retriever.encoders.box.weights import Weights

    weights = Weights()
    total = sum(len(weights.read(name)) for name in weights.digests)
    yield Finding("encoder", OK, f"{DEFAULT}: {len(weights.digests)} weight files, {total / 1e6:.1f} MB, all verified")


def _tesseract() -> Iterator[Finding]:
    from retriever.encoders.box.tesseract import installed

    program = installed()
    if program and program.scripts:
        yield Finding("tesseract", OK, f"{program.version}, reads {', '.join(program.scripts)} in pictures")
        return
    found = "not installed" if program is None else f"{program.version}, without models that are needed here"
    advice = (
        "Pages in Arabic, Hebrew, Thai, Indic and like scripts are found by their text layers alone. It, its model osd "
        "and those of their languages and scripts read pictures of them. Debian, for Arabic: apt install tesseract-ocr "
        "tesseract-ocr-ara tesseract-ocr-script-arab"
    )
    yield Finding("tesseract", OK, found, advice)


def _renderer() -> Iterator[Finding]:
    from ingest.render import Renderer

    with Renderer(backend="pdfium" if find_spec("pymupdf") is None else "pymupdf") as renderer:
        protection, jailed = renderer.protection, renderer.jailed
    if jailed:
        yield Finding("jail", OK, protection)
    else:
        advice = "A hostile file could read files of yours. On Linux 5.13 or newer Landlock and seccomp prevent that."
        yield Finding("jail", WARNING, protection, advice)


def _sqlite() -> Iterator[Finding]:
    from index import catalog

    found = catalog.sqlite3.sqlite_version
    name = f"{found} ({catalog.sqlite3.__name__.split('.')[0]})"
    if safe_sqlite(found):
        yield Finding("SQLite", OK, name)
    else:
        advice = "It can damage a write-ahead log that two processes use. pip install pysqlite3, or SQLite 3.51.3."
        yield Finding("SQLite", WARNING, name, advice)


def safe_sqlite(found: str) -> bool:
    """Is the WAL-reset bug mended? It is in 3.51.3, and in the branches 3.50 from .7 and 3.44 from .6 on."""
    numbers = _numbers(found)
    return numbers >= (3, 51, 3) or (3, 50, 7) <= numbers < (3, 51) or (3, 44, 6) <= numbers < (3, 45)


def _disk(folder: Path) -> Iterator[Finding]:
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    advice = "A page takes about 0.1 MB. `octavo compact` gives back what deleted documents held."
    state = OK if free >= _LEAST_FREE else WARNING
    yield Finding("disk", state, f"{free / 1e9:.1f} GB free at {place}", "" if state == OK else advice)
    if sys.platform == "linux" and not os.access(place, os.W_OK):
        yield Finding(
            "disk", PROBLEM, f"{place} cannot be written", "Choose another place with --index or OCTAVO_INDEX."
        )


def _index(folder: Path) -> Iterator[Finding]:
    from index.errors import NotAnIndex
    from retriever.engine import Retriever

    try:
        retriever = Retriever.open(folder, create=False)
    except NotAnIndex:
        yield Finding("index", OK, f"none at {folder} yet", "octavo add FOLDER makes one.")
        return
    with retriever:
        status, documents = retriever.status(), retriever.documents()
        yield Finding("index", OK, f"{folder}: {len(documents)} documents, {sum(d['pages'] for d in documents)} pages")
        failed = len(status.get("failed") or ())
        if failed:
            yield Finding(
                "documents", WARNING, f"{failed} are not whole", "octavo status names them, octavo retry tries again."
            )
        _ = retriever.encoder  # raises EncoderMismatch where the index was filled by another
