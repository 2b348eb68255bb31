"""A self-contained SVG of curves: for each benchmark a panel, for each peer a line over its parameter."""
import math
from html import escape

WIDTH, PANEL_HEIGHT, GAP = 860, 200, 66
LEFT, RIGHT, TOP = 90, 200, 96
COLOURS = {"liburing": "#6b7280", "liburing, level": "#9ca3af", "gyre": "#0f766e", "gyre, level": "#14b8a6",
           "glib": "#b45309", "eventfds": "#6b7280"}


def _text(x, y, text, size=12, anchor="start", fill="#111827", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{escape(text)}</text>')


def _decades(values):
    return range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9) + 1)


def _panel(title, peers, top):
    points = [(p, v["median_ns"]) for values in peers.values() for p, v in values.items()]
    across, up = _decades([p for p, _ in points]), _decades([ns for _, ns in points])

    def x(value):
        return LEFT + (math.log10(value) - across[0]) / max(across[-1] - across[0], 1) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return top + PANEL_HEIGHT - (math.log10(value) - up[0]) / max(up[-1] - up[0], 1) * PANEL_HEIGHT

    out = [_text(LEFT, top - 10, f"{title}, ns", 14, weight="bold")]
    for power in up:
        out.append(f'<line x1="{LEFT}" y1="{y(10.0**power):.1f}" x2="{WIDTH - RIGHT}" y2="{y(10.0**power):.1f}" stroke="#e5e7eb"/>')
        out.append(_text(LEFT - 8, y(10.0**power) + 4, f"{10.0**power:g}", 11, "end", "#4b5563"))
    for power in across:
        out.append(_text(x(10.0**power), top + PANEL_HEIGHT + 16, f"{10.0**power:g}", 11, "middle", "#4b5563"))
    labels = []
    for peer, values in peers.items():
        colour = COLOURS.get(peer, "#1d4ed8")
        line = [(x(p), y(v["median_ns"])) for p, v in sorted(values.items())]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in line]
        labels.append((line[-1][1], peer, colour, values[max(values)]["median_ns"]))
    below = -math.inf
    for height, peer, colour, value in sorted(labels):
        below = max(height + 4, below + 15)
        out.append(_text(WIDTH - RIGHT + 12, below, f"{peer}: {value:.4g}", 12, fill=colour))
    return out


def draw(title, subtitle, summary, foot):
    """Benchmarks of one parameter only are left to the table."""
    body, top = [], TOP + 10
    for benchmark, peers in summary.items():
        if len({parameter for values in peers.values() for parameter in values}) > 1:
            body += _panel(benchmark, peers, top)
            top += PANEL_HEIGHT + GAP
    top -= 20
    for line in foot:
        body.append(_text(24, top, line, 11, fill="#4b5563"))
        top += 16
    head = [_text(24, 34, title, 19, weight="bold"), _text(24, 56, subtitle, 12, fill="#374151")]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>", f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>', *head, *body,
        "</svg>", ""])
