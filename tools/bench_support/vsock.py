"""Bytes and connections through virtio's sockets: beside plain Unix sockets between two processes."""
import itertools
import os

from bench_support import driven, peers, results, session as sessions

NAME = "vsock"
HOST = "tools/bench_support/gyre-vsock-host"
FLOOR = "tools/bench_support/gyre-vsock-floor"
PROGRAMS = (HOST, FLOOR)
GUEST = "vsock_bench"
MILLISECONDS, QUICK_MILLISECONDS = 400, 50
ROUNDS = 7
CID = 3
KERNELS = "/dev/vhost-vsock"
LEAST_OF_FLOOR = 0.5

METHOD = [
    "The inner end: a freestanding guest of one vCPU with virtio's socket device, which polls its rings and kicks where it is asked "
    "to, with packets, buffers and credit of the sizes that Linux's driver has; or the floor, another process with a Unix socket. "
    "QEMU has no such device of its own; with the kernel's it takes part where there is one.",
    "The outer end, the same for all: a program that reads and writes pieces of 64 KiB, sends a byte and waits for it to come back, "
    "or does that with a new connection each time; of a VMM's socket it asks for the port first.",
    "Throughput is measured with everybody on any CPU, where the guest's spinning vCPU takes one away, and with the vCPU on a CPU of "
    "its own and everything else on another, the floor's two processes too. "
    "CPU time is that of the VMM's threads but the vCPU, or of the floor's process at the inner end.",
]


class _Connection:
    """One case: an operation of the inner end, and the outer end's."""

    _numbers = itertools.count()

    def __init__(self, session, inner, outer, pinned):
        self._session, self._inner, self._outer = session, inner, outer
        self._places = driven.cpus() if pinned else None
        self.details = {}

    def command(self, peer):
        """As usable() wants it: called once a run, for each wants a socket of its own."""
        if peer.name not in driven.PEERS:
            raise peers.Unsupported("was not tried with this guest")
        if peer.name == "qemu-microvm" and not os.access(KERNELS, os.R_OK | os.W_OK):
            raise peers.Unsupported(f"no usable {KERNELS}, and no such device of its own")
        return peer

    def _commands(self, peer):
        """(the inner end, where the outer end finds it)"""
        number = next(self._numbers)
        path = str(self._session.directory / f"vsock{number}")
        if peer.name == results.FLOOR:
            return [str(self._session.build / FLOOR), path, self._inner], f"plain:{path}"
        start = self._session.start(str(driven.guest(self._session, GUEST)), cmdline=self._inner)
        if peer.name == results.OURS:
            return [*peer.command(start), "--vsock", f"cid={CID},uds={path}"], f"line:{path}"
        cid = os.getpid() * 100 + number % 100
        return [*peer.command(start), "-device", f"vhost-vsock-device,guest-cid={cid}"], f"vsock:{cid}"

    def once(self, peer, _start):
        command, where = self._commands(peer)
        milliseconds = QUICK_MILLISECONDS if self._session.quick else MILLISECONDS
        outside = [str(self._session.build / HOST), where, self._outer, str(milliseconds)]
        result = driven.measure(command, outside, peer.name != results.FLOOR, self._places)
        if result["count"] == 0:
            raise sessions.Failure("nothing came")
        seconds, threads = result["ns"] / 1e9, driven.working(result)
        if self._outer == "connect":
            return {"connections": result["count"] / seconds, "latency_p99": result["p99"] / 1e3}
        if self._outer == "echo":
            return {"latency_p50": result["p50"] / 1e3, "latency_p99": result["p99"] / 1e3}
        mib = result["count"] / 2**20
        self.details.setdefault(peer.name, {})["CPU time, us a MiB"] = {
            name: round(ns / mib / 1e3) for name, ns in threads.items() if ns > mib * 1e3}
        return {"throughput": mib / seconds, "cpu_per_mib": sum(threads.values()) / mib / 1e3}


def cases(quick):
    """(case, the inner end's operation, the outer end's, whether all but the vCPU share a CPU)"""
    for name, title, inner, outer in (("to-host", "guest to host", "send", "receive"), ("to-guest", "host to guest", "receive", "send")):
        yield results.Case(name, f"bytes, {title}"), inner, outer, False
        if not quick:
            yield results.Case(f"{name}-one-cpu", f"bytes, {title}, all but the guest on one CPU"), inner, outer, True
    yield results.Case("echo", "a byte there and back"), "echo", "echo", True
    yield results.Case("connect", "connections, each with a byte there and back"), "echo", "connect", True


def run(session):
    suite = results.Suite(NAME, "Sockets between guest and host", METHOD)
    for case, inner, outer, pinned in cases(session.quick):
        suite.cases.append(case)
        connection = _Connection(session, inner, outer, pinned)
        usable = session.usable(case, connection.command, connection.once, base=True)
        sessions.take_turns(case, usable, session.rounds(ROUNDS), 0, session.budget, connection.once)
        case.details = connection.details
        if outer in ("receive", "send"):
            suite.aim(f"{case.title}, throughput", case.name, "throughput", results.FLOOR, least=LEAST_OF_FLOOR)
    return suite
