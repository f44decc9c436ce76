"""Pages of pictures to look at: one file of HTML that asks nothing of anybody, as pictures are in it and its policy
forbids any request. What a file, its title or its words say is shown as text, never as markup."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from retriever.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from retriever.hit import Hit

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #222 }}
section {{ border-top: 1px solid #ccc; padding: .6em 0 }}
h1, h2 {{ font-weight: 600 }} h2 {{ font-size: 1em; margin: .5em 0 }}
figure {{ display: inline-block; margin: 0 1em 1em 0; max-width: 100%; vertical-align: top }}
img {{ border: 1px solid #ccc; max-width: 100% }} figcaption {{ font-size: .8em; overflow-wrap: anywhere }}
mark {{ background: #fe9 }}</style>
<h1>{title}</h1>"""
_SIDE = 640  # pixels of the longer side of a page that was found


def sheet(title: str, parts: Iterable[str]) -> str:
    """A page of HTML under a title, which is escaped; the parts, which are not."""
    return "\n".join([_HEAD.format(title=text(title)), *parts])


def section(heading: str, figures: Iterable[str]) -> str:
    """Figures under a heading, which is HTML."""
    return f"<section><h2>{heading}</h2>{''.join(figures)}</section>"


def figure(draw: Callable[[], Image], side: int, caption: str) -> str:
    """What `draw` gives, or why it gives nothing, with a caption, which is HTML. side: pixels of the longer one."""
    from index.errors import OctavoError

    try:
        shown = f'<img alt="" src="{source(draw(), side)}">'
    except OctavoError as error:
        shown = f"<p>{text(error)}</p>"
    return f'<figure style="width: {side}px">{shown}<figcaption>{caption}</figcaption></figure>'


def source(picture: Any, side: int) -> str:
    """A picture of at most `side` pixels a side as a data: address (JPEG)."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def text(said: object) -> str:
    """Someone's text as HTML."""
    return html.escape(printable(str(said)))


def marked(said: str, marks: Sequence[tuple[int, int]]) -> str:
    """A text as HTML, what lies between the offsets of `marks` highlighted."""
    parts, done = [], 0
    for start, end in marks:
        parts += [html.escape(said[done:start]), f"<mark>{html.escape(said[start:end])}</mark>"]
        done = end
    return "".join([*parts, html.escape(said[done:])])


def found(hits: Sequence[Hit], progress: Callable[[int, int], None] | None = None) -> Iterable[str]:
    """Each hit: the page with what answers lit up, a link to the file, its words. progress: told (drawn, of all)."""
    for hit in hits:
        name = f"{text(hit.name)}, page {hit.page}"
        link = f'<a href="{html.escape(hit.url)}">{name}</a>' if hit.url else name
        scores = ", ".join(f"{lane} {value:.3g}" for lane, value in hit.lanes.items())
        caption = f"<h2>{hit.rank}. {link}</h2>{marked(hit.snippet, hit.marks)}<br>{hit.score:.3f} ({scores})"
        yield figure(partial(hit.heatmap, dpi=100), _SIDE, caption)
        if progress:
            progress(hit.rank, len(hits))
