"""How results reach a terminal, a pipe or a program: hits, tables, reports, progress, JSON.

Everything that came out of a document or a file name goes through `printable` on its way to a terminal; JSON is ASCII,
so that it needs no such care. Rich is imported when there is something to show, and honours NO_COLOR by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PAGE_SECONDS, _PAGE_BYTES = 0.7, 120_000  # what a page of print takes with the encoder in the box on two cores


def emit(document: Any) -> None:
    """One JSON document on stdout; no NaN and no infinity, which are not JSON."""
    click.echo(json.dumps(document, allow_nan=False, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False)


def show_hits(hits: Iterable[Any], lanes: bool = True) -> None:
    """Rank, title and page; where it is and what each lane gave; the snippet with what matched in bold."""
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    for hit in hits:
        title = printable(hit.name)
        line = Text.assemble((f"{hit.rank:>2}  ", "bold"), (f"{title}, page {hit.page}", "bold"), f"   {hit.score:.3f}")
        out.print(line, soft_wrap=True)
        parts = [f"{printable(str(hit.path))}#page={hit.page}"]
        if lanes and hit.lanes:
            parts.append(", ".join(f"{name} {number(value)}" for name, value in hit.lanes.items()))
        out.print(Text("    " + "   ".join(parts), style="dim"), soft_wrap=True)
        if hit.snippet:
            text = marked(hit, out)
            if out.is_terminal:
                out.print(Padding(text, (0, 2, 0, 4)))
            else:
                out.print(Text("    ") + text, soft_wrap=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; into a pipe one row a line, tab separated, without a header."""
    out = console()
    if not out.is_terminal:
        for row in rows:
            click.echo("\t".join(cell(value) for value in row))
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        right = column in ("pages", "page", "tokens", "words", "size")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    out.print(table)


def show_facts(facts: Mapping[str, Any]) -> None:
    """name: value, one a line; nested ones as name.part."""
    flat = dict(_flat(facts, ""))
    width = max((len(name) for name in flat), default=0)
    for name, value in flat.items():
        click.echo(f"{name:<{width}}  {size(value) if 'bytes' in name else cell(value)}")


def _flat(facts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", len(value) if isinstance(value, list) else value


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value) or "-"
    return printable(str(value))


def number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))


def size(bytes_: float) -> str:
    """1.2 MB; decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "bytes" or bytes_ >= 100 else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"


def duration(seconds: float) -> str:
    """0.8 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{left} s"
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def show_page(hit: Any, query: str | None) -> None:
    """Which page it is, and its words; with a query, the snippet and the regions that answer it."""
    out = console()
    title = printable(hit.name)
    out.print(f"{title}, page {hit.page} of {hit.pages}", style="bold", soft_wrap=True)
    out.print(printable(hit.url), style="dim", soft_wrap=True)
    if not query:
        click.echo(_words(hit) or "(no words)")
        return
    out.print(marked(hit, out), soft_wrap=True)
    for (x0, y0, x1, y1), weight in hit.boxes():
        click.echo(f"  {weight:4.0%}  {x0:.3f} {y0:.3f} {x1:.3f} {y1:.3f}")


def _words(hit: Any) -> str:
    """The words of a page; those of a text file as its lines."""
    words, boxes = hit.evidence.words, hit.evidence.word_boxes
    if hit.kind != "text" or len(words) != len(boxes):
        return printable(" ".join(words))
    from ingest.passage import laid_out

    return "\n".join(printable(row) for row in laid_out(words, boxes).split("\n"))


def marked(hit: Any, out: Console) -> Text:
    """A hit's snippet with what matched in bold."""
    from rich.text import Text

    text = Text(printable(hit.snippet))
    for start, end in hit.marks or ():
        text.stylize("bold yellow" if out.color_system else "bold", start, end)
    return text


def show_status(status: Mapping[str, Any]) -> None:
    """The facts of an index, then each document that is not whole."""
    show_facts(status)
    for name in ("problems", "damaged"):
        for item in status.get(name) or ():
            click.echo(f"  {trouble(item) if isinstance(item, Mapping) else printable(str(item))}")


def trouble(item: Mapping[str, Any]) -> str:
    """damaged: report.pdf: why"""
    return printable(": ".join(str(item[name]) for name in ("state", "path", "reason") if item.get(name)))


def show_report(report: Any) -> None:
    """What an add, update or retry did (or, dry, would do); each document that is not whole, with the reason."""
    new = [*report.added, *report.updated]
    if report.dry_run:
        pages = sum(entry["pages"] for entry in new)
        skipped = f"; {count(len(report.skipped), 'document')} already there" if report.skipped else ""
        click.echo(
            f"Would add {count(len(new), 'document')}, {count(pages, 'page')} ({size(report.bytes)}), which take about "
            f"{duration(pages * _PAGE_SECONDS)} and {size(pages * _PAGE_BYTES)} on disk{skipped}."
        )
    else:
        names = {"skipped": "already there", "gone": "with no file any more"}
        done = [
            f"{count(len(entries), 'document')} {names.get(name, name)}"
            for name in ("added", "updated", "renamed", "skipped", "gone", "failed")
            if (entries := getattr(report, name))
        ]
        rate = f", {report.pages / report.seconds:.1f} pages/s" if report.pages and report.seconds > 0 else ""
        took = f"{count(report.pages, 'page')} in {duration(report.seconds)}{rate}"
        click.echo(f"{', '.join(done) or 'Nothing to do'}; {took}.")
    for item in [*(entry for entry in new if entry.get("reason")), *report.failed, *report.gone]:
        click.echo(f"  {trouble(item)}")


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A callback for the engine that draws a bar on stderr; None where stderr is no terminal, or `quiet`."""
    err = console(stderr=True)
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[counts]}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[file]}", style="dim"),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, counts="looking at the files", left="", file="")

        def report(p: Any) -> None:
            rate = p.pages_done / p.seconds if p.seconds > 0 else 0.0
            counts = f"{_of(p.documents_done, p.documents_total)} documents, {_of(p.pages_done, p.pages_total)} pages"
            left = f"{duration((p.pages_total - p.pages_done) / rate)} left" if rate and p.pages_total else ""
            name = printable(Path(p.path).name)[:40] if p.path else ""
            if rate:
                counts += f", {rate:.1f} pages/s"
            bar.update(task, completed=p.pages_done, total=p.pages_total, counts=counts, left=left, file=name)

        yield report


@contextmanager
def busy(doing: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Say on stderr what is being done, and for how long; nothing where stderr is no terminal, or `quiet`.

    Gives a callback, for work that knows how much of how much is done."""
    err = console(stderr=True)
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What is being done, how far it is and the time left, on stderr; nothing where stderr is no terminal."""
    err = console(stderr=True)
    if quiet or not err.is_terminal:
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=err, transient=True) as bar:
        task = bar.add_task("looking at the data", total=None)
        doing = [""]

        def told(what: str, done: int, total: int) -> None:
            if what != doing[0]:
                doing[0] = what
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done, total=total)

        yield told


def _of(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"
