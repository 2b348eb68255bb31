"""As many idle VMs as fit a memory limit: what each takes, and what all of them do."""
import time

from bench_support import guest_images, processes, results, session as sessions

NAME = "density"
MOST_VMS = 2000
QUICK_VMS = 4
IDLE_SECONDS = 5
MOST_WAKEUPS = 0.01  # a second and VM: none, but for what the host does to a process on its own


def _fill(session, command, limit, running):
    """Starts VMs until the sum of their PSS reaches the limit; returns the bytes of (RSS, PSS) of all."""
    batch = min(4, QUICK_VMS)
    while True:
        fresh = [processes.begin(command) for _ in range(batch)]
        running += fresh
        for process in fresh:
            processes.await_byte(process)
        processes.settle()
        sizes = [processes.rollup(process.pid) for process in running]
        rss, pss = (sum(column) for column in zip(*sizes))
        room = (limit - pss) / (pss / len(running))
        most = (QUICK_VMS if session.quick else MOST_VMS) - len(running)
        # Shared pages make the next VM cheaper than the average was, so this comes near from below.
        batch = min(most, 200, max(1, int(room * 0.8)))
        if room < 1 or most <= 0:
            return rss, pss


def _look(session, peer, start):
    before = processes.available_bytes()
    running = []
    try:
        rss, pss = _fill(session, peer.command(start), session.density_mib << 20, running)
        lost = before - processes.available_bytes()
        count = len(running)
        seconds = 1 if session.quick else IDLE_SECONDS
        processes.settle(seconds / 2)
        began, times = time.monotonic(), [processes.run_time(process.pid) for process in running]
        time.sleep(seconds)
        later, elapsed = [processes.run_time(process.pid) for process in running], time.monotonic() - began
        nanoseconds, switches = (sum(b[i] - a[i] for a, b in zip(times, later)) for i in (0, 1))
        return {"vms": count, "rss": rss / count / 2**20, "pss": pss / count / 2**20, "host_memory": lost / count / 2**20,
                "idle_cpu": nanoseconds / 1e3 / elapsed / count, "idle_wakeups": switches / elapsed / count}
    finally:
        processes.end(running)


def run(session):
    suite = results.Suite(NAME, "Idle VMs side by side", [
        f"Guests that have said a byte and halt, one vCPU and 128 MiB each, started until the sum of their PSS comes to "
        f"{session.density_mib} MiB. RSS counts a shared page for each VM, PSS once; what the host lost is the fall of its "
        "MemAvailable, with the kernel's own memory for VMs.",
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
