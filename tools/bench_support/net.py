"""Frames through virtio and a tap, both ways: beside a bare program on the same tap and QEMU's microvm without vhost."""
import contextlib
import re
import shutil
import statistics
import subprocess

from bench_support import driven, peers, results, session as sessions

NAME = "net"
HOST = "tools/bench_support/gyre-net-host"
FLOOR = "tools/bench_support/gyre-net-floor"
DEVICE = "tools/bench_support/gyre-net-device"
PROGRAMS = (HOST, FLOOR, DEVICE)
GUEST = "net_bench"
SIZES = {64: "64 bytes", 1500: "1,500 bytes", 65214: "64 KiB segments"}  # the last: 45 times 1,448 bytes behind the headers
MILLISECONDS, QUICK_MILLISECONDS = 400, 50
ROUNDS = 7
DEVICE_PEER = "device"
LEAST_OF_FLOOR = 0.8  # packets a second, where they are large
LEAST_OF_QEMU = 1.5   # packets a CPU second
# Where most of the time is the kernel's, nobody can have 1.5 times QEMU's: then so much of the floor's own.
LEAST_OF_FLOOR_CPU = 0.9
MOST_LOST = 0.01
WAYS = {"to-host": ("send", "receive", "guest to host"), "to-guest": ("receive", "send", "host to guest")}
CALLS = "read,readv,write,writev,io_uring_enter,ppoll,recvmsg,sendmsg,futex"

METHOD = [
    "A tap in a network namespace of its own. Its inner end: a freestanding guest of one vCPU with virtio-net (checksum and "
    "segmentation offloads, mergeable buffers of a page), which polls its rings and kicks where it is asked to; or the floor, a "
    "program that reads and writes the tap, by a system call a frame or by io_uring in batches, whichever is quicker here.",
    "Its outer end, the same for all: a packet socket. To the host, its filter looks at every frame and counts; what the socket "
    "has no room for is dropped there. To the guest, it keeps the tap's queue filled and loses none; what counts is what is read "
    "of the tap. Frames are as long as said, with the Ethernet header; segments are TCP's, cut by nobody.",
    "The vCPU has a CPU for itself, and everything else shares another: the VMM's threads or the floor, and the outer end. "
    "A CPU second is one of all of the VMM's threads but the vCPU, which spins all the time, so a kick's cost is not in it; the "
    "floor's is its one thread's. What the kernel does with a frame in a thread's name is in its time.",
    "device: gyre's network and its main loop with that driver as a thread, without KVM: what gyre has beyond it is the exits'.",
    "The floor needs no other thread to be at work at the same time, a VMM needs its vCPU: where something else runs on that one's CPU, "
    "rings run dry meanwhile, and packets a second say more of that than of the VMM. Those a CPU second hold.",
]


@contextlib.contextmanager
def _network(session, tap):
    """What a command begins with to be within a namespace that has the tap. For one run each: the kernel lets go of a tap that
    an io_uring had a while after its process has ended."""
    process = subprocess.Popen([session.build / HOST, "hold", tap], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        if process.stdout.readline() != "ready\n":
            raise sessions.Failure(process.stderr.read().strip() or "no network")
        yield ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        process.stderr.close()


class _Frames:
    """One case: an operation of the inner end, and the outer end's."""

    def __init__(self, session, inner, outer, size):
        self._session, self._inner, self._outer, self._size = session, inner, outer, size
        self._tap = session.taps(1)[0]
        self.details = {}

    def command(self, peer):
        """As usable() wants it; of the floor the quicker one."""
        if peer.name == DEVICE_PEER:
            if not peer.program.is_file():
                raise peers.Unsupported("was not built")
            return [str(peer.program), self._tap, self._words()]
        if peer.name not in driven.PEERS:
            raise peers.Unsupported("was not tried with this guest")
        if peer.name != results.FLOOR:
            start = self._session.start(str(driven.guest(self._session, GUEST)), taps=(self._tap,), cmdline=self._words())
            return peer.command(start)
        commands = {how: [str(self._session.build / FLOOR), self._tap, how, self._words()] for how in ("calls", "ring")}
        if self._inner == "echo":
            return commands["calls"]
        rates = {how: self._rate(peer, command) for how, command in commands.items()}
        self.details[peer.name] = {"packets a second, by read(2) and write(2) and by io_uring": rates}
        return commands[max(rates, key=rates.get)]

    def _words(self):
        return f"{self._inner}:{self._size}"

    def _rate(self, peer, command):
        result = self.measure(peer, command, QUICK_MILLISECONDS)
        return round(result["frames"] / result["ns"] * 1e9)

    def measure(self, peer, command, milliseconds):
        """Where a machine is so busy that none comes in a short time, once more for as long as is usual."""
        result = self._for(peer, command, milliseconds)
        if result["frames"] == 0 and milliseconds < MILLISECONDS:
            result = self._for(peer, command, MILLISECONDS)
        if result["frames"] == 0:
            raise sessions.Failure("no frame came")
        if "guest" in result and result["guest"][0] < result["frames"] * (1 - MOST_LOST):
            raise sessions.Failure(f"the guest knows of {result['guest'][0]} frames, the host of {result['frames']}")
        return result

    def _for(self, peer, command, milliseconds):
        outside = [str(self._session.build / HOST), self._outer, self._tap, str(self._size), str(milliseconds)]
        with _network(self._session, self._tap) as inside:
            return driven.measure([*inside, *command], [*inside, *outside], peer.name != results.FLOOR, driven.cpus())

    def once(self, peer, command):
        result = self.measure(peer, command, QUICK_MILLISECONDS if self._session.quick else MILLISECONDS)
        frames, threads = result["frames"], driven.working(result)
        self.details.setdefault(peer.name, {})["CPU time, ns a packet"] = {
            name: round(ns / frames) for name, ns in threads.items() if ns > frames}
        if "guest" in result:
            self.details[peer.name]["kicks, of 1,000 packets"] = {"kicks": round(1000 * result["guest"][1] / result["guest"][0])}
        if self._inner == "echo":
            return {"latency_p50": result["p50"] / 1e3, "latency_p99": result["p99"] / 1e3}
        return {"packets": frames / result["ns"] * 1e9, "packets_per_cpu": frames / max(sum(threads.values()), 1) * 1e9}

    def count_calls(self, peer, command):
        """System calls by name, of 1,000 packets."""
        report = self._session.directory / "calls"
        traced = ["strace", "-f", "-c", "-U", "calls,name", "-e", f"trace={CALLS}", "-o", str(report), *command]
        result = self.measure(peer, traced, MILLISECONDS)
        counts = {match.group(2): int(match.group(1)) for match in
                  re.finditer(r"^\s*(\d+)\s+([a-z_0-9]+)\s*$", report.read_text(encoding="utf-8"), re.MULTILINE)}
        counts.pop("total", None)
        packets = max(result["guest"][0], 1)
        self.details.setdefault(peer.name, {})["system calls of 1,000 packets, under strace"] = {
            name: round(1000 * count / packets) for name, count in counts.items()}
        return sum(counts.values()) / packets


def least_of_qemu(case):
    """How many times QEMU's packets a CPU second are wanted, and why it is not the usual."""
    floor, qemu = (case.values("packets_per_cpu", name) for name in (results.FLOOR, "qemu-microvm"))
    if not floor or not qemu:
        return LEAST_OF_QEMU, ""
    ratio = statistics.median(floor) / statistics.median(qemu)
    if LEAST_OF_FLOOR_CPU * ratio >= LEAST_OF_QEMU:
        return LEAST_OF_QEMU, ""
    return LEAST_OF_FLOOR_CPU * ratio, f" ({LEAST_OF_FLOOR_CPU:g} of the floor's own {ratio:.2f}; the rest is the kernel's)"


def _aim(suite, case, size):
    if size > 64:
        suite.aim(f"{case.title}, packets a second", case.name, "packets", results.FLOOR, least=LEAST_OF_FLOOR)
    least, why = least_of_qemu(case)
    suite.aim(f"{case.title}, packets a CPU second{why}", case.name, "packets_per_cpu", "qemu-microvm", least=least)


def _measure(session, case, frames):
    device = peers.Installed(peers.Peer(DEVICE_PEER, "gyre's network without a VM", (DEVICE,), None, ()), session.build / DEVICE, None)
    usable = session.usable(case, frames.command, frames.once, base=True, beside=(device,))
    sessions.take_turns(case, usable, session.rounds(ROUNDS), 0, session.budget, frames.once)
    for peer, command, _ in usable if shutil.which("strace") and not session.quick else ():
        if peer.name == results.OURS and "packets" in case.samples:
            case.add("packet_calls", peer.name, frames.count_calls(peer, command))
    case.details = frames.details


def cases(quick):
    """(case, the inner end's operation, the outer end's, size)"""
    for way, (inner, outer, title) in WAYS.items():
        for size, name in SIZES.items():
            if not quick or size == 64:
                yield results.Case(f"{way}-{size}", f"{name}, {title}"), inner, outer, size
    yield results.Case("echo", "a request and its answer, 64 bytes each"), "echo", "echo", 64


def _missing(session):
    """Why there is no network here, or nothing."""
    try:
        with _network(session, session.taps(1)[0]):
            return ""
    except (sessions.Failure, OSError) as failure:
        return f"no tap can be made here: {failure}"


def run(session):
    suite = results.Suite(NAME, "A network", METHOD)
    why_not = _missing(session)
    for case, inner, outer, size in cases(session.quick):
        suite.cases.append(case)
        if why_not:
            case.skipped["all"] = why_not
            continue
        _measure(session, case, _Frames(session, inner, outer, size))
        if inner != "echo":
            _aim(suite, case, size)
    return suite
