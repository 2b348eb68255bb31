"""Individual test cases out of what `meson test` leaves behind."""
import dataclasses
import json
import xml.etree.ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass(frozen=True)
class CaseResult:
    name: str
    outcome: str
    reason: str = ""


def from_meson(logs, logbase, protocols):
    """Reads LOGBASE.json and LOGBASE.junit.xml; protocols maps a test's name to its meson protocol.

    A GoogleTest program counts by its cases; one that died, or left no report, by what meson saw of it.
    """
    cases = _junit_cases(logs / f"{logbase}.junit.xml")
    results = []
    for line in (logs / f"{logbase}.json").read_text(encoding="utf-8", errors="replace").splitlines():
        entry = json.loads(line)
        name = entry["name"].split(" / ")[-1]
        has_cases = protocols.get(name) == "gtest"
        own = cases.get(name, []) if has_cases else []
        results += own
        state = entry["result"]
        if state in ("OK", "EXPECTEDFAIL"):
            if has_cases and not own:
                results.append(CaseResult(name, FAILED, "it ended well, but left no report of its cases"))
            elif not own:
                results.append(CaseResult(name, PASSED))
        elif state == "SKIP":
            if not own:
                results.append(CaseResult(name, SKIPPED, _last_line(entry) or "exit status 77"))
        elif not any(case.outcome == FAILED for case in own):
            results.append(CaseResult(name, FAILED, f"{state.lower()}, status {entry.get('returncode')}: {_last_line(entry)}"))
    return results


def _junit_cases(path):
    """A map from a test program's name to its cases."""
    cases = {}
    if not path.exists():
        return cases
    for suite in xml.etree.ElementTree.parse(path).getroot().iter("testsuite"):
        # Meson's name of a GoogleTest suite: "project.program.Suite" in a run of one program, and else
        # "project.project:suite / program.Suite". The program's name may have dots of its own.
        program = suite.get("name", "").split(".", 1)[-1].split(" / ", 1)[-1].rpartition(".")[0]
        for case in suite.iter("testcase"):
            name = f"{case.get('classname')}.{case.get('name')}"
            cases.setdefault(program, []).append(_case(f"{program}.{name}", case))
    return cases


def _case(name, element):
    failure = element.find("failure")
    if failure is None:
        failure = element.find("error")
    if failure is not None:
        return CaseResult(name, FAILED, _one_line(failure.get("message") or failure.text))
    skipped = element.find("skipped")
    if skipped is not None or element.get("result") == "skipped":
        return CaseResult(name, SKIPPED, _one_line(skipped.get("message") if skipped is not None else ""))
    if element.get("status") == "notrun":
        return CaseResult(name, SKIPPED, "disabled")
    return CaseResult(name, PASSED)


def _one_line(text):
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    # GoogleTest puts the source position on a line of its own in front.
    return " ".join(lines)[:300] or "no reason given"


def _last_line(entry):
    text = f"{entry.get('stdout') or ''}\n{entry.get('stderr') or ''}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
