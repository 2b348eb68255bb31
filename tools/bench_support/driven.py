"""VMMs whose guest is a driver of ours, and the program outside that it works with, which measures both."""
import collections
import json
import os
import pathlib
import subprocess
import tempfile
import threading

from bench_support import processes, results, session as sessions
from gyre_tools import build as building

TIMEOUT = 30
# What these guests were tried with.
PEERS = (results.FLOOR, results.OURS, "qemu-microvm")


def guest(session, name):
    """The path of a driver guest, which is built with the tests."""
    path = session.build / "tests/guests" / name
    return path if path.is_file() else building.compile("gcc", f"tests/guests/{name}") / "tests/guests" / name


def cpus():
    """(the vCPU's, everybody else's), or nothing where there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


def _pin(pid, places):
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            name = (task / "comm").read_text(encoding="utf-8")
            os.sched_setaffinity(int(task.name), {places[0] if processes.is_vcpu(name) else places[1]})
        except OSError:
            continue  # it has just ended


def _lines_from(process, word):
    """The words of the first line that begins so, or None at the end."""
    for line in process.stdout:
        if line.split()[:1] == [word]:
            return line.split()
    return None


def _outside(command, places):
    pin = (lambda: os.sched_setaffinity(0, {places[1]})) if places else None
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False, preexec_fn=pin)
    if result.returncode != 0:
        raise sessions.Failure((result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1])
    return json.loads(result.stdout)


def measure(command, outside, ends_itself, places=None):
    """What the program outside says, whose last argument will be the process's id, and under "guest" what the guest says at its
    end: (what it counted, kicks, errors). A floor goes on until it is ended. places: as cpus()."""
    with tempfile.TemporaryFile(mode="w+", errors="replace") as complaints:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True,
                                   errors="replace")
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            if _lines_from(process, "begin") is None:
                complaints.seek(0)
                said = [line.strip() for line in complaints if line.strip()][-1:] or ["it said nothing"]
                raise sessions.Failure(f"did not begin: {said[0]}")
            if places:
                _pin(process.pid, places)
            result = _outside([*outside, str(process.pid)], places)
            if ends_itself:
                words = _lines_from(process, "phase")
                if words is None:
                    raise sessions.Failure("the guest did not end")
                result["guest"] = tuple(int(word) for word in words[1:])
                if result["guest"][2]:
                    raise sessions.Failure(f"the guest saw {result['guest'][2]} errors")
                process.wait()
            return result
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()


def working(result):
    """Nanoseconds by thread, of all but the vCPU, which spins."""
    return collections.Counter({name: ns for name, ns in result["threads"].items() if not processes.is_vcpu(name)})
