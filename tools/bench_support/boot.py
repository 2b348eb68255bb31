"""A start by boot protocol, vCPUs, memory, disks and networks, of one freestanding guest that says hello and ends."""
import os
import re
import subprocess

from bench_support import guest_images, results, session as sessions

NAME = "boot"
MOST_OF_FLOOR = 1.3
MOST_OF_FLOOR_GROWTH = 1.5
CPUS = (2, 4, 8, 16, 32)
MEMORY_MIB = (512, 2048, 4096, 8192)
DISKS = (1, 4, 8, 16)
NETWORKS = (1, 4, 8, 16)
BASE = "hello"


def _once(session):
    def once(peer, start):
        result = session.one_start(peer, start)
        return {"first_byte": result["first_byte_ns"] / 1e6, "exit": result["exit_ns"] / 1e6, "cpu": result["cpu_ns"] / 1e6}
    return once


def _cases(session):
    """(Case, fields of the start, protocol); the first one is the base of every group."""
    quick = session.quick
    out = [(results.Case(BASE, "one vCPU, 128 MiB, PVH", "base", 1), {}, "pvh")]
    out += [(results.Case(f"protocol-{name}", title, "protocol"), {}, name)
            for name, title in (("linux", "64-bit Linux protocol (vmlinux)"), ("multiboot", "Multiboot 1"),
                                ("bzimage", "bzImage"))]
    out += [(results.Case(f"vcpus-{n}", f"{n} vCPUs", "vcpus", n), {"cpus": n}, "pvh")
            for n in (CPUS if not quick else CPUS[:1])]
    out += [(results.Case(f"memory-{n}", f"{n} MiB", "memory", n), {"memory_mib": n}, "pvh")
            for n in (MEMORY_MIB if not quick else MEMORY_MIB[:1])]
    out += [(results.Case(f"disks-{n}", f"{n} disk{'s' * (n > 1)}", "disks", n), {"disks": session.disks(n)}, "pvh")
            for n in (DISKS if not quick else DISKS[:1])]
    out += [(results.Case(f"networks-{n}", f"{n} network{'s' * (n > 1)}", "networks", n), {"taps": session.taps(n)}, "pvh")
            for n in (NETWORKS if not quick else NETWORKS[:1])]
    return out


def _may_make_taps():
    """Whether a VMM may make its taps itself: as root, where the host has them."""
    return os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK)


def _measure(session, case, fields, protocol):
    def start_for(peer):
        # The floor enters by PVH alone: what it shows is the calls, which are the same.
        own = "pvh" if peer.name == results.FLOOR else protocol
        return session.start(session.image(guest_images.hello, own), protocol=own, **fields)

    usable = session.usable(case, start_for, session.one_start, base=case.name == BASE)
    sessions.take_turns(case, usable, session.rounds(session.runs), 0 if session.quick else session.warmup, session.budget,
                        _once(session))


def timeline(session):
    """The phases of one of our starts, as --boot-timeline tells them: (phase, us from, us to)."""
    ours = session.peer(results.OURS)
    if not ours:
        return []
    command = ours.command(session.start(session.image(guest_images.hello)))
    result = subprocess.run([*command, "--boot-timeline"], capture_output=True, text=True, timeout=30, check=False)
    steps, before = [], 0
    for line in (result.stderr + result.stdout).splitlines():
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S.*)", line)
        if match:
            steps.append((match.group(3), before, int(match.group(1))))
            before = int(match.group(1))
    return steps


def run(session):
    suite = results.Suite(NAME, "A start", [
        "Freestanding guests, the same image for every VMM; each writes a line to the serial port and ends the VM.",
        "Wall clock from just before execve in the forked child to the first byte read from the VMM's stdout, and to the return "
        "of wait4; CPU time is user + system of the process. Peers take turns in each round.",
        "The bare KVM calls make each further vCPU without a thread; their disk is opened and locked, their tap made, and each "
        "has an irqfd. They enter every guest by PVH."])
    for case, fields, protocol in _cases(session):
        suite.cases.append(case)
        if fields.get("taps") and not _may_make_taps():
            case.skipped["all"] = "taps are made as root"
            continue
        _measure(session, case, fields, protocol)
    suite.timeline = timeline(session)
    for quantity in ("first_byte", "exit"):
        suite.aim(f"hello, {results.QUANTITIES[quantity].title}", BASE, quantity, results.FLOOR, most=MOST_OF_FLOOR)
    for what, group, last in (("vCPU", "vcpus", CPUS[-1]), ("disk", "disks", DISKS[-1]), ("network", "networks", NETWORKS[-1])):
        for quantity in ("first_byte", "exit"):
            suite.aim_growth(f"each further {what}, {results.QUANTITIES[quantity].title}", BASE, f"{group}-{last}", quantity,
                             results.FLOOR, MOST_OF_FLOOR_GROWTH)
    return suite
