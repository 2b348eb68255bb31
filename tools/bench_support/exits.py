"""What an exit costs: port and memory accesses, doorbells, interrupts from eventfds, kicks; each beside bare calls."""
import json
import subprocess

from bench_support import guest_images, results, session as sessions

NAME = "exits"
PROGRAM = "tools/bench_support/gyre-exits-bench"
FEW, MANY = 200, 2200
# gyre-exits-bench's names -> case
INSIDE = {"port read": "port-read-inside", "memory read": "memory-read-inside", "ioeventfd": "ioeventfd", "irqfd": "irqfd",
          "kick": "kick"}
PEERS = {"bare": results.FLOOR, "gyre": results.OURS}


def _difference(session, program):
    """Time of an exit: the difference of two starts, which are the same but for the number of exits."""
    def once(peer, starts):
        few, many = (session.one_start(peer, start)["exit_ns"] for start in starts)
        return {"operation": (many - few) / (MANY - FEW) / 1e3}

    starts = tuple(session.start(session.image(program, "pvh", count)) for count in (FEW, MANY))
    return starts, once


def _inside(session, suite):
    """The paths that only a program in the process can take: gyre's own classes beside bare calls."""
    cases = {}
    for name, title in (("port-read-inside", "port read, dispatch alone"), ("memory-read-inside", "memory read, dispatch alone"),
                        ("ioeventfd", "write to a doorbell (ioeventfd)"), ("irqfd", "irqfd to the guest's handler, from a halt"),
                        ("kick", "kick out of the guest")):
        cases[name] = results.Case(name, title)
        suite.cases.append(cases[name])
    program = session.build / PROGRAM
    if not program.is_file():
        for case in cases.values():
            case.skipped["all"] = f"no {PROGRAM} in this build"
        return
    rounds = session.rounds(15)
    result = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=60 + 10 * rounds, check=False)
    for line in result.stdout.splitlines():
        entry = json.loads(line)
        cases[INSIDE[entry["benchmark"]]].add("operation", PEERS[entry["peer"]], entry["ns"] / 1e3)
    if result.returncode != 0:
        complaint = (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1]
        next(iter(cases.values())).fail(PROGRAM, complaint)


def run(session):
    suite = results.Suite(NAME, "Exits", [
        f"Port and memory reads by every VMM: the difference of two guests, the same but for {MANY - FEW} more reads of "
        "the UART's scratch register, or of an address where nobody is.",
        "The others within one process, on gyre's own classes and on bare calls in turn: the time between two passes of a guest's "
        "loop (port, memory, doorbell); an eventfd's write to the handler's write to memory (irqfd); immediate_exit and a signal to "
        "the thread's word that it is out (kick)."])
    for name, title, program in (("port-read", "port read", guest_images.port_reads),
                                 ("memory-read", "memory read where nobody is", guest_images.memory_reads)):
        case = results.Case(name, title)
        suite.cases.append(case)
        starts, once = _difference(session, program)
        usable = session.usable(case, lambda _peer, starts=starts: starts, lambda peer, starts: session.one_start(peer, starts[0]))
        sessions.take_turns(case, usable, session.rounds(20), 0 if session.quick else 1, session.budget, once)
    _inside(session, suite)
    return suite
