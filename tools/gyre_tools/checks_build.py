"""Checks that build: both compilers, tests, sanitizers, clang-tidy, the daemon's size."""
import concurrent.futures
import json
import os
import re

from . import build, hostkvm, results, sources, test, util

TIDY = "clang-tidy-19"
TIDY_TIMEOUT = 900  # seconds a file
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def gcc(**_):
    build.compile("gcc")
    return "no warnings"


def clang(**_):
    build.compile("clang")
    return "no warnings"


def _run_suites(flavour, suites, forbid_kvm_skips=False):
    """Runs meson suites in a build and returns the note for the table."""
    path = build.compile(flavour)
    tests = test.meson_tests(path)
    cases = []
    for suite in suites:
        own = [entry for entry in tests if suite in entry[2]]
        if own:
            cases += test.run_suite(path, suite, own)
    if forbid_kvm_skips:
        cases = test.forbid_kvm_skips(cases)
    failed = [f"{case.name}: {case.reason}" for case in cases if case.outcome == results.FAILED]
    if failed:
        raise util.ToolError("\n".join(failed))
    skipped = sum(1 for case in cases if case.outcome == results.SKIPPED)
    return f"{len(cases) - skipped} passed, {skipped} skipped"


def unit(**_):
    return _run_suites("gcc", ["unit"])


def kvm(**_):
    return _run_suites("gcc", ["kvm"], forbid_kvm_skips=hostkvm.probe().kind != hostkvm.ABSENT)


def asan(**_):
    os.environ.update(SANITIZER_OPTIONS)
    return _run_suites("asan", ["unit", "fuzz", "kvm"])


def tsan(**_):
    os.environ.update(SANITIZER_OPTIONS)
    return _run_suites("tsan", ["unit", "kvm"])


def _tidy_file(name, database):
    result = util.run([TIDY, "--quiet", "-p", database, util.ROOT / name], cwd=util.ROOT, check=False,
                      timeout=TIDY_TIMEOUT)
    if result.returncode == 0:
        return []
    lines = [line for line in result.stdout.splitlines() if re.search(r"(error|warning):", line)]
    return lines or [f"{name}: {TIDY} ended with status {result.returncode}: {result.stdout.strip()[-300:]}"]


def tidy(**_):
    """clang-tidy on each file of the clang build; a file is not looked at again while nothing of it changed."""
    database = build.configure("clang")
    commands = json.loads((database / "compile_commands.json").read_text())
    compiled = {os.path.relpath(os.path.join(entry["directory"], entry["file"]), util.ROOT) for entry in commands}
    names = [name for name in sources.tracked("*.cc") if name in compiled]
    version = util.run([TIDY, "--version"]).stdout
    known = sources.Passed("tidy", version, (util.ROOT / ".clang-tidy").read_text())
    todo = [name for name in names if not known.knows(name)]
    problems = set()
    with concurrent.futures.ThreadPoolExecutor(util.JOBS) as pool:
        for name, said in zip(todo, pool.map(lambda name: _tidy_file(name, database), todo)):
            problems.update(said)
            if not said:
                known.add(name)
    if problems:
        raise util.ToolError("\n".join(sorted(problems)))
    return f"{len(names)} files, {len(todo)} of them anew"


def size(**_):
    """What gyred weighs: facts, no limits."""
    path = build.directory("release") / build.DAEMON
    if "gyred" not in util.run(["ninja", "-C", build.configure("release"), "-t", "targets", "all"]).stdout:
        return "no gyred yet"
    build.daemon()
    text, data, bss = util.run(["size", path]).stdout.splitlines()[1].split()[:3]
    relocations = util.run(["readelf", "-rW", path]).stdout
    count = len(re.findall(r"^[0-9a-f]{12,16} ", relocations, re.MULTILINE))
    dynamic = "INTERP" in util.run(["readelf", "-lW", path]).stdout
    return (f"text {int(text) // 1024} KiB, data {int(data) // 1024} KiB, bss {int(bss) // 1024} KiB, {count} relocations, "
            f"file {path.stat().st_size // 1024} KiB, {'dynamic' if dynamic else 'static'}")
