"""The suites that measure a part of gyre from inside, with tables of their own: as `tools/bench all` runs them."""
import pathlib
import subprocess
import sys
import types

from bench_support import results

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TIMEOUT = 600
# Fewer rounds than by themselves, so that all of it fits half an hour.
WORDS = {
    "block": ("--rounds", "5"),
    "control": ("--rounds", "1", "--requests", "2000", "--starts", "10"),
    "loop": ("--rounds", "3"),
    "memory": ("--repetitions", "3"),
    "pause": ("--rounds", "9"),
}
NAMES = tuple(WORDS)


def module(name):
    """A suite like the others, whose run is `tools/bench NAME`."""
    return types.SimpleNamespace(NAME=name, run=lambda _session: _run(name))


def _run(name):
    command = [sys.executable, ROOT / "tools" / "bench", name, *WORDS[name]]
    suite = results.Suite(name, f"tools/bench {' '.join([name, *WORDS[name]])}", [])
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        suite.text = f"no end within {TIMEOUT} s"
        return suite
    suite.text = result.stdout.rstrip() or result.stderr.strip() or "said nothing"
    for line in result.stdout.splitlines():
        for word, reached in (("reached  ", True), ("MISSED   ", False)):
            if line.startswith(word):
                text, _, measured = line[len(word):].strip().rpartition(": ")
                suite.targets.append(results.Target(text, reached, measured))
    return suite
