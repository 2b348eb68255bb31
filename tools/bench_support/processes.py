"""What the kernel tells of a running VMM, and VMMs that are started to be looked at."""
import collections
import contextlib
import os
import pathlib
import re
import select
import subprocess
import time

from bench_support import session as sessions

PATIENCE = 60  # seconds for a guest's first byte


@contextlib.contextmanager
def holding(commands):
    """Starts VMMs with a guest that says a byte and waits, all at once; ends them by their own ids afterwards."""
    running = []
    try:
        for command in commands:
            running.append(begin(command))
        for process in running:
            await_byte(process)
        yield running
    finally:
        end(running)


def begin(command):
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def await_byte(process):
    poll = select.poll()  # select has no room for the descriptors of a thousand VMs
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(PATIENCE * 1000) or not os.read(process.stdout.fileno(), 1):
        raise sessions.Failure("the waiting guest did not speak")


def end(running):
    for process in running:
        process.kill()
    for process in running:
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _read(pid, name):
    return pathlib.Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")


def rollup(pid):
    """(RSS, PSS) in bytes."""
    text = _read(pid, "smaps_rollup")
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024 for name in ("Rss", "Pss"))


def run_time(pid):
    """(ns that all threads have run, their context switches)."""
    nanoseconds = switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            nanoseconds += int(_read(pid, f"task/{task}/schedstat").split()[0])
            switches += sum(int(number) for number in re.findall(r"ctxt_switches:\s+(\d+)", _read(pid, f"task/{task}/status")))
    return nanoseconds, switches


def mappings(pid, program, guest_bytes):
    """Resident KiB outside guest RAM by kind of mapping; those of at least guest_bytes are taken for guest RAM."""
    kinds = collections.Counter()
    kind, size = "", 0
    for line in _read(pid, "smaps").splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
        if head:
            size = int(head.group(2), 16) - int(head.group(1), 16)
            kind = _kind(head.group(4), head.group(3), program)
        elif line.startswith("Rss:"):
            kinds["guest RAM" if size >= guest_bytes else kind] += int(line.split()[1])
    return {kind: kib for kind, kib in sorted(kinds.items(), key=lambda entry: -entry[1]) if kib and kind != "guest RAM"}


def _kind(path, permissions, program):
    if path == str(program):
        return "program, written" if "w" in permissions else "program, code and constants"
    if path.startswith("anon_inode:"):
        return re.sub(r"[:0-9]+$", "", path.removeprefix("anon_inode:"))
    if ".so" in path:
        return "libraries"
    return path if path.startswith("[") else "anonymous" if not path else "other files"


def is_vcpu(name):
    """By the name of a thread."""
    return name.lower().startswith(("cpu", "vcpu"))


def threads(pid):
    names = collections.Counter()
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            # The last characters are lost where a name is longer than 15: "qemu-system-x86".
            name = _read(pid, f"task/{task}/comm").strip()
            names[name if len(name) == 15 else re.sub(r"\d+$", "*", name)] += 1
    return dict(names)


def fds(pid):
    kinds = collections.Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            known = target.startswith(("/dev/", "anon_inode:")) or not target.startswith("/")
            kinds[re.sub(r":?\[?\d+\]?$", "", target.removeprefix("anon_inode:")) if known else "file"] += 1
    return dict(kinds)


def available_bytes():
    match = re.search(r"^MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE)
    return int(match.group(1)) * 1024


def settle(seconds=0.2):
    time.sleep(seconds)
