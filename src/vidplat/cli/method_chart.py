"""A picture of quality against cost, one line per method, as a stand-alone SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 24, 52
COLOURS = (
    "#1b6ca8",
    "#d1495b",
    "#2e933c",
    "#8f5ec9",
    "#e08e0b",
    "#00808c",
    "#a8327d",
    "#6b705c",
    "#1d3557",
    "#b5651d",
)
MARKS = ("circle", "square", "diamond")


def method_chart(
    points: Mapping[str, Sequence[tuple[float, float]]], *, title: str, measure: str
) -> str:
    """SVG text. `points`: method -> (share of the full run's time, quality), in any order.
    `measure` names quality."""
    every = [point for line in points.values() for point in line]
    low = min((quality for _, quality in every), default=0.0)
    high = max((quality for _, quality in every), default=1.0)
    room = max(1e-9, high - low) * 0.06
    low, high = low - room, high + room
    most = max(1.0, max((cost for cost, _ in every), default=1.0))

    def x(cost: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * cost / most

    def y(quality: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (quality - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="16" font-weight="600">{html.escape(title)}</text>',
    ]
    for share in range(0, round(most * 100) + 1, 25):
        at = x(share / 100)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{share} %</text>'
        )
    for tick in _ticks(low, high):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">'
        "denoising time, share of the full run</text>"
    )
    turned = f'transform="translate(16 {HEIGHT / 2:.0f}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{html.escape(measure)}</text>')
    for number, (name, line) in enumerate(points.items()):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
        places = [(x(cost), y(quality)) for cost, quality in sorted(line)]
        path = " L".join(f"{px:.1f} {py:.1f}" for px, py in places)
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-opacity=".55" '
            'stroke-width="1.5"/>'
        )
        parts += [_mark(mark, px, py, colour) for px, py in places]
        row = TOP + 14 + 19 * number
        parts.append(_mark(mark, WIDTH - RIGHT + 24, row - 4, colour))
        parts.append(f'<text x="{WIDTH - RIGHT + 36}" y="{row}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"{turn}/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round values within [low, high], about six."""
    units = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    unit = next((unit for unit in units if unit >= (high - low) / 6), units[-1])
    return [round(unit * k, 6) for k in range(math.ceil(low / unit), math.floor(high / unit) + 1)]
