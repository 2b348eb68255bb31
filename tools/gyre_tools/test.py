"""tools/test: builds gyre and runs every tier of tests that this machine can run."""
import argparse
import json
import subprocess
import sys
import tempfile
import time

from . import build, hostkvm, results, util

SUITE_TIMEOUT = 1800      # seconds a meson suite
LINUX_TIMEOUT = 3600      # seconds the linux tier
TIMEOUT_MULTIPLIER = 4    # of each test's own bound: other things may run on this machine too
LINUX_RUN = util.ROOT / "tests" / "linux" / "run"


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description="Builds gyre (debug for the unit tests, release for gyred) and runs every tier of tests that this "
                    "machine can run: the suites of meson (unit, kvm, ...) and the linux tier, stock kernels in gyred. "
                    "The last line says: N passed, N failed, N skipped. Status 1 where anything failed.")
    parser.add_argument("tiers", nargs="*", metavar="TIER", help="only these: unit, kvm, another meson suite, linux")
    parser.add_argument("--no-linux", action="store_true", help="all but the linux tier")
    return parser.parse_args()


def meson_tests(path):
    """The tests of a build directory: (name, protocol, suites, command)."""
    listed = json.loads(util.run(["meson", "introspect", "--tests", path], stderr=subprocess.DEVNULL).stdout)
    return [(test["name"], test["protocol"], [suite.split(":")[-1] for suite in test["suite"]], test["cmd"]) for test in listed]


def skip_suite(tests, reason):
    """The cases of a suite that this machine cannot run, each by its name."""
    cases = []
    for name, protocol, _, command in tests:
        if protocol != "gtest":
            cases.append(results.CaseResult(name, results.SKIPPED, reason))
            continue
        said = util.run([*command, "--gtest_list_tests"], timeout=60, stderr=subprocess.DEVNULL).stdout
        group = ""
        for line in said.splitlines():
            word = line.split("#")[0].rstrip()
            if line.startswith("  "):
                cases.append(results.CaseResult(f"{name}.{group}{word.strip()}", results.SKIPPED, reason))
            elif word.endswith("."):
                group = word
    return cases


def run_suite(path, suite, tests):
    """Runs a meson suite and returns its cases."""
    protocols = {name: protocol for name, protocol, _, _ in tests}
    for name in protocols:
        (path / f"{name}.xml").unlink(missing_ok=True)  # an old report must not speak for a program that dies
    logs = path / "meson-logs"
    (logs / f"{suite}.json").unlink(missing_ok=True)
    result = util.run(["meson", "test", "-C", path, "--no-rebuild", "--suite", suite, "--logbase", suite,
                       "-t", str(TIMEOUT_MULTIPLIER), "--num-processes", str(util.JOBS)],
                      timeout=SUITE_TIMEOUT, check=False)
    try:
        cases = results.from_meson(logs, suite, protocols)
    except (OSError, ValueError, KeyError) as error:
        tail = " ".join(result.stdout.split())[-300:]
        return [results.CaseResult(suite, results.FAILED, f"meson left no report ({error}): {tail}")]
    if result.returncode != 0 and not any(case.outcome == results.FAILED for case in cases):
        cases.append(results.CaseResult(suite, results.FAILED, f"meson test ended with status {result.returncode}"))
    return cases


def forbid_kvm_skips(cases):
    """Where /dev/kvm is usable, a test that needs KVM and skips hides a fault of its own."""
    return [results.CaseResult(case.name, results.FAILED, f"skipped, though there is a usable /dev/kvm: {case.reason}")
            if case.outcome == results.SKIPPED else case for case in cases]


def run_linux():
    if not LINUX_RUN.exists():
        return []
    with tempfile.NamedTemporaryFile(prefix="gyre-linux-", suffix=".json") as report:
        process = subprocess.Popen([sys.executable, LINUX_RUN, "--json", report.name], start_new_session=True)
        try:
            status = process.wait(timeout=LINUX_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = f"no end within {LINUX_TIMEOUT} s"
        finally:
            util.kill_group(process)
        try:
            listed = json.load(report)
        except ValueError:
            return [results.CaseResult("linux", results.FAILED, f"the tier broke: {status}")]
    outcomes = {"PASS": results.PASSED, "FAIL": results.FAILED, "SKIP": results.SKIPPED}
    return [results.CaseResult(f"linux.{case['name']}", outcomes[case["outcome"]], case["reason"]) for case in listed]


def wanted_suites(tests, tiers):
    suites = []
    for _, _, own, _ in tests:
        suites += [suite for suite in own if suite not in suites]
    suites.sort(key=lambda suite: (suite != "unit", suite))
    return [suite for suite in suites if not tiers or suite in tiers]


def tell(cases, began):
    for case in cases:
        if case.outcome == results.SKIPPED:
            util.say(f"SKIP {case.name}: {case.reason}")
        elif case.outcome == results.FAILED:
            util.say(f"FAIL {case.name}: {case.reason}")
    counted = {outcome: sum(1 for case in cases if case.outcome == outcome)
               for outcome in (results.PASSED, results.FAILED, results.SKIPPED)}
    util.say(f"  {counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped in "
             f"{time.monotonic() - began:.0f} s")


def main():
    arguments = parse_arguments()
    cases = []
    try:
        util.say("test: building (debug for the unit tests, release for gyred)")
        path = build.compile("gcc")
        host = hostkvm.probe()
        util.say(f"test: {host.facts}")
        tests = meson_tests(path)
        for suite in wanted_suites(tests, arguments.tiers):
            began = time.monotonic()
            util.say(f"test: suite {suite}")
            of_suite = [test for test in tests if suite in test[2]]
            if suite == "kvm" and host.kind == hostkvm.ABSENT:
                own = skip_suite(of_suite, host.facts)
            else:
                own = run_suite(path, suite, of_suite)
                own = forbid_kvm_skips(own) if suite == "kvm" else own
            tell(own, began)
            cases += own
        if not arguments.no_linux and (not arguments.tiers or "linux" in arguments.tiers):
            util.say("test: the linux tier: stock kernels in gyred")
            cases += run_linux()
    except util.ToolError as error:
        cases.append(results.CaseResult("tools/test", results.FAILED, str(error)))
    skipped = [case for case in cases if case.outcome == results.SKIPPED]
    failed = [case for case in cases if case.outcome == results.FAILED]
    if skipped:
        util.say("skipped:\n" + "\n".join(f"  {case.name}: {case.reason}" for case in skipped))
    if failed:
        util.say("failed:\n" + "\n".join(f"  {case.name}: {case.reason}" for case in failed))
    util.say(f"{len(cases) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    util.run_main(main)
