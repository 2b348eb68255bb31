"""StratoVirt's microvm machine. Not tried with this suite's guests."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["-machine", "microvm", "-kernel", start.guest, "-m", f"{start.memory_mib}M", "-smp", str(start.cpus),
             "-serial", "stdio", "-disable-seccomp"]
    for number, path in enumerate(start.disks):
        words += ["-drive", f"id=d{number},file={path},readonly=on,direct=off", "-device", f"virtio-blk-device,drive=d{number},id=b{number}"]
    for number, tap in enumerate(start.taps):
        words += ["-netdev", f"tap,id=n{number},ifname={tap}", "-device", f"virtio-net-device,netdev=n{number},id=e{number}"]
    if start.initrd:
        words += ["-initrd", start.initrd, "-append", start.cmdline]
    return words


PEER = Peer("stratovirt", "StratoVirt", ("stratovirt",), arguments, ("pvh", "linux", "bzimage"), exit_port=False)
