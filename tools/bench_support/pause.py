"""Pausing two running vCPUs beside the bare kicks that it takes, in one run."""
import pathlib
import subprocess
import sys

from bench_support import host, loop
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = "tools/bench_support/gyre-pause-bench"
MOST_OF_KICKS = 1.5  # what we want, as a ratio of medians


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--rounds", type=int, default=15, help="of both in turn (default 15)")
    parser.set_defaults(run=run)


def run(arguments):
    program = (arguments.build or building.compile("release", PROGRAM)) / PROGRAM
    facts = host.facts(ROOT)
    try:
        samples = loop.measure(program, arguments.rounds)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    summary = loop.summarise(samples)
    loop.print_table(summary)
    print("Each sample is the median of 50 pauses of a guest of two vCPUs that has run for 100 us; the table shows medians.")
    print("kicks: immediate_exit, a signal to each thread, and a word that each sets when it is out of KVM_RUN.")
    print(f"load {' '.join(facts['load_before'])} before")
    ratio = loop.median(summary, "pause, of vCPUs", "gyre", 2) / loop.median(summary, "pause, of vCPUs", "kicks", 2)
    print(f"{'reached' if ratio <= MOST_OF_KICKS else 'MISSED '}  pause of 2 vCPUs: {ratio:.2f} x kicks, at most {MOST_OF_KICKS}")
    return 0
