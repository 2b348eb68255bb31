"""The suites that measure VMMs from outside, one by one or all in one run: `tools/bench all`."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from bench_support import (boot, cleanup, density, document, exits, host, linux, net, older, overhead, parallel, peers, report,
                           results, schema, session as sessions, tables, vsock)
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# In the order in which they run.
SUITES = {module.NAME: module for module in (boot, parallel, density, overhead, exits, cleanup, net, vsock, linux)}
LEAST_RUNS = 30
TARGETS = (building.DAEMON, "tools/bench_support/gyre-floor", sessions.RUNNER, sessions.FLEET, exits.PROGRAM, *net.PROGRAMS, *vsock.PROGRAMS)
SLOW_PEERS = ("qemu-q35",)  # left out of a short run unless they are asked for


def _runs(text):
    value = int(text)
    if value < LEAST_RUNS:
        raise argparse.ArgumentTypeError(f"at least {LEAST_RUNS} runs, or a median says little")
    return value


def _peer(text):
    name, _, path = text.partition("=")
    if name not in peers.NAMES or not path:
        raise argparse.ArgumentTypeError(f"NAME=PATH, with one of {', '.join(peers.NAMES)}")
    return name, path


def add_arguments(parser, names):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, made up to "
                        "date)")
    parser.add_argument("--peer", type=_peer, action="append", default=[], metavar="NAME=PATH",
                        help=f"the program of a peer: {', '.join(peers.NAMES)} (default: those that are installed)")
    parser.add_argument("--only", action="append", default=[], choices=peers.NAMES, metavar="NAME", help="only these peers")
    parser.add_argument("--runs", type=_runs, default=LEAST_RUNS, help="of each peer where a start is measured (default and least: "
                        f"{LEAST_RUNS})")
    parser.add_argument("--warmup", type=int, default=3, help="rounds before, not counted (default 3)")
    parser.add_argument("--density-limit", type=int, default=1024, metavar="MIB", help="memory for idle VMs (default 1024)")
    parser.add_argument("--quick", action="store_true", help="two runs of a few cases: to see that the suites work, not to measure")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured there")
    parser.add_argument("--html", type=pathlib.Path, help="write a report with charts there")
    if len(names) > 1:
        parser.add_argument("--docs", action="store_true", help="put the run into docs/benchmarks.md")
        parser.add_argument("--skip", action="append", default=[], choices=(*names, *older.NAMES), help="leave a suite out")
    parser.set_defaults(run=lambda arguments: run(arguments, names))


def add_report_arguments(parser):
    parser.add_argument("run_json", type=pathlib.Path, metavar="FILE", help="what --json has written")
    parser.add_argument("--html", type=pathlib.Path, help="write the report there")
    parser.add_argument("--docs", action="store_true", help="put the run into docs/benchmarks.md")
    parser.set_defaults(run=run_report)


def run_report(arguments):
    whole = json.loads(arguments.run_json.read_text(encoding="utf-8"))
    problems = schema.problems(whole)
    if problems:
        print(f"bench: {arguments.run_json} is no run of these benchmarks: {problems[0]}", file=sys.stderr)
        return 1
    _write_reports(arguments, whole)
    return 0


def _write_reports(arguments, whole):
    if arguments.html:
        arguments.html.write_text(report.html(whole), encoding="utf-8")
        print(f"wrote {arguments.html}")
    if getattr(arguments, "docs", False):
        print(f"wrote {document.write_docs(ROOT / 'docs' / 'benchmarks.md', whole)}")


def _session(arguments, directory):
    build = arguments.build or building.compile("release", *TARGETS)
    for needed in (sessions.RUNNER, sessions.FLEET):
        if not (build / needed).is_file():
            raise SystemExit(f"bench: no {build / needed}: build it first (meson, ninja), or name another build by --build")
    found, missing = peers.find(build, dict(arguments.peer), arguments.only)
    if arguments.quick:
        asked = {*arguments.only, *(name for name, _ in arguments.peer)}
        missing |= {peer.name: "left out of a short run" for peer in found if peer.name in SLOW_PEERS and peer.name not in asked}
        found = [peer for peer in found if peer.name not in missing]
    return sessions.Session(build, directory, found, 2 if arguments.quick else arguments.runs, arguments.warmup,
                            quick=arguments.quick, density_mib=arguments.density_limit), missing


def _measure(name, module, session):
    print(f"bench: {name}", flush=True)
    began = time.monotonic()
    try:
        suite = module.run(session)
    except (OSError, ValueError, subprocess.SubprocessError, sessions.Failure) as error:
        # The others are worth having.
        suite = results.Suite(name, name, [], [results.Case("broken", "the suite itself", failures={f"{name}: {error}": 1})])
    suite.seconds = time.monotonic() - began
    tables.show(suite)
    print(f"bench: {name} took {suite.seconds:.0f} s", flush=True)
    return suite


def run(arguments, names):
    began = time.monotonic()
    facts = host.facts(ROOT)
    skip = getattr(arguments, "skip", [])
    with tempfile.TemporaryDirectory(prefix="gyre-bench-") as directory:
        session, missing = _session(arguments, pathlib.Path(directory))
        for name, why in missing.items():
            print(f"without {name}: {why}")
        session.survey()
        measured = [_measure(name, SUITES[name], session) for name in names if name not in skip]
        if len(names) > 1 and not arguments.quick:
            measured += [_measure(name, older.module(name), session) for name in older.NAMES if name not in skip]
    facts["load_after"] = host.load()
    whole = document.make(facts, session, missing, measured, time.monotonic() - began)
    tables.conclude(whole)
    if arguments.json:
        arguments.json.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    _write_reports(arguments, whole)
    return _status(measured)


def _status(measured):
    """1 where one of our own figures is missing; a peer's trouble is told, and a missed target is no failure."""
    ours, others = [], []
    for suite in measured:
        if not suite.text and not suite.cases:
            ours.append(f"{suite.name}: nothing was measured")
        for case in suite.cases:
            where = f"{suite.name}, {case.title}"
            if results.OURS in case.skipped:
                ours.append(f"{where}: {results.OURS}: {case.skipped[results.OURS]}")
            for why in case.failures:
                foreign = why.partition(":")[0] in {*peers.NAMES} - {results.OURS, results.FLOOR}
                (others if foreign else ours).append(f"{where}: {why}")
    for line in ours + others:
        print(f"FAILED  {line}", file=sys.stderr)
    return 1 if ours else 0
