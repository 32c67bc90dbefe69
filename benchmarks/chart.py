"""Bar charts as SVG text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

__all__ = ["Bar", "Panel", "bar_chart"]

_COLUMNS = 2
_WIDTH, _GAP, _MARGIN = 440, 40, 20
_HEAD, _ROW, _FOOT = 52, 26, 24
_LABEL, _VALUE = 150, 80  # widths of the text left and right of a bar
_LEAST = 1.0  # a bar that could not be seen would look like a missing one

_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2933; }
    .title { font-size: 15px; font-weight: 600; }
    .note, .foot { fill: #616e7c; font-size: 12px; }
    .value { font-variant-numeric: tabular-nums; }
    .paper { fill: #ffffff; }
    .bar { fill: #9aa5b1; }
    .ours { fill: #2563eb; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e7eb; }
      .note, .foot { fill: #9aa5b1; }
      .paper { fill: #0d1117; }
      .bar { fill: #616e7c; }
      .ours { fill: #60a5fa; }
    }
"""


class Bar(msgspec.Struct, frozen=True):
    """`text`: how the value is written. `is_ours`: drawn in the colour that stands out."""

    label: str
    value: float
    text: str
    is_ours: bool = False


class Panel(msgspec.Struct, frozen=True):
    """One group of bars, which share a scale that begins at 0."""

    title: str
    note: str
    bars: Sequence[Bar]


def bar_chart(title: str, panels: Sequence[Panel], foot: str) -> str:
    """An SVG document: the panels in two columns, `foot` as a line below them."""
    rows = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    width = 2 * _MARGIN + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP
    parts: list[str] = []
    top = _MARGIN
    for row in rows:
        for column, panel in enumerate(row):
            parts += _panel(panel, _MARGIN + column * (_WIDTH + _GAP), top)
        top += _HEAD + _ROW * max(len(panel.bars) for panel in row) + _FOOT
    parts.append(_text(_MARGIN, top, foot, "foot"))
    height = top + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}">',
            f"  <title>{escape(title)}</title>",
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="paper" width="{width}" height="{height}"/>',
            *(f"  {part}" for part in parts),
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, left: float, top: float) -> list[str]:
    most = max((bar.value for bar in panel.bars), default=0.0) or 1.0
    parts = [_text(left, top + 14, panel.title, "title"), _text(left, top + 34, panel.note, "note")]
    for place, bar in enumerate(panel.bars):
        y = top + _HEAD + place * _ROW
        length = max(bar.value / most * (_WIDTH - _LABEL - _VALUE), _LEAST)
        kind = "bar ours" if bar.is_ours else "bar"
        parts.append(_text(left, y + 13, bar.label, "label"))
        parts.append(f'<rect class="{kind}" x="{left + _LABEL}" y="{y}" width="{length:.1f}" height="18" rx="2"/>')
        parts.append(_text(left + _LABEL + length + 8, y + 13, bar.text, "value"))
    return parts


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
