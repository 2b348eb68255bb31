"""QEMU's microvm machine without the devices that a guest of ours does not need."""
from bench_support.peers.peer import Peer, Unsupported

MOST_DEVICES = 8  # its virtio-mmio transports

# Some hosts do not let the MSR be set that arch-capabilities stands for.
COMMON = ("-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-nodefaults", "-no-user-config", "-display", "none",
          "-no-reboot", "-name", "gyre-bench,debug-threads=on", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4")


def devices(start, disk, network):
    words = []
    for number, path in enumerate(start.disks):
        words += ["-drive", f"if=none,id=d{number},format=raw,readonly=on,file={path}", "-device", f"{disk},drive=d{number}"]
    for number, tap in enumerate(start.taps):
        words += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no", "-device", f"{network},netdev=n{number}"]
    return words


def linux(start):
    return [*(["-initrd", start.initrd] if start.initrd else []), *(["-append", start.cmdline] if start.cmdline else [])]


def arguments(start):
    if len(start.disks) + len(start.taps) > MOST_DEVICES:
        raise Unsupported(f"has at most {MOST_DEVICES} virtio-mmio devices")
    # Stock kernels know no other description of their interrupts than ACPI.
    machine = "microvm,acpi=on" if start.initrd else "microvm,acpi=off,pit=off,pic=off,rtc=off"
    # Drivers of ours know the devices of virtio 1 alone.
    return ["-M", machine, "-global", "virtio-mmio.force-legacy=false", *COMMON, "-m", str(start.memory_mib), "-smp", str(start.cpus), "-kernel", start.guest,
            *linux(start), *devices(start, "virtio-blk-device", "virtio-net-device")]


PEER = Peer("qemu-microvm", "QEMU microvm", ("qemu-system-x86_64",), arguments, ("pvh", "multiboot", "bzimage"),
            nested=True, share=("qboot.rom", "bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin", "multiboot_dma.bin",
                                "kvmvapic.bin"))
