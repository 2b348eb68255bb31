"""What one idle VM takes beside guest RAM: memory by mapping, threads, descriptors; and a start's system calls."""
import pathlib
import re
import shutil
import subprocess

from bench_support import guest_images, processes, results, session as sessions

NAME = "overhead"
MOST_MEMORY_MIB = 1.75
MEMORY_MIB = 128


def _memory(session, peer, start):
    look, complaint = session.run(["--rss", str(MEMORY_MIB << 20)], peer.command(start))
    if look["missed"]:
        raise sessions.Failure(f"the waiting guest did not speak. {complaint}".strip())
    return {"memory": look["own_bytes"] / 2**20}


def _look_inside(case, peer, start):
    with processes.holding([peer.command(start)]) as (process,):
        processes.settle()
        details = {"memory, KiB": processes.mappings(process.pid, peer.program, MEMORY_MIB << 20),
                   "threads": processes.threads(process.pid), "file descriptors": processes.fds(process.pid)}
    case.details.setdefault(peer.name, {}).update(details)
    case.add("threads", peer.name, sum(details["threads"].values()))
    case.add("fds", peer.name, sum(details["file descriptors"].values()))


def _count_calls(session, case, peer, start):
    """The system calls of a whole start, by name."""
    report = pathlib.Path(session.directory) / "strace"
    result = subprocess.run(["strace", "-f", "-c", "-U", "calls,name", "-o", report, *peer.command(start)], capture_output=True,
                            timeout=120, check=False)
    if not peer.ended_well(result.returncode):
        raise sessions.Failure(f"under strace it ended with {result.returncode}")
    counts = {match.group(2): int(match.group(1)) for match in
              re.finditer(r"^\s*(\d+)\s+([a-z_0-9]+)\s*$", report.read_text(encoding="utf-8"), re.MULTILINE)}
    counts.pop("total", None)
    case.details.setdefault(peer.name, {})["system calls"] = dict(sorted(counts.items(), key=lambda entry: -entry[1]))
    case.add("syscalls", peer.name, sum(counts.values()))


def _measure(session, suite, case, fields):
    suite.cases.append(case)

    hold = session.start(session.image(guest_images.hold), memory_mib=MEMORY_MIB, **fields)
    usable = session.usable(case, lambda _peer: hold, lambda peer, start: _look_inside(case, peer, start), base=not fields)
    sessions.take_turns(case, usable, session.rounds(10), 0, session.budget,
                        lambda peer, start: _memory(session, peer, start))
    hello = session.start(session.image(guest_images.hello), memory_mib=MEMORY_MIB, **fields)
    for peer, _, _ in usable if shutil.which("strace") else ():
        try:
            _count_calls(session, case, peer, hello)
        except (sessions.Failure, OSError, subprocess.SubprocessError) as failure:
            case.fail(peer.name, str(failure))


def run(session):
    suite = results.Suite(NAME, "What a VM takes beside guest RAM", [
        f"A guest that says a byte and halts, {MEMORY_MIB} MiB. Memory: Rss of all mappings smaller than guest RAM, the most of two "
        "looks, at the first byte and 100 ms after it; by mapping as smaps has them then.",
        "System calls: strace -f -c from exec to exit of the guest that says hello. strace slows the VMM down and changes how "
        "often threads wait for each other, so futex calls vary."])
    _measure(session, suite, results.Case("one-vcpu", "one vCPU, no device"), {})
    _measure(session, suite, results.Case("one-disk", "one vCPU, one disk"), {"disks": session.disks(1)})
    if not session.quick:
        _measure(session, suite, results.Case("loaded", "4 vCPUs, 8 disks"), {"cpus": 4, "disks": session.disks(8)})
    suite.aim_absolute("memory outside guest RAM, one vCPU and one disk, MiB", "one-disk", "memory", MOST_MEMORY_MIB)
    return suite
