"""As many idle VMs as fit a memory limit: what each takes, and what all of them do."""
import resource
import time

from bench_support import guest_images, processes, results, session as sessions

NAME = "density"
MOST_VMS = 2000
QUICK_VMS = 4
IDLE_SECONDS = 5
MOST_LOOKS = 40  # VMs of a round whose RSS and PSS are kept
MOST_WAKEUPS = 0.01  # a second and VM: none, but for what the host does to a process on its own


def _fill(session, command, limit, running):
    """Starts VMs until they have taken the limit: by the sum of their PSS, or by what the host lost, whatever is more.
    Returns ((RSS, PSS) of each, bytes that the host lost)."""
    before = processes.available_bytes()
    batch = min(4, QUICK_VMS)
    while True:
        fresh = [processes.begin(command) for _ in range(batch)]
        running += fresh
        for process in fresh:
            processes.await_byte(process)
        processes.settle()
        sizes = [processes.rollup(process.pid) for process in running]
        lost = before - processes.available_bytes()
        taken = max(lost, sum(pss for _, pss in sizes))
        room = (limit - taken) / (taken / len(running))
        most = (QUICK_VMS if session.quick else MOST_VMS) - len(running)
        # Shared pages make the next VM cheaper than the average was, so this comes near from below.
        batch = min(most, 200, max(1, int(room * 0.8)))
        if room < 1 or most <= 0:
            return sizes, lost


def _look(session, peer, start):
    running = []
    try:
        sizes, lost = _fill(session, peer.command(start), session.density_mib << 20, running)
        count = len(running)
        some = sizes[::-(-count // MOST_LOOKS)]
        seconds = 1 if session.quick else IDLE_SECONDS
        processes.settle(seconds / 2)
        began, times = time.monotonic(), [processes.run_time(process.pid) for process in running]
        time.sleep(seconds)
        later, elapsed = [processes.run_time(process.pid) for process in running], time.monotonic() - began
        nanoseconds, switches = (sum(b[i] - a[i] for a, b in zip(times, later)) for i in (0, 1))
        return {"vms": count, "rss": [rss / 2**20 for rss, _ in some], "pss": [pss / 2**20 for _, pss in some], "host_memory": lost / count / 2**20,
                "idle_cpu": nanoseconds / 1e3 / elapsed / count, "idle_wakeups": switches / elapsed / count}
    finally:
        processes.end(running)


def run(session):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two pipes a VM
    suite = results.Suite(NAME, "Idle VMs side by side", [
        f"Guests that have said a byte and halt, one vCPU and 128 MiB each, started until they have taken {session.density_mib} MiB "
        f"(at most {MOST_VMS} of them): by the sum of their PSS, or by the fall of the host's MemAvailable, which has the kernel's own "
        "memory for VMs too, whatever is more. RSS counts a shared page for each VM, PSS once for all.",
        f"Then all of them are left alone, and {IDLE_SECONDS} s are looked at: run time (schedstat) and context switches of all "
        "threads."])
    case = results.Case("idle", f"idle VMs in {session.density_mib} MiB")
    suite.cases.append(case)

    start = session.start(session.image(guest_images.hold))

    def try_out(peer, start):
        with processes.holding([peer.command(start)]):
            pass

    usable = session.usable(case, lambda _peer: start, try_out)
    sessions.take_turns(case, usable, 1 if session.quick else 3, 0, session.budget * 10,
                        lambda peer, start: _look(session, peer, start))
    suite.aim_absolute("wake-ups a second of an idle VM", "idle", "idle_wakeups", MOST_WAKEUPS)
    return suite
