"""One run of the benchmarks: who takes part, how often, and how a start of a guest is measured."""
import dataclasses
import json
import os
import pathlib
import subprocess
import time

from bench_support import guest_images, peers, results

RUNNER = "tools/bench_support/gyre-bench-run"
FLEET = "tools/bench_support/gyre-bench-fleet"
HELLO = b"hello\n"
MOST_FAILURES = 3       # of a case; then it is given up
LEAST_RUNS = 5          # of a peer so slow that its share of time is used up
SLOW_TRIES = 3
SLOW_SECONDS = 1.0      # a start that takes longer takes part in the base cases only
QUICK_RUNS = 2


class Failure(Exception):
    """A run that did not do what it should have done."""


@dataclasses.dataclass
class Session:
    build: pathlib.Path
    directory: pathlib.Path      # for images and files, of this run
    peers: list                  # peers.Installed, in the order in which they take turns
    runs: int = 30               # of each peer and case where a start is measured
    warmup: int = 3              # rounds before that, not counted
    budget: float = 20.0         # seconds for the starts of one peer in one case
    quick: bool = False          # a few cases and runs only, to see that the suites work
    density_mib: int = 1024
    slow: dict = dataclasses.field(default_factory=dict)  # peer -> seconds of a start, of those that are slow here

    def image(self, program, protocol="pvh", *arguments):
        """The path of a guest of guest_images."""
        name = "-".join([program.__name__, *(str(argument) for argument in arguments)])
        path = self.directory / f"{name}.{protocol}"
        if not path.exists():
            path.write_bytes(guest_images.image(protocol, program, *arguments))
        return str(path)

    def disks(self, count):
        paths = []
        for number in range(count):
            path = self.directory / f"disk{number}.raw"
            if not path.exists():
                with open(path, "wb") as file:
                    file.truncate(1 << 20)
            paths.append(str(path))
        return tuple(paths)

    def taps(self, count):
        """Names that no other run has at the same time; a VMM makes the interfaces, and they go with it."""
        return tuple(f"gb{os.getpid() % 10**7}n{number}" for number in range(count))

    def start(self, guest, **fields):
        return peers.Start(guest=guest, directory=str(self.directory), **fields)

    def rounds(self, most):
        """How often something else than a start is done: as often as asked for, and at most so often."""
        return QUICK_RUNS if self.quick else min(self.runs, most)

    def peer(self, name):
        return next((peer for peer in self.peers if peer.name == name), None)

    def run(self, options, command, timeout=30):
        """What gyre-bench-run says of one start."""
        try:
            result = subprocess.run([self.build / RUNNER, "--timeout", str(timeout), *options, "--", *command],
                                    capture_output=True, text=True, errors="replace", timeout=timeout + 30, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failure("did not end in time") from error
        complaint = (result.stderr.strip().splitlines()[-1:] or [""])[0]
        if result.returncode != 0:
            raise Failure(complaint or f"gyre-bench-run ended with {result.returncode}")
        return json.loads(result.stdout), complaint

    def one_start(self, peer, start):
        """A start of a guest that says hello and ends. A VMM's own error may have the status that a guest's exit has: only
        the guest's words prove that it ran."""
        result, complaint = self.run([], peer.command(start))
        if result["timed_out"]:
            raise Failure("did not end in time")
        if not peer.ended_well(result["status"]) or not bytes.fromhex(result["output"]).endswith(HELLO):
            raise Failure(f"ended with status {result['status']}, signal {result['signal']} and output "
                          f"{bytes.fromhex(result['output'])[:32]!r}. {complaint}".strip())
        return result

    def survey(self):
        """Finds out who is slow: an ordinary start took long each time, not once because of something else."""
        start = self.start(self.image(guest_images.hello))
        for peer in self.peers:
            seconds = []
            while len(seconds) < SLOW_TRIES and min(seconds, default=SLOW_SECONDS) >= SLOW_SECONDS:
                try:
                    seconds.append(self.one_start(peer, start)["exit_ns"] / 1e9)
                except (Failure, peers.Unsupported):
                    break
            if seconds and min(seconds) >= SLOW_SECONDS and peer.name not in (results.FLOOR, results.OURS):
                self.slow[peer.name] = min(seconds)

    def usable(self, case, start_for, try_out, base=False, beside=()):
        """(peer, start, seconds) of each peer that does it once; the others are noted in the case with the reason. A slow peer
        takes part in a base case only. beside: more peers, of this case alone."""
        usable = []
        for peer in (*self.peers, *beside):
            try:
                self._refuse_slow(peer, base)
                start = start_for(peer)
                began = time.monotonic()
                try_out(peer, start)
                usable.append((peer, start, time.monotonic() - began))
            except (Failure, peers.Unsupported) as failure:
                case.skipped[peer.name] = str(failure)
        return usable

    def _refuse_slow(self, peer, base):
        if not base and peer.name in self.slow:
            raise Failure(f"a start takes {self.slow[peer.name]:.1f} s here: only in base cases")


def take_turns(case, usable, runs, warmup, budget, once):
    """Calls once(peer, start), which gives {quantity: value or values}, for each peer in turn. A peer whose share of time would
    run out takes part in fewer rounds, spread over the whole: by the quickest of its runs so far, since one may have been held
    up by something else."""
    quickest = {peer.name: seconds for peer, _, seconds in usable}

    def takes_part(name, turn):
        if turn < 0:
            return turn == -warmup or quickest[name] <= SLOW_SECONDS
        share = max(min(LEAST_RUNS, runs), min(runs, int(budget / max(quickest[name], 1e-6))))
        return turn * share % runs < share

    for turn in range(-warmup, runs):
        for peer, start, _ in usable:
            if not takes_part(peer.name, turn):
                continue
            began = time.monotonic()
            try:
                values = once(peer, start)
            except Failure as failure:
                case.fail(peer.name, str(failure))
                if sum(case.failures.values()) > MOST_FAILURES:
                    return
                continue
            if warmup:
                quickest[peer.name] = min(quickest[peer.name], time.monotonic() - began)
            for quantity, value in values.items() if turn >= 0 else ():
                for sample in value if isinstance(value, list) else [value]:
                    case.add(quantity, peer.name, sample)
