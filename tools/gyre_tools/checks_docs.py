"""The tables of docs/ name tests: each of them is there."""
import fnmatch
import re

from . import sources, util

SUITES = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.MULTILINE)
INSTANCES = re.compile(r"^INSTANTIATE_TEST_SUITE_P\(\s*(\w+)\s*,\s*(\w+)\s*,", re.MULTILINE)
CASE_NAME = re.compile(r"Case\(f?\"([^\"]+)\"")
DOCUMENTS = ("docs/virtio.md",)
NAME = re.compile(r"^(?:\w+/)?[A-Za-z]\w*\.[A-Z*][\w*]*$")


def tests():
    """Every test as Suite.Name, those with parameters also as Instance/Suite.Name, and the linux tier's cases as linux.CASE."""
    names, instances = set(), []
    for path in sources.tracked("tests/*.cc"):
        text = (util.ROOT / path).read_text(encoding="utf-8")
        names.update(f"{suite}.{name}" for suite, name in SUITES.findall(text))
        instances += INSTANCES.findall(text)
    for instance, suite in instances:
        names.update(f"{instance}/{name}" for name in list(names) if name.startswith(f"{suite}."))
    cases = (util.ROOT / "tests" / "linux" / "cases.py").read_text(encoding="utf-8")
    for name in CASE_NAME.findall(cases):
        names.add("linux." + re.sub(r"\{[^}]*\}", "6.12", name))
    return names


def named(line):
    """The tests that a line of a table names: `Suite.Name`, with * for any letters, or `..._Rest` and `Rest` after a comma
    for the same suite."""
    if not line.startswith("|"):
        return
    suite = None
    for word in re.findall(r"`([^`]+)`", line):
        if word.startswith("linux."):
            yield word
        elif NAME.match(word):
            suite = word.split(".")[0]
            yield word
        elif suite and re.match(r"^S_[\w*]+$", word):
            yield f"{suite}.{word}"


def docs(**_):
    known = tests()
    problems, count = [], 0
    for document in DOCUMENTS:
        text = (util.ROOT / document).read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            for name in named(line):
                count += 1
                if not any(fnmatch.fnmatchcase(test, name) for test in known):
                    problems.append(f"{document}:{number}: there is no test {name}")
    if problems:
        raise util.ToolError("\n".join(problems))
    return f"{count} names of tests"
