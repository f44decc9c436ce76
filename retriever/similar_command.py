"""The commands `octavo duplicates` and `octavo clusters`, and their page of thumbnails.

The page is one file that asks nothing of anybody: pictures are in it, and its policy forbids any request.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever import terminal as term
from retriever.options import common, opened, where
from retriever.printable import printable

if TYPE_CHECKING:
    from retriever.engine import Retriever
    from retriever.similar import Member

_GROUPS, _PICTURES, _SIDE = 100, 6, 220  # on the page: groups, pictures of each, pixels of the longer side
_LISTED = 10  # members of a group on a terminal
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #222 }}
section {{ border-top: 1px solid #ccc; padding: .6em 0 }} h1, h2 {{ font-weight: 600 }} h2 {{ font-size: 1em }}
figure {{ display: inline-block; margin: 0 1em 1em 0; width: 220px; vertical-align: top }}
img {{ border: 1px solid #ccc }} figcaption {{ font-size: .8em; overflow-wrap: anywhere }}</style>
<h1>{title}</h1>"""
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
    parts = [_HEAD.format(title=f"{term.count(len(groups), 'group')} of {what}")]
    shown = groups[:_GROUPS]
    for number, group in enumerate(shown, 1):
        figures = "".join(_figure(retriever, member) for member in group[:_PICTURES])
        parts.append(f"<section><h2>{number}. {term.count(len(group), 'page')}</h2>{figures}</section>")
        if progress:
            progress(number, len(shown))
    if len(groups) > len(shown):
        parts.append(f"<p>{len(groups) - len(shown):,} more are not shown here.</p>")
    return "\n".join(parts)


def _figure(retriever: Retriever, member: Member) -> str:
    from index.errors import OctavoError

    name = html.escape(printable(member.title or Path(member.path).name))
    try:
        picture: Any = retriever.draw(member.document, member.path, member.kind, member.page, 50).convert("RGB")
    except OctavoError as error:
        shown = f"<p>{html.escape(printable(str(error)))}</p>"
    else:
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=75)
        shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    return f"<figure>{shown}<figcaption>{name}, page {member.page} ({member.likeness:.3f})</figcaption></figure>"


COMMANDS = (duplicates, clusters)
