"""The report: one HTML file that needs no script and nothing from elsewhere."""
from html import escape

from bench_support import document, plots, results, stats, tables

STYLE = """
body { font: 15px/1.5 "DejaVu Sans", Helvetica, Arial, sans-serif; color: #111827; max-width: 1020px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.7em } h2 { border-top: 1px solid #d1d5db; padding-top: 1em; margin-top: 2em } h3 { margin-bottom: .3em }
table { border-collapse: collapse; font-size: 13px; margin: .6em 0 1.4em } th { text-align: left }
td, th { padding: .2em .9em .2em 0; border-bottom: 1px solid #e5e7eb; vertical-align: top } td.n { text-align: right }
pre { font-size: 12px; overflow-x: auto; background: #f9fafb; padding: 1em } .soft { color: #4b5563 }
.reached, .better { color: #0f766e } .missed, .worse { color: #b91c1c } .open { color: #92400e }
details { margin: .4em 0 } svg { max-width: 100%; height: auto } .nested { background: #fef3c7; padding: 0 .4em }
"""


def _inline(text):
    """Escaped, with **bold** as the documentation has it."""
    parts = escape(text).split("**")
    return "".join(f"<b>{part}</b>" if index % 2 else part for index, part in enumerate(parts))


def _cells(row, tag="td"):
    return "<tr>" + "".join(f"<{tag}{' class=n' if isinstance(cell, (int, float)) else ''}>"
                            f"{cell if isinstance(cell, _Markup) else escape(tables.number(cell) if isinstance(cell, float) else str(cell))}"
                            f"</{tag}>" for cell in row) + "</tr>"


class _Markup(str):
    """Text that is HTML already."""


def _table(head, rows):
    return "<table>" + _cells(head, "th") + "".join(_cells(row) for row in rows) + "</table>" if rows else ""


def _verdict(ratio):
    if ratio["verdict"] == stats.UNDECIDED:
        word = "open"
    else:
        word = "better" if results.is_better(ratio["quantity"], ratio["verdict"]) else "worse"
    return _Markup(f'<span class="{word}">{escape(tables.ratio_words(ratio))}</span>')


def _targets(whole):
    rows = []
    for suite in whole["suites"]:
        for target in suite["targets"]:
            word = tables.REACHED[target["reached"]].lower()
            rows.append((suite["name"], target["text"], target["measured"], _Markup(f'<b class="{word}">{word}</b>')))
    return _table(("suite", "target", "measured", ""), rows)


def _case_table(case):
    rows = []
    for quantity, entry in case["quantities"].items():
        for peer, values in entry["peers"].items():
            ratio = next((_verdict(r) for r in case["ratios"] if (r["quantity"], r["of"]) == (quantity, peer)), "")
            rows.append((f"{entry['title']}, {entry['unit']}".rstrip(", "), peer, float(values["median"]), float(values["p10"]),
                         float(values["p90"]), float(values["p99"]), float(values["most"]), values["count"], ratio))
    return _table(("what", "who", "median", "p10", "p90", "p99", "most", "n", "gyre's, of it (95 % interval)"), rows)


def _details(case):
    """Mappings, threads, descriptors and system calls, folded away."""
    out = []
    for peer, headings in case["details"].items():
        body = ""
        for heading, numbers in headings.items():
            total = sum(numbers.values())
            body += f"<h4>{escape(heading)}: {total:,}</h4>" + _table((), list(numbers.items()))
        out.append(f"<details><summary>{escape(peer)}: memory by mapping, threads, descriptors, system calls</summary>{body}</details>")
    return "".join(out)


def _case(case):
    mark = ' <span class="nested">nested: not comparable with the others</span>' if case["nested"] else ""
    out = [f"<h3>{escape(case['title'])}{mark}</h3>"]
    out += [plots.cdf(f"{entry['title']}, {entry['unit']}", {peer: values["samples"] for peer, values in entry["peers"].items()})
            for quantity, entry in case["quantities"].items()
            if quantity == "exit" and case["group"] == "base" or quantity in ("start", "release")]
    out.append(_case_table(case))
    out += [f'<p class="soft">without {escape(peer)}: {escape(why)}</p>' for peer, why in case["skipped"].items()]
    out += [f'<p class="missed">failed {count} times, not counted: {escape(why)}</p>' for why, count in case["failures"].items()]
    out.append(_details(case))
    return "".join(out)


def _growth(suite):
    """Curves of each group with a parameter; the base case is the first point of all of them."""
    groups = {}
    base = next((case for case in suite["cases"] if case["group"] == "base"), None)
    for case in suite["cases"]:
        if case["parameter"] is not None and case["group"] != "base":
            groups.setdefault(case["group"], []).append(case)
    out = []
    for group, cases in groups.items():
        if len(cases) < 2:
            continue
        for quantity in ("first_byte", "exit") if group != "fleet" else ("start_p50", "start_p99", "rate"):
            curves = {}
            first = [(plots.BASE_PARAMETER.get(group), base)] if base and group in plots.BASE_PARAMETER else []
            for parameter, case in [*first, *((case["parameter"], case) for case in cases)]:
                for peer, values in case["quantities"].get(quantity, {"peers": {}})["peers"].items():
                    curves.setdefault(peer, []).append((parameter, values["p10"], values["median"], values["p90"]))
            known = results.QUANTITIES[quantity]
            out.append(plots.growth(f"{known.title}, {known.unit}, by {group}", curves))
    return "".join(out)


def _bars(suite):
    """For each case of one group without a parameter, the medians with their spread."""
    bars = []
    for case in suite["cases"]:
        for quantity in ("first_byte", "release", "operation", "memory", "pss", "packets_per_cpu", "latency_p50", "throughput",
                         "connections", "to_userland"):
            entry = case["quantities"].get(quantity)
            if entry and case["parameter"] is None:
                bars.append((f"{case['title']}: {entry['title']}", entry["unit"], entry["peers"]))
    return "".join(plots.bars(*bar) for bar in bars)


def _ratios(suite):
    rows = [(case["title"], ratio) for case in suite["cases"] for ratio in case["ratios"]
            if ratio["quantity"] in ("first_byte", "exit", "rate", "operation", "release", "memory", "packets", "packets_per_cpu",
                                     "latency_p50", "throughput", "connections") and ratio["high"] is not None]
    return plots.ratios("gyre's median over another's, with its 95 % interval", [
        (f"{title}, {results.QUANTITIES[ratio['quantity']].title}", ratio["of"], ratio) for title, ratio in rows])


def _suite(suite):
    parts = [f'<h2 id="{suite["name"]}">{escape(suite["title"])}</h2>']
    parts += [f'<p class="soft">{escape(line)}</p>' for line in suite["method"]]
    if suite["timeline"]:
        parts.append(plots.timeline("One start of gyre's, us from exec: what was done until each mark (--boot-timeline)", suite["timeline"]))
    parts += [_growth(suite), _bars(suite), _ratios(suite)]
    parts += [_case(case) for case in suite["cases"]]
    if suite["text"]:
        parts.append(f"<pre>{escape(suite['text'])}</pre>")
    return "".join(parts)


def html(whole):
    facts = "".join(f"<li>{_inline(line)}</li>" for line in document.host_lines(whole))
    missing = "".join(f"<li>without {escape(name)}: {escape(why)}</li>" for name, why in whole["missing"].items())
    index = " · ".join(f'<a href="#{suite["name"]}">{escape(suite["title"])}</a>' for suite in whole["suites"])
    short = "<p><b>A short run: to see that the suites work, not to measure.</b></p>" if whole["settings"]["quick"] else ""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>gyre: benchmarks</title><style>{STYLE}</style></head>'
            f"<body><h1>gyre: benchmarks</h1>{short}<ul>{facts}{missing}</ul><p>{index}</p><h2>Targets</h2>{_targets(whole)}"
            f"{''.join(_suite(suite) for suite in whole['suites'])}</body></html>\n")
