#!/usr/bin/env python3
"""Checks that every include points down, or stays on its floor."""
import pathlib
import re
import sys

# What a floor may include besides itself.
BELOW = {
    "base": set(),
    "memory": {"base"},
    "loop": {"base"},
    "kvm": {"base", "memory", "loop"},
    "devices": {"base", "memory", "loop"},
    "machine": {"base", "memory", "loop", "kvm", "devices"},
    "control": {"base", "memory", "loop", "kvm", "devices", "machine"},
    "daemon": {"base", "memory", "loop", "kvm", "devices", "machine", "control"},
}
# Each third party's header has its floor, or its one file.
THIRD_PARTY = {
    r"linux/kvm\.h": r"^(kvm/|tests/|tools/)",
    r"liburing": r"^(loop/|tests/|tools/)",
    r"spdlog/": r"^src/base/log\.cc$",
    r"CLI/": r"^(src/daemon/|tests/|tools/)",
    r"nlohmann/": r"^(src/control/|tests/|tools/)",
    r"(bzlib|lz4|lzma|zlib|zstd)\.h": r"^(src/machine/boot/|tests/|tools/)",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')


def floor_of(path):
    """The floor that a path below the root belongs to, or None (tests, tools)."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[:2] == ("include", "gyre"):
        return parts[2]
    if parts[0] == "src":
        return parts[1]
    return parts[0] if parts[0] in BELOW else None


def target_floor(include):
    if include.startswith("gyre/"):
        return include.split("/")[1]
    return floor_of(include) if "/" in include else None  # <memory> is the library's


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    problems = []
    files = [p for top in ("include", "src", "kvm", "devices", "memory", "loop", "tests", "tools")
             for p in (root / top).rglob("*") if p.suffix in (".h", ".cc")]
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        floor = floor_of(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            include = match.group(2)
            for pattern, allowed in THIRD_PARTY.items():
                if re.match(pattern, include) and not re.match(allowed, name):
                    problems.append(f"{name}:{number}: {include} has no place on this floor")
            target = target_floor(include)
            if floor in BELOW and target in BELOW and target != floor and target not in BELOW[floor]:
                problems.append(f"{name}:{number}: {floor} includes {include}, which is not below it")
    print("\n".join(problems) if problems else f"{len(files)} files: every include points down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
