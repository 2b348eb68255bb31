"""Checks that need no build."""
import concurrent.futures
import re
import sys

from . import sources, util

CC_LINES = 500
HEADER_LINES = 300

# The project speaks of itself alone: nothing of the machine that it was written on, nothing of the way there.
FORBIDDEN = [
    (re.compile(r"(?<![\w.])/(?:work|home|root)/\w"), "an absolute path of somebody's machine"),
    (re.compile(r"\b[Ii]ssue[ -]#?\d"), "an issue's number"),
    (re.compile(r"\b(?:FIX[M]E|XX[X]|HAC[K])\b"), "a mark of unfinished work"),
    (re.compile(r"\bAs an (?:AI|assistant)\b"), "a remark that is not the project's"),
    (re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE), "a conflict marker"),
]
BINARY = re.compile(rb"\0")


def cpp_files():
    return sources.tracked("*.cc", "*.h")


def headers():
    return sources.tracked("*.h")


def failing(problems, what):
    """The check's note, or its failure with every problem on a line."""
    if problems:
        raise util.ToolError("\n".join(problems))
    return what


def format_(fix=False, **_):
    files = cpp_files()
    if fix:
        util.run(["clang-format-19", "-i", *files], cwd=util.ROOT)
    result = util.run(["clang-format-19", "--dry-run", "--Werror", *files], cwd=util.ROOT, check=False)
    bad = sorted({line.split(":")[0] for line in result.stdout.splitlines() if "error:" in line})
    if result.returncode != 0 and not bad:
        raise util.ToolError(result.stdout.strip())
    return failing([f"{name} (tools/check --fix format mends it)" for name in bad], f"{len(files)} files")


def layers(**_):
    return util.run([sys.executable, util.ROOT / "tools" / "check_layers.py"]).stdout.strip().splitlines()[-1]


def scripts(**_):
    """Scripts parse."""
    problems = []
    count = 0
    for name in sources.tracked("tools", "tests", ".ci"):
        path = util.ROOT / name
        first = path.read_bytes()[:64].split(b"\n")[0]
        if name.endswith(".py") or (first.startswith(b"#!") and b"python" in first):
            count += 1
            try:
                compile(path.read_text(encoding="utf-8"), name, "exec")
            except SyntaxError as error:
                problems.append(f"{name}:{error.lineno}: {error.msg}")
        elif first.startswith(b"#!") and (b"bash" in first or b"sh" in first.split(b"/")[-1]):
            count += 1
            shell = "bash" if b"bash" in first else "sh"
            result = util.run([shell, "-n", path], check=False)
            if result.returncode != 0:
                problems.append(result.stdout.strip())
    return failing(problems, f"{count} scripts parse")


def sizes(**_):
    problems = []
    lengths = {}
    for name in cpp_files():
        lengths[name] = len((util.ROOT / name).read_text(encoding="utf-8").splitlines())
        limit = HEADER_LINES if name.endswith(".h") else CC_LINES
        if lengths[name] > limit:
            problems.append(f"{name}: {lengths[name]} lines, the limit is {limit}")
    return failing(problems, f"{len(lengths)} files, the longest has {max(lengths.values(), default=0)} lines")


def words(**_):
    problems = []
    files = sources.tracked()
    for name in files:
        data = (util.ROOT / name).read_bytes()
        if BINARY.search(data[:8192]):
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
            problems += [f"{name}:{number}: {meaning}: {line.strip()[:100]}"
                         for pattern, meaning in FORBIDDEN if pattern.search(line)]
    return failing(problems, f"{len(files)} files")


def compile_header(name):
    """Compiles a header by itself with both compilers; returns what they said."""
    flags = ["-std=c++23", "-D_GNU_SOURCE", "-DSPDLOG_FMT_EXTERNAL", '-DGYRE_VERSION="check"', "-Iinclude", "-I.",
             "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", "-include", name, "/dev/null"]
    said = []
    for compiler in ("g++", "clang++-19"):
        result = util.run([compiler, *flags], cwd=util.ROOT, check=False, timeout=300)
        if result.returncode != 0:
            said.append(f"{name} does not compile alone ({compiler}):\n" + "\n".join(result.stdout.splitlines()[:8]))
    return said


def header_files(fast=False, **_):
    """Every header compiles alone; with --fast only those that changed."""
    names = headers()
    if fast:
        recent = sources.changed()
        names = [name for name in names if name in recent]
    known = sources.Passed("headers", "v1")
    todo = [name for name in names if not known.knows(name)]
    problems = []
    with concurrent.futures.ThreadPoolExecutor(util.JOBS) as pool:
        for name, said in zip(todo, pool.map(compile_header, todo)):
            problems += said
            if not said:
                known.add(name)
    return failing(problems, f"{len(names)} headers, {len(todo)} of them compiled anew")


def man_pages(**_):
    pages = sources.tracked("*.1", "*.5", "*.7", "*.8")
    if not pages:
        return "no pages"
    result = util.run(["mandoc", "-T", "lint", "-W", "warning", *pages], cwd=util.ROOT, check=False)
    return failing(result.stdout.splitlines() if result.returncode != 0 else [], f"{len(pages)} pages")
