"""The bare KVM calls in their best order: what no VMM can beat."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["--memory", str(start.memory_mib), "--cpus", str(start.cpus)]
    for disk in start.disks:
        words += ["--disk", disk]
    for tap in start.taps:
        words += ["--tap", tap]
    return [*words, start.guest]


PEER = Peer("floor", "bare KVM calls", ("tools/bench_support/gyre-floor",), arguments, ("pvh",), version_option="", built=True,
            nested=True)
