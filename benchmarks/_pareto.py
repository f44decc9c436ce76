"""Recall against time as an SVG, one panel a corpus, dots as large as the bytes that a page takes: written by hand.

Every dot is a way of searching; a line joins those of one engine, whose name stands at its most accurate one. Colours
follow the reader's light or dark scheme. Not here: figures (search.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, GAP = 760, 250, 52, 120, 34, 26, 26
SLOWEST, FASTEST = 3000.0, 1.0  # ms at the edges
LOWEST = 0.7  # recall; what lies below is left out and said so
TITLES = {"concepts": "synthetic, 50,000 concepts", "manifold": "synthetic, no concepts"}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 10.5px; fill: #59636e }
.title { font-weight: 600 } .grid { stroke: #d1d9e0; stroke-width: 1 } path { fill: none; stroke-width: 1.5 }
.ours { fill: #0969da; stroke: #0969da } .peer { fill: #8c959f; stroke: #8c959f } text.ours { fill: #0969da }
circle { fill-opacity: .75; stroke: none } text { stroke: none !important }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small, text.peer { fill: #9198a1 } .grid { stroke: #3d444d }
.ours { fill: #4493f8; stroke: #4493f8 } text.ours { fill: #4493f8 } .peer { fill: #6e7681; stroke: #6e7681 } }
path.ours, path.peer { fill: none }
"""


def draw(results: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the figure of what search.py measured on each corpus."""
    results = list(results)
    height = len(results) * (HEIGHT + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-label="Recall of the exact top ten against CPU time a search">',
        f"<style>{STYLE}</style>",
    ]
    for number, result in enumerate(results):
        parts.append(f'<g transform="translate(0 {number * (HEIGHT + GAP)})">{_panel(result)}</g>')
    note = "CPU milliseconds a search, one thread; a dot's area is the bytes a page takes on disk"
    parts.append(f'<text class="small" x="{LEFT}" y="{height - 6}">{note}</text></svg>\n')
    path.write_text("\n".join(parts))


def _panel(result: dict[str, Any]) -> str:
    title = TITLES.get(result["corpus"].split("_")[0], "real pages, encoder in the box")
    tokens = round(result["tokens"] / result["pages"])
    parts = [
        f'<text class="title" x="{LEFT}" y="16">{escape(title)}: '
        f"{result['pages']:,} pages of {tokens} tokens; recall of the exact top 10</text>"
    ]
    for recall in (0.7, 0.8, 0.9, 0.95, 1.0):
        y = _y(recall)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="small" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{recall:g}</text>')
    for ms in (1, 3, 10, 30, 100, 300, 1000, 3000):
        parts.append(f'<line class="grid" x1="{_x(ms)}" x2="{_x(ms)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        label = f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"
        parts.append(f'<text class="small" x="{_x(ms)}" y="{HEIGHT - 10}" text-anchor="middle">{label}</text>')
    series: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row.get("recall@10", 0.0) >= LOWEST:
            kind = ", einsum" if "einsum" in row["way"] else ""
            series.setdefault(row["engine"] + kind, []).append(row)
    heights: list[tuple[float, float]] = []
    for name, rows in sorted(series.items(), key=lambda item: -max(row["recall@10"] for row in item[1])):
        parts.append(_line(name, sorted(rows, key=lambda row: row["cpu_ms"]["p50"]), heights))
    return "".join(parts)


def _line(name: str, rows: list[dict[str, Any]], taken: list[tuple[float, float]]) -> str:
    """One engine. taken: where labels stand already."""
    kind = "ours" if name.startswith("Octavo") else "peer"
    points = [(_x(row["cpu_ms"]["p50"]), _y(row["recall@10"])) for row in rows]
    parts = [f'<path class="{kind}" d="M{" L".join(f"{x} {y}" for x, y in points)}"/>']
    for (x, y), row in zip(points, rows, strict=True):
        radius = math.sqrt(row["bytes_a_page"] / 1000)
        tip = f"{row['engine']}, {row['way']}: {row['cpu_ms']['p50']:.1f} ms, recall {row['recall@10']:.3f}"
        parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius:.1f}"><title>{escape(tip)}</title></circle>')
    x, y = points[-1][0] + 12, points[-1][1] + 4
    while any(abs(y - other) < 14 and abs(x - beside) < 150 for beside, other in taken):
        y += 14
    taken.append((x, y))
    return "".join(parts) + f'<text class="{kind}" x="{x}" y="{y}">{escape(name)}</text>'


def _x(ms: float) -> float:
    share = math.log(min(max(ms, FASTEST), SLOWEST) / FASTEST) / math.log(SLOWEST / FASTEST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(recall: float) -> float:
    return round(HEIGHT - BOTTOM - (recall - LOWEST) / (1 - LOWEST) * (HEIGHT - BOTTOM - TOP), 1)
