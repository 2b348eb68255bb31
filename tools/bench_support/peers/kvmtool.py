"""kvmtool, which enters a bzImage's setup code. Not tried with this suite's guests."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["run", "--kernel", start.guest, "--mem", str(start.memory_mib), "--cpus", str(start.cpus), "--console", "serial"]
    for disk in start.disks:
        words += ["--disk", f"{disk},ro"]
    for tap in start.taps:
        words += ["--network", f"mode=tap,tapif={tap}"]
    if start.initrd:
        words += ["--initrd", start.initrd, "--params", start.cmdline]
    return words


PEER = Peer("kvmtool", "kvmtool", ("lkvm", "vm"), arguments, ("bzimage",), version_option="version", exit_port=False)
