"""Recall against time as an SVG, one panel a corpus, dots as large as the bytes that a page takes: written by hand.

Every dot is a way of searching; a line joins those of one engine, whose name stands beside it. Colours are the
attributes of a light page, and a style sheet changes them for readers of dark ones. Not here: figures (search.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, GAP = 760, 250, 48, 20, 34, 26, 24
SLOWEST, FASTEST = 3000.0, 2.0  # ms at the edges
LOWEST = 0.8  # recall; what lies below is left out
TITLES = {"concepts": "Synthetic, 50,000 concepts", "manifold": "Synthetic, no concepts"}
OURS, PEER, TEXT, FAINT, GRID = "#0969da", "#767e87", "#1f2328", "#59636e", "#d8dee4"
DARK = {"ours": "#4493f8", "peer": "#9198a1", "text": "#e6edf3", "faint": "#9198a1"}
FONT = "system-ui, sans-serif"


class Box(NamedTuple):
    """A place that is taken: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def draw(results: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the figure of what search.py measured on each corpus."""
    results = sorted(results, key=lambda result: result["corpus"].split("_")[0] in TITLES)  # real pages first
    height = len(results) * (HEIGHT + GAP) + 10
    dark = "".join(f".{name} {{ fill: {colour} }} " for name, colour in DARK.items())
    dark += f".l-ours {{ stroke: {DARK['ours']} }} .l-peer {{ stroke: {DARK['peer']} }} .grid {{ stroke: #30363d }}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' font-family="{FONT}" role="img" aria-label="Recall of the exact top ten against CPU time a search">',
        f"<style>@media (prefers-color-scheme: dark) {{ {dark} }}</style>",
    ]
    for number, result in enumerate(results):
        parts.append(f'<g transform="translate(0 {number * (HEIGHT + GAP)})">{_panel(result)}</g>')
    note = "CPU milliseconds a search, one thread. A dot's area: bytes a page takes on disk."
    path.write_text("\n".join([*parts, _text(LEFT, height - 8, note, "faint", FAINT, 11), "</svg>\n"]))


def _panel(result: dict[str, Any]) -> str:
    title = TITLES.get(result["corpus"].split("_")[0], "Real pages, the encoder in the box")
    tokens = round(result["tokens"] / result["pages"])
    title += f": recall of the exact top 10, {result['pages']:,} pages of {tokens} tokens"
    parts = [_text(LEFT, 16, title, "text", TEXT, 13, more='font-weight="600"')]
    bottom = HEIGHT - BOTTOM
    for recall in (0.8, 0.9, 0.95, 0.98, 0.99, 1.0):
        y = _y(recall)
        parts.append(f'<line class="grid" stroke="{GRID}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{recall:.3g}", "faint", FAINT, 11, "end"))
    for ms in (3, 10, 30, 100, 300, 1000, 3000):
        parts.append(f'<line class="grid" stroke="{GRID}" x1="{_x(ms)}" x2="{_x(ms)}" y1="{TOP}" y2="{bottom}"/>')
        label = f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"
        parts.append(_text(_x(ms), HEIGHT - 10, label, "faint", FAINT, 11, "middle"))
    series: dict[str, list[dict[str, Any]]] = {}
    for row in sorted((row for row in result["rows"] if "way" in row), key=lambda row: row["cpu_ms"]["p50"]):
        if row["recall@10"] >= LOWEST:
            series.setdefault(row["engine"] + (", einsum" if "einsum" in row["way"] else ""), []).append(row)
    dots = [_dot(row) for rows in series.values() for row in rows]
    taken = [Box(x - r, y - r, x + r, y + r) for x, y, r in dots]
    for rows in series.values():  # lines, in steps
        for (ax, ay, _), (bx, by, _) in itertools.pairwise(_dot(row) for row in rows):
            steps = [share / 40 for share in range(41)]
            places = [(ax + share * (bx - ax), ay + share * (by - ay)) for share in steps]
            taken += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in places]
    for name, rows in series.items():
        parts.append(_series(name, rows, taken))
    return "".join(parts)


def _series(name: str, rows: list[dict[str, Any]], taken: list[Box]) -> str:
    """One engine. taken: where dots and labels are; its label is added."""
    kind, colour = ("ours", OURS) if name.startswith("Octavo") else ("peer", PEER)
    dots = [_dot(row) for row in rows]
    path = " L".join(f"{x} {y}" for x, y, _ in dots)
    parts = [f'<path class="l-{kind}" fill="none" stroke="{colour}" stroke-width="1.5" d="M{path}"/>']
    for (x, y, radius), row in zip(dots, rows, strict=True):
        tip = f"{row['engine']}, {row['way']}: {row['cpu_ms']['p50']:.1f} ms, recall {row['recall@10']:.3f}"
        circle = f'<circle class="{kind}" fill="{colour}" fill-opacity=".8" cx="{x}" cy="{y}" r="{radius}">'
        parts.append(f"{circle}<title>{escape(tip)}</title></circle>")
    wide = 6.3 * len(name)
    for x, y, radius in [*reversed(dots), dots[-1]]:
        for left, base in (
            (x + radius + 5, y + 4),
            (x - wide / 2, y + radius + 14),
            (x - wide / 2, y - radius - 5),
            (x - radius - 5 - wide, y + 4),
        ):
            box = Box(left, base - 10, left + wide, base + 3)
            inside = box.left >= LEFT and box.right <= WIDTH and box.bottom <= HEIGHT - BOTTOM and box.top >= 20
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                return "".join(parts) + _text(left, base, name, kind, colour, 12)
    return "".join(parts)


def _dot(row: dict[str, Any]) -> tuple[float, float, float]:
    """Place and radius."""
    return _x(row["cpu_ms"]["p50"]), _y(row["recall@10"]), round(math.sqrt(row["bytes_a_page"] / 3000), 1)


def _text(
    x: float, y: float, words: str, kind: str, colour: str, size: int, anchor: str = "start", more: str = ""
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text class="{kind}" fill="{colour}" {where} {more}>{escape(words)}</text>'


def _x(ms: float) -> float:
    share = math.log(min(max(ms, FASTEST), SLOWEST) / FASTEST) / math.log(SLOWEST / FASTEST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(recall: float) -> float:
    """By the logarithm of what is missed, so that .98 and .99 are apart."""
    share = math.log((1.006 - LOWEST) / (1.006 - recall)) / math.log((1.006 - LOWEST) / 0.006)
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)
