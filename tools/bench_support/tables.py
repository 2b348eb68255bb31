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


def _end(ratio):
    return number(ratio["high"]) if ratio["high"] is not None else "any"


def ratio_words(ratio):
    """Ours, of another's: the ratio with its interval and the verdict."""
    if ratio["verdict"] == stats.UNDECIDED:
        word = f"no verdict: {ratio['why']}"
    else:
        word = "better" if results.is_better(ratio["quantity"], ratio["verdict"]) else "worse"
    return f"{number(ratio['ratio'])} ({number(ratio['low'])} to {_end(ratio)}), {word}"


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


def _short(ratio):
    """A ratio in a cell: with its interval where there is a verdict, and without one where there is none."""
    if ratio is None:
        return ""
    if ratio["verdict"] == stats.UNDECIDED:
        return f"{number(ratio['ratio'])}, no verdict"
    return f"{number(ratio['ratio'])} ({number(ratio['low'])} to {_end(ratio)})"


def _suite_rows(suite, peers):
    others = [peer for peer in peers if peer != results.OURS]
    for case in suite["cases"]:
        title = case["title"] + (" (nested)" if case["nested"] else "")
        for quantity, entry in case["quantities"].items():
            ratios = {ratio["of"]: ratio for ratio in case["ratios"] if ratio["quantity"] == quantity}
            medians = [number(entry["peers"][peer]["median"]) if peer in entry["peers"] else "" for peer in peers]
            yield (title, f"{entry['title']}, {entry['unit']}".rstrip(", "), *medians, *(_short(ratios.get(peer)) for peer in others))


def markdown(whole):
    """Targets, then a table a suite: each peer's median, and ours as a ratio to it."""
    lines = ["### Targets", ""]
    lines += _table(("suite", "target", "measured", ""), [
        (suite["name"], target["text"], target["measured"], REACHED[target["reached"]].lower())
        for suite in whole["suites"] for target in suite["targets"]])
    for suite in whole["suites"]:
        seen = {peer for case in suite["cases"] for entry in case["quantities"].values() for peer in entry["peers"]}
        peers = [*(peer for peer in whole["peers"] if peer in seen), *sorted(seen - set(whole["peers"]))]
        lines += [f"### {suite['title']}", "", *suite["method"], *([""] if suite["method"] else [])]
        lines += _table(("case", "median of", *peers, *(f"gyre / {peer}" for peer in peers if peer != results.OURS)),
                        list(_suite_rows(suite, peers)))
        left = {}
        for case in suite["cases"]:
            for peer, why in [*case["skipped"].items(), *(("failed", why) for why in case["failures"])]:
                left.setdefault((peer, why), []).append(case["title"])
        lines += [f"* without {peer}: {', '.join(titles) if len(titles) < 4 else f'{len(titles)} cases'}: {why}"
                  if peer != "failed" else f"* failed: {why}" for (peer, why), titles in left.items()] + ([""] if left else [])
        if suite["text"]:
            lines += ["```", suite["text"], "```", ""]
    return lines
