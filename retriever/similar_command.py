"""The commands `octavo duplicates` and `octavo clusters`, and their page of thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever import sheet
from retriever import terminal as term
from retriever.options import common, opened, where
from retriever.printable import printable

if TYPE_CHECKING:
    from retriever.engine import Retriever
    from retriever.similar import Member

_GROUPS, _PICTURES, _SIDE = 100, 6, 220  # on the page: groups, pictures of each, pixels of the longer side
_LISTED = 10  # members of a group on a terminal
_filter = click.option(
    "--where", "conditions", multiple=True, metavar="FILTER", help="field=value, or JSON; may be repeated."
)
_html = click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page of them.")


@click.command()
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True), help="How alike two pages are, at least (0.95)."
)
@_filter
@_html
@common
def duplicates(
    threshold: float | None, conditions: tuple[str, ...], page: Path | None, index: str | None, as_json: bool
) -> int:
    """Find pages that say the same: printed twice, scanned again."""
    with opened(index) as retriever:
        with term.busy("comparing pages", as_json) as progress:
            found = retriever.duplicates(threshold, where(conditions), progress)
        return _told(retriever, found, "near-duplicates", page, as_json)


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="How many clusters, at most (by the number of pages).")
@_filter
@_html
@common
def clusters(
    count: int | None, conditions: tuple[str, ...], page: Path | None, index: str | None, as_json: bool
) -> int:
    """Sort pages by what they are about."""
    with opened(index) as retriever:
        with term.busy("sorting pages", as_json) as progress:
            found = retriever.clusters(count, where(conditions), progress)
        return _told(retriever, found, "clusters", page, as_json)


def _told(retriever: Retriever, groups: Sequence[Sequence[Member]], what: str, page: Path | None, as_json: bool) -> int:
    if page is not None:
        with term.busy("drawing pages", as_json) as progress:
            page.write_text(thumbnails(retriever, groups, what, progress), "utf-8")
    if as_json:
        plain = [[member._asdict() for member in group] for group in groups]
        term.emit({"groups": plain, "html": page})
        return 0 if groups else 1
    for number, group in enumerate(groups, 1):
        click.echo(f"{number}. {term.count(len(group), 'page')}")
        for member in group[:_LISTED]:
            click.echo(f"   {member.likeness:.3f}  {printable(member.path)}#page={member.page}")
        if len(group) > _LISTED:
            click.echo(f"          and {len(group) - _LISTED:,} more (--json has all)")
    if page is not None:
        click.echo(f"Wrote {printable(str(page))}.", err=True)
    if not groups:
        click.echo(f"No {what} were found.", err=True)
    return 0 if groups else 1


def thumbnails(
    retriever: Retriever,
    groups: Sequence[Sequence[Member]],
    what: str,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """A page of HTML with the first pictures of the first groups. progress: told (groups done, of all)."""
    shown, parts = groups[:_GROUPS], []
    for number, group in enumerate(shown, 1):
        figures = [_figure(retriever, member) for member in group[:_PICTURES]]
        parts.append(sheet.section(f"{number}. {term.count(len(group), 'page')}", figures))
        if progress:
            progress(number, len(shown))
    if len(groups) > len(shown):
        parts.append(f"<p>{len(groups) - len(shown):,} more are not shown here.</p>")
    return sheet.sheet(f"{term.count(len(groups), 'group')} of {what}", parts)


def _figure(retriever: Retriever, member: Member) -> str:
    name = sheet.text(member.title or Path(member.path).name)
    draw = partial(retriever.draw, member.document, member.path, member.kind, member.page, 50)
    return sheet.figure(draw, _SIDE, f"{name}, page {member.page} ({member.likeness:.3f})")


COMMANDS = (duplicates, clusters)
