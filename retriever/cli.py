"""The command `octavo`: each subcommand is a few lines over `Retriever`.

What commands read and print is in `retriever.options` and `retriever.terminal`, those that look after an index and the
installation are in `retriever.maintenance`.

Exit status: 0 done; 1 done, but nothing was found, or a document failed, or damage was found; 2 the command was written
wrongly; 3 it could not be done, one sentence on stderr says why; 130 interrupted. OCTAVO_DEBUG=1 adds tracebacks.
Imports click and nothing heavy, so that --help and completion answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from retriever import maintenance, models, sheet, similar_command
from retriever import terminal as term
from retriever.evaluation import command as evaluation
from retriever.options import CODECS, common, json_object, limits, opened, password_option, reading_options, where
from retriever.training import command as training

DEBUG = "OCTAVO_DEBUG"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tiff", ".pdf")
RESUMABLE = ("add", "update", "retry", "demo", "eval", "train")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    logging.getLogger("octavo").addHandler(logging.StreamHandler() if DEBUG in os.environ else logging.NullHandler())
    argv = list(sys.argv[1:] if args is None else args)
    try:
        code = octavo.main(argv, prog_name="octavo", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        kept = " What was done is kept; the same command goes on from there." if set(argv[:3]) & set(RESUMABLE) else ""
        click.echo(f"Interrupted.{kept}", err=True)
        return 130
    except Exception as error:
        if DEBUG in os.environ or not _known(error):
            raise
        message = term.printable(_told(error)) or type(error).__name__
        if "--json" in argv:
            term.emit({"error": message, "type": type(error).__name__})
        click.echo(f"octavo: {message}", err=True)
        return 3


def _told(error: Exception) -> str:
    """ "report.pdf: Permission denied" for what the system says as "[Errno 13] Permission denied: 'report.pdf'"."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _known(error: Exception) -> bool:
    from index.errors import OctavoError

    return isinstance(error, OctavoError | OSError)


class InOrder(click.Group):
    """Commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="octavo", prog_name="octavo")
@click.option("--index", metavar="NAME|PATH", help="The index of the command that follows.")
@click.pass_context
def octavo(ctx: click.Context, index: str | None) -> None:
    """Find the page: search PDFs and images by what their pages say and how they look.

    \b
    octavo add ~/Documents          index a folder (again: only what changed)
    octavo search "revenue 2023"    the pages that answer, best first
    """
    ctx.obj = index


def _finish(report: Any, as_json: bool) -> int:
    if as_json:
        term.emit(report.dict())
    else:
        term.show_report(report)
    return 1 if report.failed else 0


@octavo.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files, as in .gitignore; may be repeated.")
@click.option("--metadata", metavar="JSON", help="Stored with each document, for --where: '{\"year\": 2023}'.")
@click.option("--encoder", metavar="NAME", help="For a new index: a model or an address (the one in the package).")
@click.option("--task", metavar="TASK", help="Of the encoder, for a new index: text-matching, code (retrieval).")
@click.option("--single", is_flag=True, help="For a new index: one vector a page, in FAISS.")
@click.option("--dim", type=click.IntRange(min=1), help="Of --single: a Matryoshka dimension of the encoder (all).")
@click.option("--codec", type=click.Choice(CODECS), help="For a new index: how vectors are kept (int8).")
@click.option("--pool", type=click.IntRange(min=1), help="For a new index: so many tokens become one vector (1).")
@click.option("--dry-run", is_flag=True, help="Say how many pages, bytes and minutes it would be; change nothing.")
@password_option
@reading_options
@common
def add(
    paths: tuple[str, ...],
    exclude: tuple[str, ...],
    metadata: str | None,
    encoder: str | None,
    task: str | None,
    single: bool,
    dim: int | None,
    codec: str | None,
    pool: int | None,
    dry_run: bool,
    password: str | None,
    renderer: str,
    limit: tuple[str, ...],
    index: str | None,
    as_json: bool,
) -> int:
    """Index files and folders. What is there already is skipped; a killed add goes on where it was."""
    extra = json_object(metadata, "--metadata") if metadata else None
    if dim and not single:
        raise click.UsageError("--dim is the dimension of single vectors: give --single too.")
    given = {"encoder": encoder, "task": task, "codec": codec, "pool": pool, "dim": dim}
    given["vectors"] = "single" if single else None
    new = {name: value for name, value in given.items() if value}
    with (
        opened(index, create=True, renderer=renderer, limits=limits(limit), **new) as retriever,
        term.progress(as_json) as progress,
    ):
        report = retriever.add(paths, extra, exclude=exclude, password=password, dry_run=dry_run, progress=progress)
    return _finish(report, as_json)


@octavo.command()
@click.argument("query", nargs=-1)
@click.option("--image", metavar="FILE", help="Ask with a picture, alone or beside QUERY.")
@click.option("--like", metavar="DOC#PAGE", help="Ask with a page of the index, alone or beside QUERY.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="How many pages.")
@click.option("--mode", type=click.Choice(["hybrid", "visual", "text"]), default="hybrid", show_default=True)
@click.option("--where", "conditions", multiple=True, metavar="FILTER", help="field=value, or JSON; may be repeated.")
@click.option("--candidates", metavar="N|all", help="How many pages of each lane are scored exactly.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page of their pictures.")
@common
def search(
    query: tuple[str, ...],
    image: str | None,
    like: str | None,
    k: int,
    mode: str,
    conditions: tuple[str, ...],
    candidates: str | None,
    page: Path | None,
    index: str | None,
    as_json: bool,
) -> int:
    """Find the pages that answer QUERY, or are like a picture or a page, best first."""
    text, filters = " ".join(query) if query else None, where(conditions)
    if (image and like) or not (query or image or like):
        raise click.UsageError("Ask with some words, with --image or --like, or with words and one of these.")
    limit = int(candidates) if candidates and candidates.isdecimal() else candidates
    with opened(index) as retriever:
        hits = retriever.search(text, k, mode, filters, limit, image=image, like=like)
        if page is not None:
            with term.busy("drawing pages", as_json) as progress:
                page.write_text(sheet.sheet(text or image or like or "", sheet.found(hits, progress)), "utf-8")
            click.echo(f"Wrote {term.printable(str(page))}.", err=True)
        if as_json:
            asked = {"query": text, "image": image, "like": like, "mode": mode, "html": page}
            term.emit({**asked, "hits": [hit.dict() for hit in hits]})
        elif hits:
            term.show_hits(hits)
        else:
            click.echo("No page was found.", err=True)
    return 0 if hits else 1


@octavo.command(name="list")
@common
def list_(index: str | None, as_json: bool) -> int:
    """List the documents."""
    with opened(index) as retriever:
        documents = retriever.documents()
    if as_json:
        term.emit({"documents": documents})
    else:
        columns = ("document", "pages", "state", "title", "paths")
        term.show_table(columns, [[d[column] for column in columns] for d in documents])
    return 0


@octavo.command()
@click.argument("document")
@click.argument("page", type=click.IntRange(min=1))
@click.option("--query", metavar="TEXT", help="Draw where the page answers it.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write the page as a picture.")
@common
def show(document: str, page: int, query: str | None, output: str | None, index: str | None, as_json: bool) -> int:
    """Show a page, or draw where it answers a query.

    DOCUMENT is an id (or its beginning), a path or a file name; PAGE counts from 1.
    """
    if output and Path(output).suffix.lower() not in PICTURES:
        raise click.BadParameter(f"{output} is no picture's name; it ends in {', '.join(PICTURES)}", param_hint="-o")
    with opened(index) as retriever:
        hit = retriever.page(document, page, query=query)
        if output:
            picture = hit.heatmap() if query else hit.image()
            picture.save(output)
        if as_json:
            term.emit({**hit.dict(), "output": output})
        elif output:
            click.echo(f"Wrote {output}: page {page} of {term.printable(str(hit.path))}.")
            if query and not hit.evidence.token_boxes.any():  # one vector a page, a server's, or no token at all
                click.echo("Nothing is drawn on it: no vector of the page has a place on it.", err=True)
        else:
            term.show_page(hit, query)
    return 0


@octavo.command()
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...")
@common
def delete(documents: tuple[str, ...], index: str | None, as_json: bool) -> int:
    """Take documents out of the index.

    A DOCUMENT is an id (or its beginning), a path or a file name. The files are left alone.
    """
    with opened(index) as retriever:
        pages = {document: retriever.delete(document) for document in documents}
    if as_json:
        term.emit({"deleted": pages})
    for document, n in pages.items() if not as_json else ():
        click.echo(f"Deleted {term.printable(document)}: {term.count(n, 'page')}.")
    return 0


@octavo.command()
@click.argument("paths", nargs=-1)
@click.option("--prune", is_flag=True, help="Also delete documents whose files are gone.")
@reading_options
@common
def update(
    paths: tuple[str, ...], prune: bool, renderer: str, limit: tuple[str, ...], index: str | None, as_json: bool
) -> int:
    """Take in what changed in the files.

    Looks at all that are indexed, or at PATHS.
    """
    with opened(index, renderer=renderer, limits=limits(limit)) as retriever, term.progress(as_json) as progress:
        report = retriever.update(paths or None, prune=prune, progress=progress)
    return _finish(report, as_json)


@octavo.command()
@password_option
@reading_options
@common
def retry(password: str | None, renderer: str, limit: tuple[str, ...], index: str | None, as_json: bool) -> int:
    """Try again what failed."""
    with opened(index, renderer=renderer, limits=limits(limit)) as retriever, term.progress(as_json) as progress:
        report = retriever.retry(password=password, progress=progress)
    return _finish(report, as_json)


@octavo.command()
@common
def status(index: str | None, as_json: bool) -> int:
    """Say what is indexed, what failed and why."""
    with opened(index) as retriever:
        facts = retriever.status()
    if as_json:
        term.emit(facts)
    else:
        term.show_status(facts)
    return 0


@octavo.command()
@click.option("--documents", type=click.Path(exists=True, path_type=Path), help="Others than the repository's samples.")
@click.option("--index", type=click.Path(path_type=Path), default="demo/index", show_default=True, metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def demo(documents: Path | None, index: Path, as_json: bool) -> int:
    """Index sample documents into ./demo and search them."""
    from retriever.demo import run

    return run(documents, index, as_json)


for command in (
    *similar_command.COMMANDS,
    *maintenance.COMMANDS,
    models.models,
    *evaluation.COMMANDS,
    *training.COMMANDS,
):
    octavo.add_command(command)
