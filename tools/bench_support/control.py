"""The control socket beside QEMU microvm's, by the same client in one run: idle, and with a vCPU that exits all the time."""
import pathlib
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
MOST = {("idle", "p50_us"): 1 / 3, ("exits", "p99_us"): 1 / 5}  # of QEMU's
PATIENCE = 20


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--rounds", type=int, default=3, help="of both in turn (default 3)")
    parser.add_argument("--requests", type=int, default=5000, help="a sample (default 5000)")
    parser.set_defaults(run=run)


def _command(peer, build, guest, socket, state):
    idle = state == "idle"
    if peer == "gyre":
        return [build / GYRED, "--kernel", guest, "--serial", "null", "--memory", "64M", "--qmp",
                f"unix:{socket}"] + (["--paused"] if idle else [])
    return ["qemu-system-x86_64", "-M", "microvm", "-accel", "kvm", "-m", "64", "-display", "none", "-kernel",
            guest, "-serial", "null", "-qmp", f"unix:{socket},server=on,wait=off"] + (["-S"] if idle else [])


def _sample(peer, build, guest, state, requests):
    with tempfile.TemporaryDirectory() as directory:
        socket = pathlib.Path(directory) / "s"
        with subprocess.Popen(_command(peer, build, guest, socket, state), stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            try:
                end = time.monotonic() + PATIENCE
                while not socket.exists():
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"{peer} did not start")
                    time.sleep(0.01)
                time.sleep(1)  # the guest is on its way
                out = subprocess.run([build / CLIENT, socket, str(requests)], capture_output=True, text=True,
                                     check=True, timeout=300).stdout
            finally:
                process.kill()
        return {name: float(value) for name, value in (line.split() for line in out.splitlines())}


def run(arguments):
    build = arguments.build or building.compile("release", CLIENT, GYRED)
    guest = (arguments.build or building.compile("gcc", GUEST)) / GUEST
    samples = {}
    facts = host.facts(ROOT)
    try:
        for _ in range(arguments.rounds):
            for state in ("idle", "exits"):
                for peer in ("gyre", "qemu"):
                    for name, value in _sample(peer, build, guest, state, arguments.requests).items():
                        samples.setdefault((state, name, peer), []).append(value)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    median = {key: sorted(values)[len(values) // 2] for key, values in samples.items()}
    print(f"{'guest':6} {'query-status':16} {'gyre':>10} {'QEMU':>10} {'ratio':>7}")
    for state, name in sorted({key[:2] for key in median}):
        ours, theirs = median[state, name, "gyre"], median[state, name, "qemu"]
        print(f"{state:6} {name:16} {ours:10.1f} {theirs:10.1f} {ours / theirs:7.2f}")
    print(f"Medians of {arguments.rounds} runs; load {' '.join(facts['load_before'])} before")
    for (state, name), most in MOST.items():
        ratio = median[state, name, "gyre"] / median[state, name, "qemu"]
        print(f"{'reached' if ratio <= most else 'MISSED '}  {state} {name}: {ratio:.2f} x QEMU's, at most {most:.2f}")
    return 0
