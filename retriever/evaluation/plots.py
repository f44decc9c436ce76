"""The plot of a report, as SVG inside the page: quality against what it costs, and the systems that nothing beats."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 16, 52


class Point(NamedTuple):
    """A system: what it costs, how good it is, with its interval; kind: what it is coloured by."""

    name: str
    cost: float
    quality: float
    low: float
    high: float
    kind: str


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other is both cheaper and better than, from the cheapest on."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def pareto(points: Sequence[Point], title: str, cost: str, quality: str, unit: str) -> str:
    """Points over a logarithmic cost, the front as a line. Each point says what it is when pointed at."""
    costs = [point.cost for point in points]
    x_low, x_high = math.log10(min(costs)) - 0.12, math.log10(max(costs)) + 0.12
    y_low, y_high = min(p.low for p in points), max(p.high for p in points)
    room = max(y_high - y_low, 0.02) * 0.08
    y_low, y_high = y_low - room, y_high + room

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (y_high - value) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(x, y, (10**x_low, 10**x_high), (y_low, y_high), cost, quality, unit)]
    best = front(points)
    line = " ".join(f"{x(p.cost):.1f},{y(p.quality):.1f}" for p in best)
    parts.append(f'<polyline class="front" points="{line}"/>')
    kinds = list(dict.fromkeys(point.kind for point in points))
    for point in points:
        parts.append(_mark(point, x(point.cost), y, kinds.index(point.kind) % 6, unit, point in best))
    name = html.escape(title)
    return (
        f'<figure class="plot"><figcaption>{name}</figcaption>{_legend(kinds)}'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}; figures are in the tables">'
        f"{''.join(parts)}</svg></figure>"
    )


def _mark(point: Point, left: float, y: object, kind: int, unit: str, best: bool) -> str:
    assert callable(y)
    top = y(point.quality)
    told = f"{point.name}: {point.quality:.3f} ({point.low:.3f} to {point.high:.3f}), {_figure(point.cost)} {unit}"
    whisker = f'<path class="whisker" d="M{left:.1f} {y(point.low):.1f}V{y(point.high):.1f}"/>'
    shape = f'<circle class="k{kind}" cx="{left:.1f}" cy="{top:.1f}" r="{6 if best else 4.5}"/>'
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


def _legend(kinds: Sequence[str]) -> str:
    items = "".join(f'<li><span class="dot k{n % 6}"></span>{html.escape(kind)}</li>' for n, kind in enumerate(kinds))
    return f'<ul class="legend">{items}</ul>' if len(kinds) > 1 else ""


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
