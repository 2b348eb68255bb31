"""gyred."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["--kernel", start.guest, "--memory", f"{start.memory_mib}M", "--cpus", str(start.cpus), "--serial", "stdio"]
    for disk in start.disks:
        words += ["--disk", f"path={disk},readonly=on"]
    for tap in start.taps:
        words += ["--net", f"tap={tap}"]
    if start.initrd:
        words += ["--initrd", start.initrd]
    if start.cmdline:
        words += ["--cmdline", start.cmdline]
    return words


PEER = Peer("gyre", "gyred", ("src/daemon/gyred",), arguments, ("pvh", "linux", "multiboot", "bzimage"), built=True,
            nested=True)
