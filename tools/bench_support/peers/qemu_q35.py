"""QEMU's q35 machine, with its devices on PCI."""
from bench_support.peers import qemu_microvm
from bench_support.peers.peer import Peer


def arguments(start):
    return ["-M", "q35", *qemu_microvm.COMMON, "-m", str(start.memory_mib), "-smp", str(start.cpus), "-kernel", start.guest,
            *qemu_microvm.linux(start), *qemu_microvm.devices(start, "virtio-blk-pci", "virtio-net-pci")]


PEER = Peer("qemu-q35", "QEMU q35", ("qemu-system-x86_64",), arguments, ("pvh", "multiboot", "bzimage"))
