"""Cloud Hypervisor. Not tried with this suite's guests."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["--kernel", start.guest, "--memory", f"size={start.memory_mib}M", "--cpus", f"boot={start.cpus}", "--serial", "tty",
             "--console", "off"]
    if start.disks:
        words += ["--disk", *(f"path={disk},readonly=on" for disk in start.disks)]
    if start.taps:
        words += ["--net", *(f"tap={tap}" for tap in start.taps)]
    if start.initrd:
        words += ["--initramfs", start.initrd, "--cmdline", start.cmdline]
    return words


PEER = Peer("cloud-hypervisor", "Cloud Hypervisor", ("cloud-hypervisor",), arguments, ("pvh", "bzimage"), exit_port=False)
