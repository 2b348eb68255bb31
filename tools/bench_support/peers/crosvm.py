"""crosvm without its sandbox. Not tried with this suite's guests."""
from bench_support.peers.peer import Peer


def arguments(start):
    words = ["run", "--disable-sandbox", "--mem", str(start.memory_mib), "--cpus", str(start.cpus), "--serial",
             "type=stdout,hardware=serial,num=1"]
    for disk in start.disks:
        words += ["--block", f"path={disk},ro=true"]
    for tap in start.taps:
        words += ["--net", f"tap-name={tap}"]
    if start.initrd:
        words += ["--initrd", start.initrd, "--params", start.cmdline]
    return [*words, start.guest]


PEER = Peer("crosvm", "crosvm", ("crosvm",), arguments, ("linux", "bzimage"), version_option="version", exit_port=False)
