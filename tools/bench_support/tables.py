"""A run in words: on the terminal, and as tables for the documentation."""
from bench_support import results, stats

REACHED = {True: "reached", False: "MISSED", None: "open"}  # open: the noise hides it


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def show(suite):
    """Prints a suite's table; suites of their own print theirs."""
    if suite.text:
        print(suite.text)
    for case in suite.cases:
        data = results.case_data(case)
        nested = " (nested)" if case.nested else ""
        print(f"  {case.title}{nested}")
        for quantity, entry in data["quantities"].items():
            for peer, values in entry["peers"].items():
                print(f"    {entry['title']:38} {peer:14} {values['median']:10.4g} {entry['unit']:5}"
                      f" p10 {values['p10']:.4g}, p99 {values['p99']:.4g}, n {values['count']}{_ratio(data, quantity, peer)}")
        for peer, why in case.skipped.items():
            print(f"    without {peer}: {why}")
        for why, count in case.failures.items():
            print(f"    FAILED {count} times, not counted above: {why}")
    for target in suite.targets:
        print(f"  {REACHED[target.reached]:8} {target.text}: {target.measured}")


def ratio_words(ratio):
    """Ours, of another's: the ratio with its interval and the verdict."""
    high = number(ratio["high"]) if ratio["high"] is not None else "any"
    if ratio["verdict"] == stats.UNDECIDED:
        word = f"no verdict: {ratio['why']}"
    else:
        word = "better" if results.is_better(ratio["quantity"], ratio["verdict"]) else "worse"
    return f"{number(ratio['ratio'])} ({number(ratio['low'])} to {high}), {word}"


def _ratio(data, quantity, peer):
    for ratio in data["ratios"]:
        if (ratio["quantity"], ratio["of"]) == (quantity, peer):
            return f"; {results.OURS} of it: {ratio_words(ratio)}"
    return ""


def conclude(whole):
    """The targets of all suites once more, and what the machine was doing."""
    targets = [(suite["name"], target) for suite in whole["suites"] for target in suite["targets"]]
    if targets:
        print("targets:")
    for name, target in targets:
        print(f"  {REACHED[target['reached']]:8} {name}: {target['text']}: {target['measured']}")
    facts = whole["host"]
    print(f"load {' '.join(facts['load_before'])} before, {' '.join(facts['load_after'])} after; {whole['seconds']:.0f} s in all")
    if float(facts["load_before"][0]) > facts["cpu"]["count"] / 2:
        print("note: something else is running here, so figures scatter: compare medians of a quiet machine")


def _row(cells):
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def _table(head, rows):
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows), ""] if rows else []


def markdown(whole):
    """Targets, then a table a suite: the median of each peer, and ours as a ratio to it."""
    lines = ["### Targets", ""]
    lines += _table(("suite", "target", "measured", ""), [
        (suite["name"], target["text"], target["measured"], REACHED[target["reached"]].lower())
        for suite in whole["suites"] for target in suite["targets"]])
    for suite in whole["suites"]:
        rows = []
        for case in suite["cases"]:
            title = case["title"] + (" (nested)" if case["nested"] else "")
            for quantity, entry in case["quantities"].items():
                for peer, values in entry["peers"].items():
                    ratio = next((ratio_words(r) for r in case["ratios"] if (r["quantity"], r["of"]) == (quantity, peer)), "")
                    rows.append((title, f"{entry['title']}, {entry['unit']}".rstrip(", "), peer, number(values["median"]),
                                 number(values["p99"]), values["count"], ratio))
        if rows:
            lines += [f"### {suite['title']}", "", *suite["method"], ""]
            lines += _table(("case", "what", "who", "median", "p99", "n", "gyre's, of it (95 % interval)"), rows)
        left = sorted({f"{peer}: {why}" for case in suite["cases"] for peer, why in case["skipped"].items()})
        lines += [*(f"* without {line}" for line in left), ""] if left else []
        if suite["text"]:
            lines += [f"### {suite['title']}", "", "```", suite["text"], "```", ""]
    return lines
