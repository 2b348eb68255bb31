"""What a suite leaves: cases with the samples of each peer, as plain data and in words."""
import dataclasses
import math

from bench_support import stats

# Whom we measure ourselves against, where it took part.
OURS = "gyre"
FLOOR = "floor"


@dataclasses.dataclass(frozen=True)
class Quantity:
    title: str
    unit: str
    more_is_better: bool = False
    compared: bool = True  # not where samples depend on each other


QUANTITIES = {
    "first_byte": Quantity("exec to the guest's first byte", "ms"),
    "exit": Quantity("exec to exit", "ms"),
    "cpu": Quantity("CPU time", "ms"),
    "start": Quantity("a start, of all rounds", "ms", compared=False),
    "start_p50": Quantity("a start, p50 of a round", "ms"),
    "start_p90": Quantity("a start, p90 of a round", "ms"),
    "start_p99": Quantity("a start, p99 of a round", "ms"),
    "start_most": Quantity("a start, the longest of a round", "ms"),
    "rate": Quantity("starts a second and core", "1/s", more_is_better=True),
    "vms": Quantity("VMs within the limit", "VMs", more_is_better=True),
    "rss": Quantity("RSS a VM", "MiB"),
    "pss": Quantity("PSS a VM", "MiB"),
    "host_memory": Quantity("memory that the host lost, a VM", "MiB"),
    "idle_cpu": Quantity("CPU time of an idle VM", "us/s"),
    "idle_wakeups": Quantity("context switches of an idle VM", "1/s"),
    "memory": Quantity("memory outside guest RAM", "MiB"),
    "threads": Quantity("threads", ""),
    "fds": Quantity("file descriptors", ""),
    "syscalls": Quantity("system calls from exec to exit", ""),
    "operation": Quantity("one operation", "us"),
    "release": Quantity("signal to everything released", "ms"),
    "packets": Quantity("packets a second", "1/s", more_is_better=True),
    "packets_per_cpu": Quantity("packets a CPU second", "1/s", more_is_better=True),
    "packet_calls": Quantity("system calls a packet, under strace", ""),
    "latency_p50": Quantity("there and back, p50", "us"),
    "latency_p99": Quantity("there and back, p99", "us"),
    "throughput": Quantity("throughput", "MiB/s", more_is_better=True),
    "cpu_per_mib": Quantity("CPU time a MiB", "us"),
    "connections": Quantity("connections a second", "1/s", more_is_better=True),
    "to_userland": Quantity("exec to the first line of /init", "s"),
    "to_end": Quantity("exec to exit", "s"),
}


@dataclasses.dataclass
class Case:
    name: str                     # such as "vcpus-4"; unique in its suite
    title: str
    group: str = ""               # cases of a group are points of one curve
    parameter: float | None = None
    nested: bool = False          # measured in the nested machine: never compared with a direct one
    samples: dict = dataclasses.field(default_factory=dict)   # quantity -> peer -> [value]
    skipped: dict = dataclasses.field(default_factory=dict)   # peer -> reason
    failures: dict = dataclasses.field(default_factory=dict)  # what failed -> how often; not among the samples
    details: dict = dataclasses.field(default_factory=dict)   # peer -> heading -> name -> number

    def add(self, quantity, peer, value):
        self.samples.setdefault(quantity, {}).setdefault(peer, []).append(value)

    def fail(self, peer, why):
        key = f"{peer}: {why}"
        self.failures[key] = self.failures.get(key, 0) + 1

    def values(self, quantity, peer):
        return self.samples.get(quantity, {}).get(peer, [])


@dataclasses.dataclass
class Target:
    text: str
    reached: bool | None          # None: the noise hides it
    measured: str


@dataclasses.dataclass
class Suite:
    name: str
    title: str
    method: list
    cases: list = dataclasses.field(default_factory=list)
    targets: list = dataclasses.field(default_factory=list)
    text: str = ""                # of a suite with a table of its own
    timeline: list = dataclasses.field(default_factory=list)  # (phase, us from, us to)
    seconds: float = 0.0

    def case(self, name):
        return next((case for case in self.cases if case.name == name), None)

    def aim(self, text, case_name, quantity, peer, most=None, least=None):
        """Notes a target, as a ratio to a peer, as far as both took part."""
        case = self.case(case_name)
        comparison = case and stats.compare(case.values(quantity, OURS), case.values(quantity, peer))
        if comparison:
            bound = f"at most {most:g}" if least is None else f"at least {least:g}"
            self.targets.append(Target(f"{text}: {bound} of {peer}", comparison.reaches(most, least), ratio_text(comparison)))

    def aim_absolute(self, text, case_name, quantity, most):
        """Notes a target for our own figure: reached where every sample is within it, missed where none is."""
        case = self.case(case_name)
        values = case.values(quantity, OURS) if case else []
        if values:
            reached = True if max(values) <= most else False if min(values) > most else None
            self.targets.append(Target(f"{text}: at most {most:g}", reached, f"{min(values):.3g} to {max(values):.3g}"))

    def aim_growth(self, text, first_name, last_name, quantity, peer, most):
        """Notes a target for what each further step of a group costs, in terms of what it costs a peer."""
        first, last = self.case(first_name), self.case(last_name)
        if not first or not last:
            return
        sides = []
        for side in (OURS, peer):
            steps = last.parameter - first.parameter
            sides.append([(after - before) / steps for before, after in zip(first.values(quantity, side),
                                                                           last.values(quantity, side))])
        if not all(sides):
            return
        comparison = stats.compare(*sides)
        measured = ratio_text(comparison) if comparison else "a step costs less than the noise"
        self.targets.append(Target(f"{text}: at most {most:g} of {peer}", comparison and comparison.reaches(most), measured))


def ratio_text(comparison):
    return f"{comparison.ratio:.3g} ({comparison.low:.3g} to {comparison.high:.3g})"


def comparisons(case):
    """(quantity, peer, Comparison) of ours with each other peer."""
    for quantity, peers in case.samples.items():
        for peer in peers:
            if peer != OURS and OURS in peers and QUANTITIES[quantity].compared:
                comparison = stats.compare(peers[OURS], peers[peer])
                if comparison:
                    yield quantity, peer, comparison


def is_better(quantity, verdict):
    """Whether ours is, by a verdict that was given."""
    return (verdict == stats.MORE) == QUANTITIES[quantity].more_is_better


def _finite(number):
    return number if math.isfinite(number) else None


def case_data(case):
    return {
        "name": case.name, "title": case.title, "group": case.group, "parameter": case.parameter, "nested": case.nested,
        "quantities": {quantity: {"unit": QUANTITIES[quantity].unit, "title": QUANTITIES[quantity].title, "peers": {
            peer: {**stats.summarise(values), "samples": values} for peer, values in peers.items()}}
                       for quantity, peers in case.samples.items()},
        "ratios": [{"quantity": quantity, "of": peer, "ratio": c.ratio, "low": c.low, "high": _finite(c.high),
                    "noise": _finite(c.noise), "verdict": c.verdict, "why": c.why} for quantity, peer, c in comparisons(case)],
        "skipped": case.skipped, "failures": case.failures, "details": case.details,
    }


def suite_data(suite):
    return {"name": suite.name, "title": suite.title, "method": suite.method, "seconds": round(suite.seconds, 1),
            "cases": [case_data(case) for case in suite.cases],
            "targets": [dataclasses.asdict(target) for target in suite.targets],
            "timeline": [list(step) for step in suite.timeline], "text": suite.text}
