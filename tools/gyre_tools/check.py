"""tools/check: named checks with a summary table."""
import argparse
import dataclasses
import sys
import time
import typing

from . import checks_build, checks_docs, checks_package, checks_text, util


@dataclasses.dataclass(frozen=True)
class Check:
    name: str
    fast: bool
    function: typing.Callable
    meaning: str
    named: bool = False  # run only when it is asked for by its name


CHECKS = [
    Check("format", True, checks_text.format_, "clang-format changes nothing (--fix lets it)"),
    Check("layers", True, checks_text.layers, "every include points down"),
    Check("words", True, checks_text.words, "the project speaks of itself alone"),
    Check("sizes", True, checks_text.sizes, "no file is too long"),
    Check("scripts", True, checks_text.scripts, "Python and shell scripts parse"),
    Check("docs", True, checks_docs.docs, "each test that a table of docs/ names is there"),
    Check("man", True, checks_text.man_pages, "mandoc finds nothing in the manual pages"),
    Check("headers", True, checks_text.header_files, "each header compiles alone (--fast: the changed ones)"),
    Check("build-gcc", True, checks_build.gcc, "g++ builds everything without a warning"),
    Check("unit", True, checks_build.unit, "unit tests"),
    Check("kvm", False, checks_build.kvm, "tests that need /dev/kvm"),
    Check("build-clang", False, checks_build.clang, "clang builds everything without a warning"),
    Check("asan", False, checks_build.asan, "unit tests under ASan and UBSan (clang)"),
    Check("tsan", False, checks_build.tsan, "unit tests under TSan (clang)"),
    Check("tidy", False, checks_build.tidy, "clang-tidy, only on what changed since it was clean"),
    Check("size", False, checks_build.size, "the size of the release build's gyred"),
    Check("package", False, checks_package.package, "the Debian package builds, installs and goes again (only by its name)", named=True),
]


def parse_arguments():
    listing = "\n".join(f"  {check.name:12} {'fast ' if check.fast else '     '}{check.meaning}" for check in CHECKS)
    parser = argparse.ArgumentParser(
        prog="tools/check", description="Checks the tree; all checks, or the named ones.",
        epilog=f"checks:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fast", action="store_true", help="only the quick ones: under a minute when warm")
    parser.add_argument("--fix", action="store_true", help="mend what can be mended (format)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {check.name for check in CHECKS}
    if unknown:
        parser.error(f"unknown check {', '.join(sorted(unknown))} (--help lists them)")
    return arguments


def run_check(check, arguments):
    """Returns (passed, seconds, note); a failure is told in full at once."""
    began = time.monotonic()
    try:
        note, passed = check.function(fast=arguments.fast, fix=arguments.fix), True
    except util.ToolError as error:
        util.say(f"--- {check.name}\n{error}")
        note, passed = str(error).splitlines()[0][:90], False
    return passed, time.monotonic() - began, note


def main():
    arguments = parse_arguments()
    chosen = [check for check in CHECKS
              if (check.name in arguments.names if arguments.names else not check.named and (check.fast or not arguments.fast))]
    rows = []
    for check in chosen:
        if sys.stdout.isatty():
            print(f"  {check.name} ...", end="\r", flush=True)
        rows.append((check.name, *run_check(check, arguments)))
    for name, passed, seconds, note in rows:
        util.say(f"{'ok  ' if passed else 'FAIL'} {name:12} {seconds:7.1f} s  {note}")
    failed = [row[0] for row in rows if not row[1]]
    util.say(f"{len(rows) - len(failed)} of {len(rows)} checks passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    util.run_main(main)
