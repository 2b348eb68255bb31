"""The event loop against GLib's main loop and bare liburing, in one run."""
import collections
import json
import pathlib
import statistics
import subprocess
import sys

from bench_support import curves, host
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = "tools/bench_support/gyre-loop-bench"
# What we want; see README.
LEAST_OF_GLIB = 3.0  # events a second with 100 active fds
LEAST_OF_LIBURING = 0.8  # with 1,000
MOST_OF_EVENTFDS = 1.3  # time of a wake-up

METHOD = (
    "Each sample lasts 20 ms or more; the table shows medians of the rounds, in which the peers take turns in one thread.",
    "event: every eventfd is written to, then the loop serves them all; the write counts. liburing and gyre: a multishot",
    "poll, no read; 'level': a one-shot poll, read and placed again; glib: a unix fd source that reads.",
    "wake: half of a round trip between two threads pinned to CPUs; timers: set an hour ahead, moved, and fired at once.",
)


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--rounds", type=int, default=9, help="of all peers in turn (default 9)")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured there")
    parser.add_argument("--svg", type=pathlib.Path, help="write the curves there")
    parser.set_defaults(run=run)


def measure(program, rounds):
    """{benchmark: {peer: {parameter: [ns]}}}, in the order they came."""
    result = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=60 * rounds + 60, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip() or f"{program.name} ended with {result.returncode}")
    samples = {}
    for line in result.stdout.splitlines():
        entry = json.loads(line)
        peers = samples.setdefault(entry["benchmark"], {})
        peers.setdefault(entry["peer"], collections.defaultdict(list))[entry["parameter"]].append(entry["ns"])
    return samples


def summarise(samples):
    return {benchmark: {peer: {parameter: {"median_ns": statistics.median(values), "least_ns": min(values),
                                           "most_ns": max(values), "count": len(values)}
                               for parameter, values in parameters.items()}
                        for peer, parameters in peers.items()}
            for benchmark, peers in samples.items()}


def median(summary, benchmark, peer, parameter):
    return summary.get(benchmark, {}).get(peer, {}).get(parameter, {}).get("median_ns")


def verdicts(summary):
    """(text, reached) for each target that could be judged."""
    out = []

    def judge(text, benchmark, parameter, ours, peer, speed, limit):
        mine, theirs = median(summary, benchmark, ours, parameter), median(summary, benchmark, peer, parameter)
        if mine and theirs:
            ratio = theirs / mine if speed else mine / theirs
            word = "at least" if speed else "at most"
            out.append((f"{text}: {ratio:.2f} x {peer}, {word} {limit:g}", ratio >= limit if speed else ratio <= limit))

    judge("events a second at 100 fds", "event", 100, "gyre", "glib", True, LEAST_OF_GLIB)
    judge("events a second at 1000 fds", "event", 1000, "gyre", "liburing", True, LEAST_OF_LIBURING)
    judge("events a second at 1000 fds, level-triggered", "event", 1000, "gyre, level", "liburing, level", True,
          LEAST_OF_LIBURING)
    for where in ("same", "other"):
        judge(f"wake-up, {where} CPU", f"wake, {where} CPU", 1, "gyre", "eventfds", False, MOST_OF_EVENTFDS)
    idle = median(summary, "wake-ups a second, idle", "gyre", 1)
    if idle is not None:
        out.append((f"wake-ups a second when idle: {idle:g}, at most 0", idle == 0))
    return out


def print_table(summary):
    for benchmark, peers in summary.items():
        parameters = sorted({parameter for values in peers.values() for parameter in values})
        unit = "" if benchmark.startswith("wake-ups") else ", ns"
        print(f"{benchmark + unit:32}" + "".join(f"{parameter:>11}" for parameter in parameters))
        for peer, values in peers.items():
            cells = (f"{values[p]['median_ns']:11.1f}" if p in values else f"{'':11}" for p in parameters)
            print(f"  {peer:30}" + "".join(cells))


def run(arguments):
    program = (arguments.build or building.compile("release", PROGRAM)) / PROGRAM
    if not program.is_file():
        print(f"bench: no {program}: is libglib2.0-dev installed (tools/install-deps)?", file=sys.stderr)
        return 2
    facts = host.facts(ROOT)
    try:
        samples = measure(program, arguments.rounds)
    except (RuntimeError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    facts["load_after"] = host.load()
    summary = summarise(samples)
    print_table(summary)
    print("\n".join(METHOD))
    print(f"load {' '.join(facts['load_before'])} before, {' '.join(facts['load_after'])} after")
    for text, reached in verdicts(summary):
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "benchmark": "loop", "host": facts, "method": METHOD, "summary": summary, "samples_ns": samples,
            "targets": [{"target": text, "reached": reached} for text, reached in verdicts(summary)]},
            indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if arguments.svg:
        where = f"{facts['cpu']['model']}, {facts['cpu']['count']} CPUs, Linux {facts['kernel']}"
        arguments.svg.write_text(curves.draw("What the event loop costs (median ns; both axes logarithmic)", where,
                                             summary, METHOD), encoding="utf-8")
        print(f"wrote {arguments.svg}")
    return 0
