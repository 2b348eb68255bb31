"""Many VMs at once: how long each takes, and how many starts a second."""
import json
import os
import subprocess

from bench_support import guest_images, results, session as sessions, stats

NAME = "parallel"
LEAST_OF_FLOOR = 0.9
LEAST_OF_QEMU = 10
TIMEOUT = 240
MOST_KEPT = 200  # starts of a round, evenly; percentiles are of all
# (VMs, at once, rounds at most)
FLEETS = ((10, 10, 10), (50, 50, 6), (100, 100, 6), (1000, 100, 3))
QUICK_FLEETS = ((10, 10, 2),)
MOST_SECONDS = 100  # that a peer is expected to take for a round; it sits out a larger one


def _fleet(session, peer, start, count, at_once):
    """One round: what gyre-bench-fleet says."""
    try:
        result = subprocess.run([session.build / sessions.FLEET, str(count), str(at_once), str(TIMEOUT), "--", *peer.command(start)],
                                capture_output=True, text=True, errors="replace", timeout=TIMEOUT + 60, check=False)
    except subprocess.TimeoutExpired as error:
        raise sessions.Failure("did not end in time") from error
    if result.returncode != 0:
        raise sessions.Failure(result.stderr.strip().splitlines()[-1] if result.stderr else "gyre-bench-fleet failed")
    said = json.loads(result.stdout)
    well = sum(times for status, times in said["statuses"].items() if peer.ended_well(int(status)))
    if said["timed_out"] or well != count or said["lines"] != count:
        complaint = (result.stderr.strip().splitlines()[-1:] or [""])[0]
        raise sessions.Failure(f"{min(well, said['lines'])} of {count} guests ran. {complaint}".strip())
    return said


def _values(said, count):
    milliseconds = [nanoseconds / 1e6 for nanoseconds in said["starts_ns"]]
    step = -(-count // MOST_KEPT)
    return {"start": milliseconds[::step], "start_p50": stats.percentile(milliseconds, 50), "start_p90": stats.percentile(milliseconds, 90),
            "start_p99": stats.percentile(milliseconds, 99), "start_most": max(milliseconds),
            "rate": count / (said["wall_ns"] / 1e9) / os.cpu_count(), "cpu": said["cpu_ns"] / 1e6 / count}


def run(session):
    suite = results.Suite(NAME, "Many starts at once", [
        "The guest that says hello and ends; one vCPU, 128 MiB. A small program forks the VMMs, the next as soon as one ends, "
        "and waits for them; a start is exec to exit. Each round gives its own percentiles; the figures are medians of rounds.",
        "The rate counts from the first exec to the last exit, divided by the host's CPUs; CPU time is of one VM."])
    for count, at_once, most in (QUICK_FLEETS if session.quick else FLEETS):
        case = results.Case(f"{count}-by-{at_once}", f"{count} VMs, {at_once} at a time", "fleet", count)
        suite.cases.append(case)

        def try_out(peer, start, count=count):
            """Once, alone, if a round can be done in time."""
            rates = [value for earlier in suite.cases for value in earlier.values("rate", peer.name)]
            if rates and count / (rates[-1] * os.cpu_count()) > MOST_SECONDS:
                raise sessions.Failure(f"would take more than {MOST_SECONDS} s")
            session.one_start(peer, start)

        start = session.start(session.image(guest_images.hello))
        usable = session.usable(case, lambda _peer, start=start: start, try_out)
        expected = [(peer, start, seconds * count / os.cpu_count()) for peer, start, seconds in usable]
        sessions.take_turns(case, expected, session.rounds(most), 0, 0 if count > 100 else session.budget,
                            lambda peer, start, count=count, at_once=at_once: _values(
                                _fleet(session, peer, start, count, at_once), count))
    suite.aim("100 at once, starts a second", "100-by-100", "rate", results.FLOOR, least=LEAST_OF_FLOOR)
    suite.aim("100 at once, starts a second", "100-by-100", "rate", "qemu-microvm", least=LEAST_OF_QEMU)
    return suite
