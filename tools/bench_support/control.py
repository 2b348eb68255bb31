"""The control socket beside QEMU microvm's, by the same client in one run: idle, and with a vCPU that exits all the time;
and readiness beside the bare KVM calls."""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from bench_support import host
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CLIENT = "tools/bench_support/gyre-control-bench"
GYRED = "src/daemon/gyred"
GUEST = "tests/guests/port_loop"
RUN = "tools/bench_support/gyre-bench-run"
FLOOR = "tools/bench_support/gyre-floor"
HELLO = "tests/guests/hello"
EVENTS = 500  # a sample
READY_MS = 3  # after the moment at which the floor could first run its guest
MOST = {("idle", "p50_us"): 1 / 3, ("exits", "p99_us"): 1 / 5}  # of QEMU's
PATIENCE = 20


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--rounds", type=int, default=3, help="of both in turn (default 3)")
    parser.add_argument("--requests", type=int, default=5000, help="a sample (default 5000)")
    parser.add_argument("--starts", type=int, default=30, help="of gyred and of the floor (default 30)")
    parser.set_defaults(run=run)


def _command(peer, build, guest, socket, state, clients):
    """QEMU's sockets take one client each, so there is one for each that wants events."""
    idle = state == "idle"
    if peer == "gyre":
        return [build / GYRED, "--kernel", guest, "--serial", "null", "--memory", "64M", "--qmp",
                f"unix:{socket}"] + (["--paused"] if idle else [])
    sockets = [socket] if clients == 0 else [f"{socket}.{number}" for number in range(clients)]
    return ["qemu-system-x86_64", "-M", "microvm", "-accel", "kvm", "-m", "64", "-display", "none", "-kernel",
            guest, "-serial", "null", *(word for path in sockets for word in ("-qmp", f"unix:{path},server=on,wait=off"))
            ] + (["-S"] if idle else [])


def _sample(peer, build, guest, state, words, clients=0):
    """What the client says of it; `words` are its arguments, with {} for the socket."""
    with tempfile.TemporaryDirectory() as directory:
        socket = pathlib.Path(directory) / "s"
        with subprocess.Popen(_command(peer, build, guest, socket, state, clients), stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            try:
                end = time.monotonic() + PATIENCE
                while not any(pathlib.Path(directory).glob("s*")):
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"{peer} did not start")
                    time.sleep(0.01)
                time.sleep(1)  # the guest is on its way
                out = subprocess.run([build / CLIENT, *(word.format(socket) for word in words)], capture_output=True,
                                     text=True, check=True, timeout=300).stdout
            finally:
                process.kill()
        return {name: float(value) for name, value in (line.split() for line in out.splitlines())}


def _readiness(build, guest, runs):
    """Medians in milliseconds: exec to READY=1, and exec to the first byte of the floor's guest; in turn."""
    ready, floor = [], []
    with tempfile.TemporaryDirectory() as directory:
        for count in range(runs):
            command = [build / GYRED, "--kernel", guest, "--serial", "null", "--memory", "64M", "--qmp",
                       f"unix:{directory}/{count}", "--paused"]
            out = subprocess.run([build / CLIENT, "--ready", *command], capture_output=True, text=True, check=True,
                                 timeout=60).stdout
            ready.append(float(out.split()[1]) / 1000)
            out = subprocess.run([build / RUN, "--", build / FLOOR, "--memory", "64", guest], capture_output=True, text=True,
                                 check=True, timeout=60).stdout
            floor.append(json.loads(out)["first_byte_ns"] / 1e6)
    if min(ready) < 0 or min(floor) < 0:
        raise RuntimeError("a start has failed")
    return statistics.median(ready), statistics.median(floor)


def run(arguments):
    build = arguments.build or building.compile("release", CLIENT, GYRED, RUN, FLOOR)
    guests = arguments.build or building.compile("gcc", GUEST, HELLO)
    guest = guests / GUEST
    samples = {}
    facts = host.facts(ROOT)
    try:
        ready, floor = _readiness(build, guests / HELLO, arguments.starts)
        for _ in range(arguments.rounds):
            for state in ("idle", "exits"):
                for peer in ("gyre", "qemu"):
                    said = _sample(peer, build, guest, state, ["{}", str(arguments.requests)])
                    for clients in (1, 100) if state == "idle" else ():
                        said |= _sample(peer, build, guest, state, ["--events", "{}", str(clients), str(EVENTS)], clients)
                    for name, value in said.items():
                        samples.setdefault((state, name, peer), []).append(value)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    median = {key: sorted(values)[len(values) // 2] for key, values in samples.items()}
    print(f"{'guest':6} {'':18} {'gyre':>10} {'QEMU':>10} {'ratio':>7}")
    for state, name in sorted({key[:2] for key in median}):
        ours, theirs = median[state, name, "gyre"], median[state, name, "qemu"]
        print(f"{state:6} {name:18} {ours:10.1f} {theirs:10.1f} {ours / theirs:7.2f}")
    print(f"Medians of {arguments.rounds} runs; load {' '.join(facts['load_before'])} before")
    print(f"exec to READY {ready:.2f} ms; the floor's guest ran by {floor:.2f} ms; medians of {arguments.starts}")
    print(f"{'reached' if ready - floor <= READY_MS else 'MISSED '}  READY: {ready - floor:+.2f} ms, at most +{READY_MS}")
    for (state, name), most in MOST.items():
        ratio = median[state, name, "gyre"] / median[state, name, "qemu"]
        print(f"{'reached' if ratio <= most else 'MISSED '}  {state} {name}: {ratio:.2f} x QEMU's, at most {most:.2f}")
    return 0
