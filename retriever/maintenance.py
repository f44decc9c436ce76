"""The commands that look after an index and the installation: check, compact, recode, export, doctor and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from retriever import terminal as term
from retriever.options import CODECS, chosen, common, opened


@click.command()
@common
def check(index: str | None, as_json: bool) -> int:
    """Verify every stored byte; name what is damaged."""
    with opened(index) as retriever, term.busy("verifying every byte", as_json):
        damage = [d._asdict() for d in retriever.check()]
    if as_json:
        term.emit({"damage": damage})
    elif damage:
        term.show_table(("document", "page", "file", "offset", "reason"), [list(d.values()) for d in damage])
        click.echo("Damaged pages are not searched; `octavo retry` reads them from their files again.", err=True)
        click.echo("`octavo rebuild` makes the text lane and the cache again.", err=True)
    else:
        click.echo("Every byte is as it was written.")
    return 1 if damage else 0


@click.command()
@click.option("--purge", is_flag=True, help="Make deleted content unrecoverable.")
@common
def compact(purge: bool, index: str | None, as_json: bool) -> int:
    """Give back the space of deleted documents."""
    with opened(index) as retriever, term.busy("compacting", as_json):
        facts = retriever.compact(purge=purge)
    _facts(facts, as_json)
    return 0


@click.command()
@click.option("--codec", type=click.Choice(CODECS), help="How vectors are kept from now on.")
@click.option("--pool", type=click.IntRange(min=1), help="So many tokens become one vector.")
@click.option("--anew", is_flag=True, help="Make the vectors again, of the words that the index keeps.")
@common
def recode(codec: str | None, pool: int | None, anew: bool, index: str | None, as_json: bool) -> int:
    """Convert an index in place: smaller vectors, or fewer, or those of this version of the encoder in the package.

    What a coarser codec or pooling takes away does not come back with a finer one, but with --anew. Needs twice the
    room meanwhile.
    """
    if codec is None and pool is None and not anew:
        raise click.UsageError("say what to change: --codec, --pool, --anew")
    with opened(index) as retriever, term.busy("recoding", as_json) as progress:
        facts = retriever.recode(codec, pool, anew=anew, progress=progress)
    note = facts.pop("note")
    _facts(facts | {"note": note} if as_json else facts, as_json)
    if note and not as_json:
        click.echo(f"{note[0].upper()}{note[1:]}.", err=True)
    return 0


@click.command()
@common
def rebuild(index: str | None, as_json: bool) -> int:
    """Make again what can be derived: the caches."""
    with opened(index) as retriever, term.busy("deriving again", as_json):
        facts = retriever.rebuild()
    _facts(facts, as_json)
    return 0


@click.command()
@click.option(
    "--queries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A question a line; else some are made.",
)
@common
def recall(queries: Path | None, index: str | None, as_json: bool) -> int:
    """Measure what the first stage and the codecs lose here.

    Against exact scores of every page of this index. Changes nothing.
    """
    from retriever.recall import measure

    texts = (
        None
        if queries is None
        else [line for line in queries.read_text("utf-8", "replace").splitlines() if line.strip()]
    )
    with opened(index) as retriever, term.busy("measuring", as_json) as progress:
        found = measure(retriever, texts, progress)
    if as_json:
        term.emit(found)
        return 0
    for name, column in (("stages", "first stage"), ("codecs", "codec")):
        rows = [[s["name"], f"{s['recall']:.3f}", f"{s['ms']:.2f}", f"{s['bytes']:.3g}"] for s in found[name]]
        term.show_table((column, "recall@10", "ms a query", "bytes a token"), rows)
    for goal, setting in found["reached"].items():
        with_what = f"{setting['name']}, in {setting['ms']:.2f} ms" if setting else "none of these"
        click.echo(f"Recall {goal} is reached by {with_what}.")
    if found["made"]:
        click.echo("Questions were made of words of the pages; with your own, --queries, figures are yours.", err=True)
    return 0


def _facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        term.emit(facts)
    else:
        term.show_facts(facts)


@click.command()
@click.argument("archive", type=click.Path(dir_okay=False, path_type=Path))
@common
def export(archive: Path, index: str | None, as_json: bool) -> int:
    """Write the index into one file.

    For `octavo import` on another machine: encode here, search there.
    """
    with opened(index) as retriever, term.busy("exporting", as_json):
        retriever.export(archive)
    size = archive.stat().st_size
    if as_json:
        term.emit({"archive": str(archive), "bytes": size})
    else:
        click.echo(f"Wrote {archive}: {term.size(size)}.")
    return 0


@click.command(name="import")
@click.argument("archive", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@common
def import_(archive: Path, index: str | None, as_json: bool) -> int:
    """Make an index from an exported file.

    Its place, --index, must not hold one yet.
    """
    from retriever.engine import Retriever

    path = chosen(index)
    with term.busy("importing and verifying", as_json), Retriever.import_(archive, path) as retriever:
        documents = len(retriever.documents())
    if as_json:
        term.emit({"index": str(path), "documents": documents})
    else:
        click.echo(f"Imported {term.count(documents, 'document')} into {path}.")
    return 0


@click.command()
@common
def doctor(index: str | None, as_json: bool) -> int:
    """Check the installation, say what to do."""
    from retriever import doctor as surgery

    return surgery.run(chosen(index), as_json)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print completion for a shell.

    \b
    eval "$(octavo completion bash)"      in ~/.bashrc; zsh likewise
    octavo completion fish | source       in config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "octavo", "_OCTAVO_COMPLETE").source())
    return 0


COMMANDS = (check, compact, recode, recall, rebuild, export, import_, doctor, completion)
