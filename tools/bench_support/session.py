"""One run of the benchmarks: who takes part, how often, and how a start of a guest is measured."""
import dataclasses
import json
import pathlib
import subprocess
import time

from bench_support import guest_images, peers

RUNNER = "tools/bench_support/gyre-bench-run"
FLEET = "tools/bench_support/gyre-bench-fleet"
HELLO = b"hello\n"
MOST_FAILURES = 3       # of a case; then it is given up
LEAST_RUNS = 5          # of a peer so slow that its share of time is used up
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
        return tuple(f"gyrebench{number}" for number in range(count))

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

    def usable(self, case, start_for, try_out, base=False):
        """(peer, start, seconds) of each peer that does it once; the others are noted in the case with the reason. A slow peer
        takes part in a base case only."""
        usable = []
        for peer in self.peers:
            try:
                self._refuse_slow(peer, base)
                start = start_for(peer)
                began = time.monotonic()
                try_out(peer, start)
                seconds = time.monotonic() - began
                if seconds > SLOW_SECONDS:
                    self.slow[peer.name] = seconds
                    self._refuse_slow(peer, base)
                usable.append((peer, start, seconds))
            except (Failure, peers.Unsupported) as failure:
                case.skipped[peer.name] = str(failure)
        return usable

    def _refuse_slow(self, peer, base):
        if not base and peer.name in self.slow:
            raise Failure(f"a start takes {self.slow[peer.name]:.1f} s here: only in the base cases of a start and of overhead")


def take_turns(case, usable, runs, warmup, budget, once):
    """Calls once(peer, start), which gives {quantity: value}, for each peer in turn. A peer whose share of time would run out
    takes part in fewer rounds, spread over the whole."""
    shares = {peer.name: max(min(LEAST_RUNS, runs), min(runs, int(budget / max(seconds, 1e-6)))) for peer, _, seconds in usable}
    for turn in range(-warmup, runs):
        for peer, start, seconds in usable:
            if turn < 0 and seconds > SLOW_SECONDS or turn >= 0 and turn * shares[peer.name] % runs >= shares[peer.name]:
                continue
            try:
                values = once(peer, start)
            except Failure as failure:
                case.fail(peer.name, str(failure))
                if sum(case.failures.values()) > MOST_FAILURES:
                    return
                continue
            for quantity, value in values.items() if turn >= 0 else ():
                case.add(quantity, peer.name, value)
