"""What a request of a disk takes in instructions, by function, counted by valgrind, whatever noise there is."""
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from gyre_tools import build as building

PROGRAM = "tools/bench_support/gyre-disk-instructions"
OPS = ("read", "write")
DRIVER = "gyre::bench::"
IMAGE_MIB = 64
TIMEOUT = 300
METHOD = (
    "gyre's disk on a main loop with the driver on the same thread, 4k requests in any order at depth 128, under valgrind's",
    "callgrind. Two runs, of which one has twice the requests: the difference has no start and no end in it. Instructions of",
    "user space; what they cost depends on what they wait for, which this does not see.",
)


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, made up to date)")
    parser.add_argument("--requests", type=int, default=20000, help="of the shorter run (default 20000)")
    parser.add_argument("--functions", type=int, default=25, help="how many to show, of those that take most (default 25)")
    parser.add_argument("--json", type=pathlib.Path, help="write all functions there")
    parser.set_defaults(run=run)


def by_function(text):
    """{function: instructions of its own} of a file that callgrind has written."""
    names, counts = {}, collections.Counter()
    function, of_a_call = None, False
    for line in text.splitlines():
        if line.startswith("fn="):
            # Each name stands behind its number the first time only.
            number, _, name = line[3:].partition(" ")
            function = names.setdefault(number, name)
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            names.setdefault(number, name)
        elif line.startswith("calls="):
            of_a_call = True  # the next line is what that took, which is counted there
        elif re.match(r"[+\-*\d]", line):
            words = line.split()
            if not of_a_call and function is not None and len(words) > 1:
                counts[function] += int(words[1])
            of_a_call = False
    return counts


def one_run(program, image, op, requests, directory):
    """(requests, {function: instructions})."""
    out = pathlib.Path(directory) / "callgrind.out"
    result = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program), str(image), op, str(requests)],
                            capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip()[-2000:] or f"{program.name} ended with {result.returncode}")
    return int(result.stdout.split()[-1]), by_function(out.read_text(encoding="utf-8", errors="replace"))


def measure(program, op, requests, directory):
    """{function: instructions a request}."""
    image = pathlib.Path(directory) / "image"
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB << 20)
    (few, short), (many, long) = (one_run(program, image, op, count, directory) for count in (requests, 2 * requests))
    return {name: (count - short[name]) / (many - few) for name, count in long.items() if count > short[name]}


def print_table(op, taken, most):
    driver = sum(count for name, count in taken.items() if DRIVER in name)
    print(f"4k {op}: {sum(taken.values()) - driver:.0f} instructions a request of the device's, {driver:.0f} of its driver's")
    for name, count in sorted(taken.items(), key=lambda item: -item[1])[:most]:
        print(f"{count:10.1f}  {name[:140]}")


def run(arguments):
    if shutil.which("valgrind") is None:
        print("bench: instructions: no valgrind here: tools/install-deps test", file=sys.stderr)
        return 1
    build = arguments.build or building.compile("release", PROGRAM)
    for line in METHOD:
        print(line)
    results = {}
    with tempfile.TemporaryDirectory(prefix="gyre-bench-") as directory:
        for op in OPS:
            results[op] = measure(build / PROGRAM, op, arguments.requests, directory)
            print()
            print_table(op, results[op], arguments.functions)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    return 0
