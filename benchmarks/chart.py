"""Draw measurements as bars, in an SVG that is readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABELS, GAP, MARGIN = 960, 270, 40, 24
ROW, BAR, HEAD = 28, 16, 56
BAR_ROOM = (WIDTH - LABELS - 2 * MARGIN - GAP) // 2
VALUE_ROOM = 84  # the text after the longest bar
# The picture has its own background, because a page can be dark where its browser prefers light.
STYLE = """
.page { fill: #ffffff; stroke: #d0d7de } text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px } .quiet { fill: #59636e } .ours { fill: #0969da } .theirs { fill: #8c959f }
.first { font-weight: 600 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .quiet { fill: #9198a1 } .ours { fill: #4493f8 }
.theirs { fill: #6e7681 } }
"""


@dataclass(frozen=True)
class Bar:
    """One tool: its seconds, and the MiB of all its processes."""

    name: str
    seconds: float
    mebibytes: float
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """The tools that did the same work."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Chart:
    """A picture of a chapter: the name of its file, and a text that says what it shows."""

    name: str
    text: str
    svg: str


def bars(panels: Sequence[Panel]) -> str:
    """Return the SVG: two bars per tool, for time and for memory. Each panel has its own scales."""
    parts: list[str] = []
    top = MARGIN
    for panel in panels:
        parts += _panel(panel, top)
        top += HEAD + ROW * len(panel.bars) + MARGIN
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    page = f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{top - 1}" rx="8"/>'
    whole = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<style>{STYLE}</style>", page, *parts]
    return "\n".join([*whole, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    lefts = MARGIN + LABELS, MARGIN + LABELS + BAR_ROOM + GAP
    parts = [_text(MARGIN, top + 14, panel.title, "title")]
    parts += [_text(left, top + 40, head, "quiet") for left, head in zip(lefts, ("time", "memory"), strict=True)]
    most = max(bar.seconds for bar in panel.bars), max(bar.mebibytes for bar in panel.bars)
    for number, bar in enumerate(panel.bars):
        y = top + HEAD + ROW * number
        parts.append(_text(MARGIN, y + 13, bar.name, "first" if bar.ours else ""))
        values = (bar.seconds, f"{bar.seconds:.1f} s"), (bar.mebibytes, f"{bar.mebibytes:,.0f} MiB")
        for left, largest, (value, text) in zip(lefts, most, values, strict=True):
            width = max(2.0, (BAR_ROOM - VALUE_ROOM) * value / largest)
            kind = "ours" if bar.ours else "theirs"
            parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
            parts.append(_text(left + width + 8, y + 13, text, ""))
    return parts


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
