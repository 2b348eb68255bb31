"""Start-up against the bare KVM calls and QEMU's microvm, with one guest, in turn."""
import argparse
import collections
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from bench_support import chart, hold_guest, host
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MEMORY_MIB = 128
LEAST_RUNS = 30
MOST_FAILURES = 3  # in all; then there is nothing to compare
# What we want, as ratios of medians; see README.
MOST_OF_FLOOR = 1.6
MOST_OF_QEMU = 0.1
MOST_MEMORY_MIB = 2.0

# (key, title, unit, nanoseconds or bytes in a unit, compared with floor and QEMU)
QUANTITIES = (
    ("first_byte", "exec to the guest's first byte", "ms", 1e6),
    ("exit", "exec to exit", "ms", 1e6),
    ("cpu", "CPU time", "ms", 1e6),
    ("memory", "memory outside guest RAM", "MiB", 2.0**20),
)


def _runs(text):
    value = int(text)
    if value < LEAST_RUNS:
        raise argparse.ArgumentTypeError(f"at least {LEAST_RUNS} runs, or a median says little")
    return value


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--guest", type=pathlib.Path, help="PVH ELF64 guest that says a line and writes to the exit port")
    parser.add_argument("--gyred", type=pathlib.Path)
    parser.add_argument("--floor", type=pathlib.Path)
    parser.add_argument("--qemu", type=pathlib.Path)
    parser.add_argument("--runs", type=_runs, default=50, help="of each peer (default 50, at least 30)")
    parser.add_argument("--warmup", type=int, default=5, help="runs of each before, not counted (default 5)")
    parser.add_argument("--memory-runs", type=int, default=5, help="runs of each that look at memory (default 5)")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured there")
    parser.add_argument("--svg", type=pathlib.Path, help="write a chart there")
    parser.set_defaults(run=run)


def peers_of(arguments, build):
    """(name, program, function of the guest that gives the arguments), in the order they take turns."""
    qemu = arguments.qemu or shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"
    return (
        ("floor", arguments.floor or build / "tools/bench_support/gyre-floor",
         lambda guest: ["--memory", str(MEMORY_MIB), guest]),
        ("gyred", arguments.gyred or build / "src/daemon/gyred",
         lambda guest: ["--kernel", guest, "--memory", f"{MEMORY_MIB}M", "--serial", "stdio"]),
        ("qemu", pathlib.Path(qemu),
         lambda guest: ["-M", "microvm,acpi=off,pit=off,pic=off,rtc=off", "-accel", "kvm",
                        # Without the MSR that some hosts do not let be set.
                        "-cpu", "host,arch-capabilities=off",
                        "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
                        "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", guest]),
    )


class Failure(Exception):
    """A run that did not do what it should have done."""


def measure(runner, options, command):
    result = subprocess.run([runner, *options, "--", *command], capture_output=True, text=True, check=False)
    complaint = result.stderr.strip().splitlines()[-1:] or [""]
    if result.returncode != 0:
        raise Failure(complaint[0] or f"gyre-bench-run ended with {result.returncode}")
    return json.loads(result.stdout), complaint[0]


def one_start(runner, command):
    """One timed start. What a guest writes to the exit port ends in an odd status, (v << 1) | 1,
    but so does a VMM's own error: only the guest's words prove that it ran."""
    result, complaint = measure(runner, [], command)
    if result["timed_out"]:
        raise Failure("did not end in time")
    if result["status"] % 2 != 1 or result["signal"] or not result["output"]:
        how = f"signal {result['signal']}" if result["signal"] else f"status {result['status']}"
        raise Failure(f"ended with {how} and output {bytes.fromhex(result['output'])!r}. {complaint}".strip())
    return result


def one_look(runner, command):
    result, complaint = measure(runner, ["--rss", str(MEMORY_MIB << 20)], command)
    if result["missed"]:
        raise Failure(f"the waiting guest did not speak. {complaint}".strip())
    return result


def usable_peers(arguments, build, runner, guest):
    """The peers that start the guest here, and why the others do not."""
    usable, skipped, expected = [], {}, None
    for name, program, arguments_for in peers_of(arguments, build):
        command = [str(program), *arguments_for(str(guest))]
        try:
            if not os.access(program, os.X_OK):
                raise Failure(f"no program {program}")
            result = one_start(runner, command)
            seen = (bytes.fromhex(result["output"]), result["status"])
            expected = expected or seen
            if seen != expected:
                raise Failure(f"its guest says {seen[0]!r} and ends with {seen[1]}, another's {expected}")
            usable.append((name, program, arguments_for))
        except Failure as failure:
            skipped[name] = str(failure)
    return usable, skipped


def take_turns(arguments, runner, usable, guest):
    """The samples of each peer, and what went wrong how often: a failed start is told, not timed."""
    samples = {name: {"first_byte": [], "exit": [], "cpu": [], "memory": []} for name, _, _ in usable}
    failures = collections.Counter()
    for turn in range(arguments.warmup + arguments.runs):
        for name, program, arguments_for in usable:
            try:
                result = one_start(runner, [str(program), *arguments_for(str(guest))])
            except Failure as failure:
                failures[f"{name}: {failure}"] += 1
                if failures.total() > MOST_FAILURES:
                    raise Failure(f"{failures.total()} starts failed, the last was {name}: {failure}") from failure
                continue
            if turn >= arguments.warmup:
                for key in ("first_byte", "exit", "cpu"):
                    samples[name][key].append(result[f"{key}_ns"])
    with tempfile.TemporaryDirectory() as directory:
        waiting = pathlib.Path(directory) / "hold.elf"
        waiting.write_bytes(hold_guest.elf())
        for _ in range(arguments.memory_runs):
            for name, program, arguments_for in usable:
                look = one_look(runner, [str(program), *arguments_for(str(waiting))])
                samples[name]["memory"].append(look["own_bytes"])
    return samples, failures


def percentile(values, percent):
    """By nearest rank, so it is always a value that was seen."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def summarise(samples):
    summary = {}
    for name, quantities in samples.items():
        summary[name] = {}
        for key, _, unit, scale in QUANTITIES:
            values = [value / scale for value in quantities[key]]
            if values:
                summary[name][key] = {"unit": unit, "count": len(values), "median": statistics.median(values),
                                      **{f"p{p}": percentile(values, p) for p in (10, 90, 99)}}
    for name, quantities in summary.items():
        for key, entry in quantities.items():
            for peer in ("floor", "qemu"):
                if peer != name and key in summary.get(peer, {}):
                    entry[f"of_{peer}"] = entry["median"] / summary[peer][key]["median"]
    return summary


def verdicts(summary):
    """(text, reached) for each target that could be judged."""
    out = []
    gyred = summary.get("gyred", {})
    for key, title, _, _ in QUANTITIES[:2]:
        for peer, most in (("floor", MOST_OF_FLOOR), ("qemu", MOST_OF_QEMU)):
            ratio = gyred.get(key, {}).get(f"of_{peer}")
            if ratio is not None:
                out.append((f"{title}: {ratio:.3g} of {peer}, at most {most:g}", ratio <= most))
    if "memory" in gyred:
        mib = gyred["memory"]["median"]
        out.append((f"{QUANTITIES[3][1]}: {mib:.2f} MiB, at most {MOST_MEMORY_MIB:g}", mib <= MOST_MEMORY_MIB))
    return out


def print_table(summary):
    print(f"{'':7} {'':31} {'median':>9} {'p10':>8} {'p90':>8} {'p99':>8}      {'of floor':>8} {'of qemu':>8}")
    for key, title, unit, _ in QUANTITIES:
        for name, quantities in summary.items():
            if key not in quantities:
                continue
            entry = quantities[key]
            ratios = [f"{entry[f'of_{peer}']:.3g}" if f"of_{peer}" in entry else "" for peer in ("floor", "qemu")]
            print(f"{name:7} {title:31} {entry['median']:9.2f} {entry['p10']:8.2f} {entry['p90']:8.2f} "
                  f"{entry['p99']:8.2f} {unit:4} {ratios[0]:>8} {ratios[1]:>8}")


def panels_of(summary):
    panels = []
    for key, title, unit, _ in QUANTITIES:
        rows = []
        for name, quantities in summary.items():
            if key in quantities:
                entry = quantities[key]
                label = f"{entry['median']:.2f} {unit}"
                if "of_floor" in entry:
                    label += f"  ({entry['of_floor']:.3g} x floor)"
                rows.append({"peer": name, "label": label, **{p: entry[p] for p in ("p10", "median", "p90")}})
        panel = {"title": title, "unit": unit, "rows": rows}
        if key in ("first_byte", "exit") and key in summary.get("floor", {}):
            panel["target"] = {"value": MOST_OF_FLOOR * summary["floor"][key]["median"],
                               "label": f"{MOST_OF_FLOOR:g} x floor: at most, for gyred"}
        elif key == "memory":
            panel["target"] = {"value": MOST_MEMORY_MIB, "label": f"{MOST_MEMORY_MIB:g} MiB: at most, for gyred"}
        panels.append(panel)
    return panels


def method(arguments):
    return [
        f"{arguments.runs} runs of each peer in turn after {arguments.warmup} warm-up rounds; {MEMORY_MIB} MiB, one vCPU.",
        "Time from just before execve in the forked child to the first byte read, and to wait4; CPU time is "
        "user + system of the process.",
        f"Memory: {arguments.memory_runs} separate runs of a guest that says one byte and halts; Rss of all mappings "
        f"smaller than {MEMORY_MIB} MiB,",
        "the most of two looks: at the first byte and 100 ms after it. Percentiles are by nearest rank.",
    ]


def build_facts(build):
    """How the build directory was configured: a debug build's numbers mean little."""
    try:
        options = json.loads((build / "meson-info/intro-buildoptions.json").read_text(encoding="utf-8"))
    except OSError:
        return {"directory": str(build)}
    wanted = ("buildtype", "b_lto", "b_sanitize", "static_binary")
    return {"directory": str(build), **{o["name"]: o["value"] for o in options if o["name"] in wanted}}


def write_results(arguments, facts, samples, summary, skipped):
    lines = method(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "benchmark": "boot", "host": facts, "method": lines, "skipped": skipped, "summary": summary,
            "targets": [{"target": text, "reached": reached} for text, reached in verdicts(summary)],
            "samples_ns_and_bytes": samples}, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if arguments.svg:
        kvm = ", ".join(facts["kvm"]["modules"])
        where = f"{facts['cpu']['model']}, {facts['cpu']['count']} CPUs, Linux {facts['kernel']}, {kvm}"
        foot = lines + [f"{name} skipped: {reason}" for name, reason in skipped.items()]
        arguments.svg.write_text(chart.draw("Starting a hello guest (median, p10 to p90; logarithmic)", where,
                                            panels_of(summary), foot), encoding="utf-8")
        print(f"wrote {arguments.svg}")


def what_to_run(arguments):
    """The build directory and the guest; without options those of ours, made up to date."""
    if arguments.build:
        return arguments.build, arguments.guest or arguments.build / "tests/guests/hello"
    release = building.compile("release", building.DAEMON, "tools/bench_support/gyre-floor",
                               "tools/bench_support/gyre-bench-run")
    return release, arguments.guest or building.compile("gcc", "tests/guests/hello") / "tests/guests/hello"


def run(arguments):
    build, guest = what_to_run(arguments)
    runner = build / "tools/bench_support/gyre-bench-run"
    for needed in (runner, guest):
        if not needed.is_file():
            print(f"bench: no {needed}: build it first (meson, ninja), or name another build by --build", file=sys.stderr)
            return 2
    usable, skipped = usable_peers(arguments, build, runner, guest)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    if not usable:
        print("bench: no peer starts the guest here", file=sys.stderr)
        return 1
    facts = host.facts(ROOT)
    facts["build"] = build_facts(build)
    facts["peers"] = {name: {"program": str(program), "version": None if name == "floor" else host.version(program),
                             "file_bytes": program.stat().st_size} for name, program, _ in usable}
    if facts["build"].get("buildtype") == "debug" and "gyred" in facts["peers"] and not arguments.gyred:
        print(f"note: {build.name} is a debug build, so gyred is slower here than it is")
    try:
        samples, failures = take_turns(arguments, runner, usable, guest)
    except Failure as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    facts["failures"] = dict(failures)
    facts["load_after"] = host.load()
    summary = summarise(samples)
    print_table(summary)
    print("\n".join(method(arguments)))
    for what, count in failures.items():
        print(f"FAILED {count} times, not counted above: {what}")
    print(f"load {' '.join(facts['load_before'])} before, {' '.join(facts['load_after'])} after")
    if float(facts["load_after"][0]) > facts["cpu"]["count"] / 2:
        print("note: something else is running here, so times scatter: compare medians of a quiet machine")
    for text, reached in verdicts(summary):
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    write_results(arguments, facts, samples, summary, skipped)
    return 0
