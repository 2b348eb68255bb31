"""The memory model: look-ups beside a bare sorted array, commits, transactions, dispatch and footprint."""
import json
import pathlib
import statistics
import subprocess
import sys

from bench_support import curves, host
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = "tools/bench_support/gyre-memory-bench"
# What we want, as a ratio: a commit of one region among 10,000 to one among 100.
MOST_OF_SMALL_MAP = 3.0

# Google Benchmark's name -> (benchmark, peer); its argument is the parameter.
ROWS = {
    "LookupBare": ("look-up, by ranges", "upper_bound"),
    "LookupView": ("look-up, by ranges", "view"),
    "FullRender": ("full render, by regions", "view"),
    "CommitOne": ("commit of one region, by regions", "shown or hidden"),
    "CommitMove": ("commit of one region, by regions", "moved"),
    "Build": ("transaction that builds a machine, by devices", "all"),
    "Dispatch": ("MMIO access without the big lock, by threads", "time of each"),
}
METHOD = (
    "Google Benchmark, medians of the repetitions, which take turns; one region of registers a device, gaps in between.",
    "look-up: addresses in no order that could be learnt; commit: on average of two, there and back; dispatch: real time.",
)


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured there")
    parser.add_argument("--svg", type=pathlib.Path, help="write the curves there")
    parser.set_defaults(run=run)


def measure(program, repetitions):
    """(samples {benchmark: {peer: {parameter: [ns]}}}, footprint {regions: {counter: bytes}})."""
    result = subprocess.run([program, "--benchmark_format=json", f"--benchmark_repetitions={repetitions}",
                             "--benchmark_enable_random_interleaving=true", "--benchmark_min_time=0.1"],
                            capture_output=True, text=True, timeout=900, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip() or f"{program.name} ended with {result.returncode}")
    samples, footprint = {}, {}
    for entry in json.loads(result.stdout)["benchmarks"]:
        name, _, rest = entry["run_name"].partition("/")
        if entry["run_type"] != "iteration":
            continue
        if name == "Footprint":
            footprint[int(rest.split("/")[0])] = {key: value for key, value in entry.items() if key.startswith("bytes_")}
            continue
        benchmark, peer = ROWS[name]
        parameter = entry["threads"] if name == "Dispatch" else int(rest.split("/")[0])
        if name == "Dispatch":
            nanoseconds = entry["real_time"] * entry["threads"]
        else:
            nanoseconds = entry["cpu_time"] / (2 if name.startswith("Commit") else 1)
        samples.setdefault(benchmark, {}).setdefault(peer, {}).setdefault(parameter, []).append(nanoseconds)
    return samples, footprint


def summarise(samples):
    return {benchmark: {peer: {parameter: {"median_ns": statistics.median(values), "least_ns": min(values),
                                           "most_ns": max(values), "count": len(values)}
                               for parameter, values in sorted(parameters.items())}
                        for peer, parameters in peers.items()}
            for benchmark, peers in samples.items()}


def print_table(summary, footprint):
    print(f"{'ns, medians':52}{'parameter':>10}{'median':>12}{'least':>12}{'most':>12}")
    for benchmark, peers in summary.items():
        for peer, parameters in peers.items():
            for parameter, values in parameters.items():
                print(f"{benchmark + ': ' + peer:52}{parameter:>10}{values['median_ns']:>12.4g}{values['least_ns']:>12.4g}"
                      f"{values['most_ns']:>12.4g}")
    for regions, counters in sorted(footprint.items()):
        print(f"memory in a map of {regions:,} regions: {counters['bytes_per_region']:.0f} bytes a region, "
              f"{counters['bytes_per_range']:.0f} bytes a range")


def verdicts(summary):
    """(text, whether it is as we want it) of each target."""
    out = []
    for peer, parameters in summary["commit of one region, by regions"].items():
        ratio = parameters[10000]["median_ns"] / parameters[100]["median_ns"]
        out.append((f"commit of one region among 10,000, {peer}: {ratio:.2f} of one among 100, at most {MOST_OF_SMALL_MAP}",
                    ratio <= MOST_OF_SMALL_MAP))
    return out


def remarks(summary):
    """Ratios without a target."""
    lookups = summary["look-up, by ranges"]
    for parameter in (16, 1024, 16384):
        yield (f"look-up among {parameter:,} ranges: "
               f"{lookups['view'][parameter]['median_ns'] / lookups['upper_bound'][parameter]['median_ns']:.2f} of upper_bound")
    builds = summary["transaction that builds a machine, by devices"]["all"]
    for few, many in ((100, 1000), (1000, 10000)):
        ratio = builds[many]["median_ns"] / many / (builds[few]["median_ns"] / few)
        yield f"building {many:,} devices: {ratio:.2f} a device of what {few:,} take"


def run(arguments):
    build = arguments.build or building.compile("release", PROGRAM)
    program = build / PROGRAM
    if not program.is_file():
        print(f"bench: no {program}: is libbenchmark-dev installed (tools/install-deps)?", file=sys.stderr)
        return 2
    facts = host.facts(ROOT)
    try:
        samples, footprint = measure(program, arguments.repetitions)
    except (RuntimeError, subprocess.TimeoutExpired) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    summary = summarise(samples)
    print_table(summary, footprint)
    print("\n".join((*METHOD, *remarks(summary))))
    for text, reached in verdicts(summary):
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"facts": facts, "summary": summary, "footprint": footprint}, indent=1,
                                             default=str) + "\n", encoding="utf-8")
    if arguments.svg:
        arguments.svg.write_text(curves.draw("What the memory model costs", "medians; both scales logarithmic", summary, METHOD),
                                 encoding="utf-8")
        print(f"wrote {arguments.svg}")
    return 0
