"""SVG charts for the report: curves of growth, distributions, bars with whiskers, ratios with intervals, a timeline."""
import math
from html import escape

WIDTH, LEFT, RIGHT = 900, 260, 150
COLOURS = {"floor": "#6b7280", "gyre": "#0f766e", "qemu-microvm": "#b45309", "qemu-q35": "#be185d", "firecracker": "#1d4ed8",
           "cloud-hypervisor": "#7c3aed", "kvmtool": "#65a30d", "crosvm": "#0891b2", "stratovirt": "#dc2626"}
# What the base case of a start is, as a point of each group's curve; disks and networks begin at none, which a logarithmic
# axis does not have.
BASE_PARAMETER = {"vcpus": 1, "memory": 128}
ROW = 22


def _text(x, y, text, anchor="start", fill="#111827", size=12, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">'
            f"{escape(text)}</text>")


def _line(x1, y1, x2, y2, stroke, width=1.0, dash=""):
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"{dashes}/>'


def _svg(title, height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'role="img" font-family="DejaVu Sans, Helvetica, Arial, sans-serif"><title>{escape(title)}</title>'
            f'{_text(10, 18, title, size=14, weight="bold")}{"".join(body)}</svg>')


def colour(peer):
    return COLOURS.get(peer, "#374151")


class Scale:
    """A logarithmic scale over whole 1-2-5 steps that hold all values; those that are not positive stand at its low end."""

    def __init__(self, values, start, end):
        positive = [value for value in values if value > 0 and math.isfinite(value)] or [1]
        steps = [base * 10.0**power for power in range(-9, 13) for base in (1, 2, 5)]
        self.low = max(step for step in steps if step <= min(positive) * 1.0001)
        self.high = min(step for step in steps if step >= max(positive) * 0.9999)
        if self.high <= self.low:
            self.high = min(step for step in steps if step > self.low * 1.01)
        self.ticks = [step for step in steps if self.low * 0.999 <= step <= self.high * 1.001]
        if len(self.ticks) > 12:
            self.ticks = [step for step in self.ticks if math.isclose(10 ** round(math.log10(step)), step, rel_tol=1e-6)]
        self._start, self._end = start, end

    def __call__(self, value):
        value = min(max(value, self.low), self.high)
        return self._start + math.log(value / self.low) / math.log(self.high / self.low) * (self._end - self._start)


def _grid(scale, top, bottom):
    out = []
    for tick in scale.ticks:
        out += [_line(scale(tick), top, scale(tick), bottom, "#e5e7eb"),
                _text(scale(tick), bottom + 15, f"{tick:g}", "middle", "#4b5563", 11)]
    return out


def bars(title, unit, peers):
    """Each peer's median with whiskers from p10 to p90. The axis is logarithmic, so lengths do not compare: figures do."""
    x = Scale([values[key] for values in peers.values() for key in ("p10", "median", "p90")], LEFT, WIDTH - RIGHT)
    bottom = 32 + ROW * len(peers)
    body = _grid(x, 30, bottom)
    for index, (peer, values) in enumerate(peers.items()):
        y = 32 + ROW * index + ROW / 2
        body += [_text(LEFT - 10, y + 4, peer, "end"),
                 f'<rect x="{LEFT}" y="{y - 6:.1f}" width="{max(1.0, x(values["median"]) - LEFT):.1f}" height="12" fill="{colour(peer)}" '
                 'fill-opacity="0.75"/>',
                 _line(x(values["p10"]), y, x(values["p90"]), y, "#111827", 1.5),
                 *(_line(x(values[end]), y - 4, x(values[end]), y + 4, "#111827", 1.5) for end in ("p10", "p90")),
                 _text(WIDTH - RIGHT + 12, y + 4, f"{values['median']:.4g} {unit}")]
    return _svg(f"{title} (logarithmic)", bottom + 26, body)


def cdf(title, samples):
    """The share of samples up to each value."""
    samples = {peer: sorted(values) for peer, values in samples.items() if len(values) > 1}
    if not samples:
        return ""
    top, bottom = 34, 194
    x = Scale([value for values in samples.values() for value in values], 60, WIDTH - RIGHT - 20)
    body = _grid(x, top, bottom)
    for share in (0, 0.5, 0.9, 1):
        y = bottom - share * (bottom - top)
        body += [_line(60, y, WIDTH - RIGHT - 20, y, "#e5e7eb"), _text(52, y + 4, f"{share * 100:.0f} %", "end", "#4b5563", 11)]
    for index, (peer, values) in enumerate(samples.items()):
        points, before = [f"{x(values[0]):.1f},{bottom:.1f}"], bottom
        for number, value in enumerate(values, 1):
            y = bottom - number / len(values) * (bottom - top)
            points += [f"{x(value):.1f},{before:.1f}", f"{x(value):.1f},{y:.1f}"]
            before = y
        body += [f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour(peer)}" stroke-width="1.8"/>',
                 _text(WIDTH - RIGHT, top + 14 + 18 * index, peer, fill=colour(peer))]
    return _svg(f"{title}: distribution (logarithmic)", bottom + 26, body)


def growth(title, curves):
    """Medians over a parameter, with bars from p10 to p90; both axes are logarithmic."""
    curves = {peer: sorted(point for point in points if point[0]) for peer, points in curves.items()}
    curves = {peer: points for peer, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    top, bottom = 34, 234
    x = Scale([point[0] for points in curves.values() for point in points], 70, WIDTH - RIGHT - 20)
    y = Scale([value for points in curves.values() for point in points for value in point[1:]], bottom, top)
    body = []
    for parameter in sorted({point[0] for points in curves.values() for point in points}):
        body.append(_text(x(parameter), bottom + 16, f"{parameter:g}", "middle", "#4b5563", 11))
    for tick in y.ticks:
        body += [_line(70, y(tick), WIDTH - RIGHT - 20, y(tick), "#e5e7eb"), _text(62, y(tick) + 4, f"{tick:g}", "end", "#4b5563", 11)]
    labels = []
    for peer, points in curves.items():
        line = " ".join(f"{x(point[0]):.1f},{y(point[2]):.1f}" for point in points)
        body.append(f'<polyline points="{line}" fill="none" stroke="{colour(peer)}" stroke-width="2"/>')
        for parameter, low, median, high in points:
            body += [_line(x(parameter), y(low), x(parameter), y(high), colour(peer), 1.2),
                     f'<circle cx="{x(parameter):.1f}" cy="{y(median):.1f}" r="3.2" fill="{colour(peer)}"/>']
        labels.append((y(points[-1][2]), peer, points[-1][2]))
    below = -math.inf
    for height, peer, value in sorted(labels):
        below = max(height + 4, below + 15)
        body.append(_text(WIDTH - RIGHT - 8, below, f"{peer}: {value:.4g}", fill=colour(peer)))
    return _svg(title, bottom + 28, body)


def ratios(title, rows):
    """(what, peer, ratio with low and high) a row, around a line at 1; one without a verdict is hollow."""
    if not rows:
        return ""
    x = Scale([ratio[key] for _, _, ratio in rows for key in ("low", "ratio", "high")] + [1], 470, WIDTH - RIGHT)
    bottom = 32 + ROW * len(rows)
    body = [*_grid(x, 30, bottom), _line(x(1), 26, x(1), bottom, "#dc2626", 1.5, "4 3")]
    for index, (what, peer, ratio) in enumerate(rows):
        y = 32 + ROW * index + ROW / 2
        fill = colour(peer) if ratio["verdict"] != "undecided" else "#ffffff"
        body += [_text(460, y + 4, f"{what}, of {peer}", "end", size=11), _line(x(ratio["low"]), y, x(ratio["high"]), y, colour(peer), 2),
                 f'<circle cx="{x(ratio["ratio"]):.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour(peer)}" stroke-width="1.5"/>',
                 _text(WIDTH - RIGHT + 12, y + 4, f"{ratio['ratio']:.3g}")]
    return _svg(title, bottom + 26, body)


def timeline(title, steps):
    """(phase, from, to) a row on one linear axis."""
    end = max(to for _, _, to in steps) or 1
    bottom = 32 + ROW * len(steps)

    def x(value):
        return LEFT + value / end * (WIDTH - LEFT - RIGHT)

    body = []
    for share in range(0, 5):
        value = end * share / 4
        body += [_line(x(value), 30, x(value), bottom, "#e5e7eb"), _text(x(value), bottom + 15, f"{value:.0f}", "middle", "#4b5563", 11)]
    for index, (phase, begin, to) in enumerate(steps):
        y = 32 + ROW * index + ROW / 2
        body += [_text(LEFT - 10, y + 4, phase, "end"),
                 f'<rect x="{x(begin):.1f}" y="{y - 7:.1f}" width="{max(1.0, x(to) - x(begin)):.1f}" height="14" fill="{colour("gyre")}"/>',
                 _text(x(to) + 6, y + 4, f"{to - begin:.0f}", fill="#4b5563", size=11)]
    return _svg(title, bottom + 26, body)
