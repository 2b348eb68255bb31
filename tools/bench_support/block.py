"""A disk through virtio beside the host's own io_uring and QEMU's microvm with an I/O thread, in one run."""
import collections
import itertools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from bench_support import host, processes
from gyre_tools import build as building

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FLOOR = "tools/bench_support/gyre-block-floor"
DEVICE = "tools/bench_support/gyre-block-device"
GUEST = "tests/guests/block_bench"
PHASES = tuple(
    [(op, 4096, depth, queues) for op in ("randread", "randwrite") for queues in (1, 2) for depth in (1, 32, 128)]
    + [(op, 131072, 32, 1) for op in ("read", "write")])
# As long as QEMU's I/O threads look for work before they sleep, unless they are told otherwise.
POLLING = ",poll-max-ns=32768"
OURS = ("gyred", "polling")
JUDGED = ("device", *OURS)
# Whose CPU time ours is compared with: a thread that looks for work before it sleeps with one that does too.
RIVALS = {"device": "qemu-asleep", "gyred": "qemu-asleep", "polling": "qemu"}
# What we want, as ratios of medians.
LEAST_OF_FLOOR = 0.9
LEAST_OF_QEMU_CPU = 1.5
MOST_CALLS = 1.02  # a batch; one, but for the waits at a phase's ends
# Where the vCPU spends more than this part of its time with kicks, that is told: they are the limit, not the device.
KICK_NS = 5000
MOST_KICKING = 0.25

METHOD = (
    "Each peer in turn does every phase on the same image; the table shows medians of the rounds.",
    "floor: one io_uring, registered file, each batch submitted and waited for in one call. gyred and QEMU: the same",
    "freestanding guest of one vCPU, which polls its rings, takes no interrupt, and kicks where it is asked to.",
    "ring: the least that any VMM can do: a thread plays that guest's driver, another serves the bare ring with such an io_uring.",
    "device: gyre's disk and its I/O thread with that driver's thread, without KVM: what gyred has beyond it is the exits'.",
    f"polling: gyred with {POLLING[1:]}, as QEMU's I/O threads have it by default (qemu); gyred's sleep at once, as",
    "qemu-asleep's do, which has poll-max-ns=0. Who sleeps is compared with who sleeps, who polls with who polls.",
    "What the page cache answers, gyred's I/O threads carry out themselves by default (reads by copies from a mapping of the",
    "image, small writes by pwritev); floor, ring and QEMU have io_uring do it, as gyred does with aio=io_uring.",
    "CPU: nanoseconds an operation of all threads but the vCPU, which spins; the floor's is its one thread's.",
)


def add_arguments(parser):
    parser.add_argument("--build", type=pathlib.Path, help="build directory, as it is (default: the release build, "
                        "made up to date)")
    parser.add_argument("--guest", type=pathlib.Path)
    parser.add_argument("--qemu", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5, help="of all peers in turn (default 5)")
    parser.add_argument("--megacycles", type=int, default=500, help="how long a phase lasts, by the TSC (default 500)")
    parser.add_argument("--cache", choices=("none", "writeback"), default="writeback",
                        help="past the host's page cache or through it (default writeback, so that the disk is no limit)")
    parser.add_argument("--image", type=pathlib.Path, help="a file to work on, which is overwritten (default: a new one)")
    parser.add_argument("--size", type=int, default=256, help="MiB of a new image (default 256)")
    parser.add_argument("--gyred-option", action="append", default=[], metavar="OPTION", help="given to gyred too")
    parser.add_argument("--iothread", default="a", help="gyred's I/O thread, as --iothread has it, without polling (default: a)")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured there")
    parser.set_defaults(run=run)


def name_of(phase):
    op, size, depth, queues = phase
    return f"{size // 1024}k {op}, depth {depth}, {queues} queue{'s' if queues > 1 else ''}"


class Failure(Exception):
    """A run that did not do what it should have done."""


def peers_of(arguments, build, guest, image):
    phases = f"{arguments.megacycles}," + ",".join(":".join(str(part) for part in phase) for phase in PHASES)
    direct = arguments.cache == "none"
    program = str(arguments.qemu or shutil.which("qemu-system-x86_64") or "qemu-system-x86_64")
    thread = arguments.iothread.split(",")[0]

    def gyred(iothread):
        return [str(build / building.DAEMON), "--kernel", str(guest), "--cmdline", phases, "--memory", "128M",
                "--iothread", iothread, "--disk", f"path={image},cache={arguments.cache},queues=2,iothread={thread}",
                *arguments.gyred_option]

    def qemu(iothread):
        # Without the MSR that some hosts do not let be set.
        return [program, "-M", "microvm,acpi=off,pit=off,pic=off,rtc=off", "-global", "virtio-mmio.force-legacy=false",
                "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", "128", "-nodefaults", "-no-user-config",
                "-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                "-name", "bench,debug-threads=on", "-object", iothread, "-blockdev",
                f"driver=file,filename={image},node-name=disk,aio=io_uring,cache.direct={'on' if direct else 'off'}",
                "-device", "virtio-blk-device,drive=disk,iothread=io,num-queues=2", "-kernel", str(guest),
                "-append", phases]

    return {
        "floor": [str(build / FLOOR), str(image), "direct" if direct else "cached", phases],
        "ring": [str(build / FLOOR), str(image), "direct" if direct else "cached", phases, "ring"],
        "device": [str(build / DEVICE), str(image), "direct" if direct else "cached", phases],
        "gyred": gyred(arguments.iothread),
        "polling": gyred(arguments.iothread + POLLING),
        "qemu": qemu("iothread,id=io"),
        "qemu-asleep": qemu("iothread,id=io,poll-max-ns=0"),
    }


def cpu_by_thread(pid):
    """{thread's name: nanoseconds}; threads of one name together."""
    times = collections.Counter()
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            name = re.sub(r"[-.]?\d+$", "", (task / "comm").read_text().strip())
            times[name] += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
    return times


def one_run(command, timeout):
    """[{ops, cycles, kicks, errors, p50, p99, p999, seconds, cpu}] by phase."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    complaints = []
    reader = threading.Thread(target=lambda: complaints.extend(process.stderr))
    reader.start()
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    results, before, began = [], None, 0.0
    try:
        for line in process.stdout:
            words = line.split()
            if words == ["begin"]:
                before, began = cpu_by_thread(process.pid), time.monotonic()
            elif words[:1] == ["phase"]:
                seconds, after = time.monotonic() - began, cpu_by_thread(process.pid)
                if not after:
                    raise Failure("it had ended before its threads were looked at")
                keys = ("ops", "cycles", "kicks", "errors", "p50", "p99", "p999")
                results.append({**dict(zip(keys, map(int, words[1:]))), "seconds": seconds,
                                "cpu": {name: ns - before[name] for name, ns in after.items()}})
        process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        reader.join()
    if len(results) != len(PHASES):
        said = [line.strip() for line in complaints if line.strip()][-1:] or ["it said nothing"]
        raise Failure(f"status {process.returncode} after {len(results)} of {len(PHASES)} phases: {said[0]}")
    if any(result["errors"] for result in results):
        raise Failure("requests failed")
    return results


def tsc_hz(runs):
    """By all phases: where the host is busy, a single one's lines are read late."""
    return statistics.median(result["cycles"] / result["seconds"] for result in runs)


def reduce(result, hz):
    seconds = result["cycles"] / hz
    working = {name: ns / result["ops"] for name, ns in result["cpu"].items() if not processes.is_vcpu(name)}
    return {"ops": result["ops"] / seconds, "cpu_ns": sum(working.values()), "threads": working,
            "kicks": result["kicks"] / result["ops"], "kicking": result["kicks"] * KICK_NS / 1e9 / seconds,
            **{p: result[p] / hz * 1e6 for p in ("p50", "p99", "p999")}}


def settle(image):
    """What the run before has written: writing it back takes a CPU from those who have two threads."""
    file = os.open(image, os.O_RDWR)
    os.fsync(file)
    os.close(file)


def take_turns(arguments, image, peers):
    samples = {name: [[] for _ in PHASES] for name in peers}
    skipped = {}
    timeout = 60 + len(PHASES) * arguments.megacycles / 100
    for _ in range(arguments.rounds):
        for name, command in peers.items():
            if name in skipped:
                continue
            settle(image)
            try:
                for number, result in enumerate(one_run(command, timeout)):
                    samples[name][number].append(result)
            except (Failure, OSError) as failure:
                if name == "device" or (name in OURS and os.path.exists("/dev/kvm")):
                    raise
                skipped[name] = str(failure)
    usable = {name: phases for name, phases in samples.items() if name not in skipped}
    hz = tsc_hz([result for phases in usable.values() for runs in phases for result in runs])
    return {name: [[reduce(result, hz) for result in runs] for runs in phases] for name, phases in usable.items()}, skipped


def summarise(samples):
    summary = {}
    for number, phase in enumerate(PHASES):
        entry = summary[name_of(phase)] = {}
        for name, phases in samples.items():
            runs = phases[number]
            entry[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "threads"}
            threads = {thread for run in runs for thread in run["threads"]}
            entry[name]["threads"] = {thread: statistics.median(run["threads"].get(thread, 0) for run in runs)
                                      for thread in sorted(threads)}
    return summary


def print_table(summary):
    print(f"{'':38} {'':11} {'kops/s':>8} {'CPU ns':>7} {'kicks/op':>8} {'p50 us':>8} {'p99':>8} {'p99.9':>8}  threads, CPU ns an operation")
    for phase, peers in summary.items():
        for name, entry in peers.items():
            kicks = "" if name in ("floor", "ring") else f"{entry['kicks']:.3f}"
            threads = ", ".join(f"{thread} {ns:.0f}" for thread, ns in entry["threads"].items() if ns >= 1)
            print(f"{phase:38} {name:11} {entry['ops'] / 1000:8.1f} {entry['cpu_ns']:7.0f} {kicks:>8} {entry['p50']:8.1f} "
                  f"{entry['p99']:8.1f} {entry['p999']:8.1f}  {threads}")
            phase = ""


def count_calls(arguments, command, op, options=""):
    """gyred's I/O thread at depth 32, whose driver takes no interrupt: operations, all its system calls, from its start to its
    end, and batches that were submitted; none without strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None, "no strace"
    position = command.index("--cmdline") + 1
    command = [*command[:position], f"{arguments.megacycles},{op}:4096:32:1", *command[position + 1:]]
    command[command.index("--disk") + 1] += options
    with tempfile.NamedTemporaryFile(mode="r") as trace:
        said = subprocess.run([strace, "-f", "-qq", "-o", trace.name, *command], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False).stdout
        by_thread = collections.defaultdict(collections.Counter)
        submitted = collections.Counter()
        for line in trace:
            found = re.match(r"(\d+)\s+(\w+)\((?:\d+, (\d+))?", line)
            if found:
                thread, call = found[1], found[2]
                by_thread[thread][call] += 1
                if call == "io_uring_enter" and int(found[3] or 0) > 0:
                    submitted[thread] += 1
    operations = re.search(r"^phase (\d+)", said, re.MULTILINE)
    if not submitted or not operations:
        return None, "strace showed nothing"
    thread = max(submitted, key=lambda thread: submitted[thread] + by_thread[thread]["pwritev"])
    return {"operations": int(operations[1]), "batches": submitted[thread], "calls": dict(by_thread[thread])}, ""


def verdicts(summary, calls):
    """(text, reached) for each target that could be judged."""
    out = []
    for phase, name in itertools.product(summary, JUDGED):
        peers = summary[phase]
        if name not in peers:
            continue
        ours = peers[name]
        if "floor" in peers and "depth 128" in phase:
            ratio, limited = ours["ops"] / peers["floor"]["ops"], name in OURS and ours["kicking"] > MOST_KICKING
            text = f"{phase}: {name}: {ratio:.3f} of the host's io_uring, at least {LEAST_OF_FLOOR:g}"
            bare = f"; a bare ring has {peers['ring']['ops'] / peers['floor']['ops']:.3f}" if "ring" in peers else ""
            kicks = f"; kicks take {ours['kicking']:.0%} of the vCPU" if limited else ""
            out.append((text + bare + kicks, ratio >= LEAST_OF_FLOOR))
        if "ring" in peers and "depth 128" in phase:
            ratio = ours["ops"] / peers["ring"]["ops"]
            out.append((f"{phase}: {name}: {ratio:.3f} of a bare ring, at least {LEAST_OF_FLOOR:g}", ratio >= LEAST_OF_FLOOR))
        rival = RIVALS[name]
        if rival in peers and ours["cpu_ns"] > 0:
            ratio = peers[rival]["cpu_ns"] / ours["cpu_ns"]
            text = f"{phase}: {name}: {ratio:.2f} x the operations a CPU second of {rival}, at least {LEAST_OF_QEMU_CPU:.2f}"
            # Where most of it is the kernel's work, who does nothing but that has no more.
            own = "".join(f"; {peer} has {peers[rival]['cpu_ns'] / peers[peer]['cpu_ns']:.2f}"
                          for peer in ("floor", "ring") if peer in peers)
            out.append((text + own, ratio >= LEAST_OF_QEMU_CPU))
    for name, counted in calls.items():
        ratio = sum(counted["calls"].values()) / counted["batches"]
        out.append((f"{name}, aio=io_uring: system calls a batch that was submitted: {ratio:.2f}, at most {MOST_CALLS:g}",
                    ratio <= MOST_CALLS))
    return out


def measure(arguments, build, guest, image):
    peers = peers_of(arguments, build, guest, image)
    samples, skipped = take_turns(arguments, image, peers)
    summary = summarise(samples)
    print_table(summary)
    print("\n".join(METHOD))
    for name, why in skipped.items():
        print(f"skipped {name}: {why}")
    calls = {}
    for name in (name for name in OURS if name not in skipped):
        # What io_uring has goes to it in batches, whatever the thread carries out itself by default.
        counted, why = count_calls(arguments, peers[name], "randread", ",aio=io_uring")
        if counted:
            calls[name] = counted
        print(f"{name}: its I/O thread under strace, reads with aio=io_uring: {counted}" if counted
              else f"{name}: system calls not counted: {why}")
        # Told, not judged: each write that it carries out itself is a call, in place of a worker's two wake-ups.
        for op in ("randread", "randwrite"):
            counted, _ = count_calls(arguments, peers[name], op)
            if counted:
                print(f"{name}: {op} without that: {counted}")
    return {"summary": summary, "skipped": skipped, "calls": calls}


def run(arguments):
    build = arguments.build or building.compile("release", building.DAEMON, FLOOR, DEVICE)
    guest = arguments.guest or building.compile("gcc", GUEST) / GUEST
    facts = host.facts(ROOT)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
        image = arguments.image or pathlib.Path(directory) / "image"
        if not arguments.image:
            with open(image, "wb") as file:
                for _ in range(arguments.size):
                    file.write(b"\xa5" * (1 << 20))
                os.fsync(file.fileno())
        try:
            measured = measure(arguments, build, guest, image)
        except (Failure, OSError) as failure:
            print(f"bench: gyre: {failure}", file=sys.stderr)
            return 1
    facts["load_after"] = host.load()
    print(f"cache={arguments.cache}; load {' '.join(facts['load_before'])} before, {' '.join(facts['load_after'])} after")
    targets = verdicts(measured["summary"], measured["calls"])
    for text, reached in targets:
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"benchmark": "block", "host": facts, "method": METHOD, **measured, "targets": [
            {"target": text, "reached": reached} for text, reached in targets]}, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    return 0
