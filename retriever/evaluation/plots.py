"""Quality against what it costs, and the systems that nothing beats: inside a report, and as a drawing on its own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 16, 52


class Point(NamedTuple):
    """A system: what it costs, how good it is, with its interval; kind: what it is coloured by; ring: or a full dot."""

    name: str
    cost: float
    quality: float
    low: float
    high: float
    kind: str
    ring: bool = False


class Panel(NamedTuple):
    """Points over one cost. title: what is shown; cost: the name of the axis; unit: of the cost."""

    points: Sequence[Point]
    title: str
    cost: str
    unit: str


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other is both cheaper and better than, from the cheapest on."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def pareto(panel: Panel, quality: str, kinds: Sequence[str]) -> str:
    """A panel as a figure of a report, with a legend. kinds: in the order of their colours."""
    name = html.escape(panel.title)
    return (
        f'<figure class="plot"><figcaption>{name}</figcaption>{_legend(kinds, panel.points)}'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}; figures are in the tables">'
        f"{_inside(panel, quality, kinds)}</svg></figure>"
    )


def drawing(panels: Sequence[Panel], quality: str) -> str:
    """Panels one below the other, with one legend, as an SVG file for light and dark pages."""
    kinds = list(dict.fromkeys(point.kind for panel in panels for point in panel.points))
    rings = any(point.ring for panel in panels for point in panel.points)
    entries = [(kind, f"k{n % 6}") for n, kind in enumerate(kinds)] + [("visual alone", "ring k5")] * rings
    legend = "".join(
        f'<circle class="{css}" cx="{_LEFT + 94 * n}" cy="14" r="5"/>'
        f'<text x="{_LEFT + 10 + 94 * n}" y="19">{html.escape(kind)}</text>'
        for n, (kind, css) in enumerate(entries)
    )
    body = "".join(
        f'<g transform="translate(0 {32 + n * (_HEIGHT + 28)})"><text class="name" x="{_LEFT}" y="14">'
        f'{html.escape(panel.title)}</text><g transform="translate(0 20)">{_inside(panel, quality, kinds)}</g></g>'
        for n, panel in enumerate(panels)
    )
    height = 32 + len(panels) * (_HEIGHT + 28)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" role="img"><style>{_style()}</style>{legend}{body}</svg>\n'
    )


def _style() -> str:
    """What of the report's style sheet a drawing needs."""
    css = (Path(__file__).parent / "report.css").read_text("utf-8")
    variables = css[: css.index("* {")]
    return variables + "".join(f"{line}\n" for line in css.splitlines() if line.startswith(("svg ", ".k", ".ring")))


def _inside(panel: Panel, quality: str, kinds: Sequence[str]) -> str:
    """Points over a logarithmic cost, the front as a line. Each point says what it is when pointed at."""
    points = panel.points
    costs = [point.cost for point in points]
    x_low, x_high = math.log10(min(costs)) - 0.12, math.log10(max(costs)) + 0.12
    y_low, y_high = min(p.low for p in points), max(p.high for p in points)
    room = max(y_high - y_low, 0.02) * 0.08
    y_low, y_high = y_low - room, y_high + room

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (y_high - value) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(x, y, (10**x_low, 10**x_high), (y_low, y_high), panel.cost, quality, panel.unit)]
    best = front(points)
    line = " ".join(f"{x(p.cost):.1f},{y(p.quality):.1f}" for p in best)
    parts.append(f'<polyline class="front" points="{line}"/>')
    for point in sorted(points, key=best.__contains__):
        parts.append(_mark(point, x(point.cost), y, kinds.index(point.kind) % 6, panel.unit, point in best))
    return "".join(parts)


def _mark(point: Point, left: float, y: object, kind: int, unit: str, best: bool) -> str:
    assert callable(y)
    top = y(point.quality)
    told = f"{point.name}: {point.quality:.3f} ({point.low:.3f} to {point.high:.3f}), {_figure(point.cost)} {unit}"
    whisker = f'<path class="whisker" d="M{left:.1f} {y(point.low):.1f}V{y(point.high):.1f}"/>' if best else ""
    css = f"ring k{kind}" if point.ring else f"k{kind}"
    shape = f'<circle class="{css}" cx="{left:.1f}" cy="{top:.1f}" r="{6 if best else 4.5}"/>'
    return f'<g class="{"best" if best else "beaten"}"><title>{html.escape(told)}</title>{whisker}{shape}</g>'


def _axes(
    x: object,
    y: object,
    costs: tuple[float, float],
    qualities: tuple[float, float],
    cost: str,
    quality: str,
    unit: str,
) -> str:
    assert callable(x) and callable(y)
    parts = []
    for value in _steps(*qualities):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 8}" y="{y(value) + 4:.1f}">{value:.2f}</text>')
    for value in _decades(*costs):
        parts.append(f'<path class="grid" d="M{x(value):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="middle" x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 18}">{_figure(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="name middle" x="{middle}" y="{_HEIGHT - 8}">{html.escape(cost)} ({unit})</text>')
    parts.append(
        f'<text class="name middle" transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)">'
        f"{html.escape(quality)}</text>"
    )
    return "".join(parts)


def _legend(kinds: Sequence[str], points: Sequence[Point]) -> str:
    there = {point.kind for point in points}
    dot = '<li><span class="dot k{}"></span>{}</li>'
    items = [dot.format(n % 6, html.escape(kind)) for n, kind in enumerate(kinds) if kind in there]
    if {point.ring for point in points} == {True, False}:
        items.append('<li><span class="dot ring"></span>visual alone</li>')
    return f'<ul class="legend">{"".join(items)}</ul>' if len(items) > 1 else ""


def _steps(low: float, high: float) -> list[float]:
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 7 or s == 0.5)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 of each power of ten in between, and more of them where that is too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(n / 4 for n in range(4, 40))):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _figure(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.3g}"
