"""From a signal to a VMM until all of it is gone: asked to end, and killed."""
import signal

from bench_support import guest_images, results, session as sessions

NAME = "cleanup"
TOUCHED_MIB = 64


def _release(session, number):
    def once(peer, start):
        result, complaint = session.run(["--signal", str(number)], peer.command(start))
        if result["missed"] or result["timed_out"]:
            raise sessions.Failure(f"{'the waiting guest did not speak' if result['missed'] else 'did not end in time'}. "
                                   f"{complaint}".strip())
        return {"release": result["release_ns"] / 1e6}
    return once


def run(session):
    suite = results.Suite(NAME, "The end of a VM", [
        "A guest that says a byte and halts; 100 ms later the VMM gets a signal. Until wait4 returns, by when the kernel has closed "
        "the VM and all files and has taken guest memory back. SIGTERM asks (VMMs that have no handler die of it), SIGKILL kills."])
    machines = (("one", "one vCPU, 128 MiB", guest_images.hold, (), {}),
                ("vcpus", "32 vCPUs", guest_images.hold, (), {"cpus": 32}),
                ("disks", "8 disks", guest_images.hold, (), {"disks": session.disks(8)}),
                ("touched", f"{TOUCHED_MIB} MiB of guest memory written", guest_images.touch, (TOUCHED_MIB,), {}))
    for key, title, program, arguments, fields in machines[:1] if session.quick else machines:
        for number, word in ((signal.SIGTERM, "asked"), (signal.SIGKILL, "killed")):
            case = results.Case(f"{key}-{word}", f"{title}, {word}")
            suite.cases.append(case)
            start = session.start(session.image(program, "pvh", *arguments), **fields)
            once = _release(session, number)
            usable = session.usable(case, lambda _peer, start=start: start, once)
            sessions.take_turns(case, usable, session.rounds(20), 0, session.budget / 2, once)
    return suite
