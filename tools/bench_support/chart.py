"""A self-contained SVG chart: for each quantity a panel, for each peer a dot with whiskers."""
import math
from html import escape

WIDTH = 860
LEFT, RIGHT = 110, 250
TOP = 86
ROW = 30
PANEL_GAP = 62
COLOURS = {"floor": "#6b7280", "gyred": "#0f766e", "qemu": "#b45309"}


class _Axis:
    """A logarithmic axis over whole 1-2-5 steps that hold all values."""

    def __init__(self, values):
        positive = [value for value in values if value > 0] or [1]
        steps = [base * 10.0**exponent for exponent in range(-4, 8) for base in (1, 2, 5)]
        self.low = max(step for step in steps if step <= min(positive) * 0.999)
        self.high = min(step for step in steps if step >= max(positive) * 1.001)
        self.ticks = [step for step in steps if self.low <= step <= self.high * 1.0001]

    def x(self, value):
        value = min(max(value, self.low), self.high)
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _text(x, y, text, size=12, anchor="start", fill="#111827", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{escape(text)}</text>')


def _line(x1, y1, x2, y2, stroke, width=1.0, dash=""):
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-width="{width}"{dashes}/>')


def _panel(panel, top):
    rows = panel["rows"]
    values = [row[key] for row in rows for key in ("p10", "median", "p90")]
    target = panel.get("target")
    axis = _Axis(values + ([target["value"]] if target else []))
    bottom = top + ROW * len(rows)
    out = [_text(LEFT, top - 12, panel["title"], 14, weight="bold")]
    for tick in axis.ticks:
        out.append(_line(axis.x(tick), top, axis.x(tick), bottom, "#e5e7eb"))
        out.append(_text(axis.x(tick), bottom + 15, f"{tick:g}", 11, "middle", "#4b5563"))
    out.append(_text(WIDTH - RIGHT + 16, bottom + 15, panel["unit"], 11, fill="#4b5563"))
    if target:
        out.append(_line(axis.x(target["value"]), top - 4, axis.x(target["value"]), bottom, "#dc2626", 1.5, "4 3"))
        out.append(_text(WIDTH - RIGHT + 16, top - 12, f"- - {target['label']}", 11, fill="#dc2626"))
    for index, row in enumerate(rows):
        y = top + ROW * index + ROW / 2
        colour = COLOURS.get(row["peer"], "#1d4ed8")
        out.append(_text(LEFT - 12, y + 4, row["peer"], 13, "end", weight="bold"))
        out.append(_line(axis.x(row["p10"]), y, axis.x(row["p90"]), y, colour, 2))
        for end in ("p10", "p90"):
            out.append(_line(axis.x(row[end]), y - 6, axis.x(row[end]), y + 6, colour, 2))
        out.append(f'<circle cx="{axis.x(row["median"]):.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>')
        out.append(_text(WIDTH - RIGHT + 16, y + 4, row["label"], 12))
    return out, bottom + PANEL_GAP


def draw(title, subtitle, panels, foot):
    """The chart as text. A panel: title, unit, rows of peer/p10/median/p90/label, perhaps a target."""
    body = []
    y = TOP + 24
    for panel in panels:
        if panel["rows"]:
            lines, y = _panel(panel, y)
            body += lines
    y -= 10
    for line in foot:
        body.append(_text(24, y, line, 11, fill="#4b5563"))
        y += 16
    head = [_text(24, 34, title, 19, weight="bold"), _text(24, 56, subtitle, 12, fill="#374151")]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{y:.0f}" fill="#ffffff"/>', *head, *body, "</svg>", ""])
