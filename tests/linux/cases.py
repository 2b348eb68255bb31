"""The linux tier's cases: which kernel, how it is loaded, on what machine, and how the guest ends."""
import dataclasses
import itertools

SERIES = ("6.1", "6.12")
DISK = "@disk@"  # in an option: an image of run_case.sh's making
TOOLS = "@tools@"  # in an option: an image with mke2fs and e2fsck, of the runner's making
FIO = "@fio@"  # in an option: an image with fio, of the runner's making
IPERF = "@iperf3@"  # in an option: the same with iperf3
QMP = "@qmp@"  # in an option: a socket of the VMM's, by which run_case.sh does what the guest asks for (answers.sh)
PMEM = "@pmem@"  # in an option: an image of 16 MiB of run_case.sh's making, whose sum is told at the end
PRESSURE = "@pressure@"  # in an option: a file like /proc/pressure/memory, of run_case.sh's making
PORT = "@port@"  # in an option: a file of run_case.sh's making, told at the end
PORT_NAME = "gyre.test"
TALK_NAME = "gyre.talk"  # of a port on a pseudoterminal, by which run_case.sh talks to the guest when that asks for it
SAID = "the host says hello"
MOST_DEVICES = 24  # virtio devices that a machine with ACPI has
DAMAGED = "@damaged@"  # in an option: a kernel cache whose only entry is not what it was, of run_case.sh's making
UNPACKED = "Linux bzImage (unpacked, "  # what gyred's log says of a bzImage that it has unpacked
TAP = "@tap@"  # in an option: a tap of gyred's making, which run_case.sh configures, with servers behind it
PEER = "@peer@"  # in a kernel's command line: the address of a second VM, of run_case.sh's making, on a tap beside the first's
HOST_PORT = "@hostport@"  # in an option: a port of the host's, whose requests run_case.sh makes
UDS = "@uds@"  # in an option: a socket of gyred's, which run_case.sh talks to, and beside which it serves
CID = "@cid@"  # in an option: "cid=N" of run_case.sh's choice, by which it talks to the guest, with servers of its own
AGENT = "@agent@"  # in an option: "cid=N,uds=SOCKET" of run_case.sh's choice, by which gyrectl reaches the guest's agent
AGENT_CID = "@agentcid@"  # in an option: "cid=N", for the same
# In a kernel's command line: what kill_case.sh puts there at each start.
LAST = "@last@"
WRITE = "@write@"
BLOCK_SERVER = "@blockserver@"  # in an option: the socket of a vhost-user back end that has a qcow2 image
SHARE_SERVER = "@shareserver@"  # in an option: the same of one that has a directory
SHARE_DIRECTORY = "@sharedir@"  # in an option: that directory itself, without anybody who serves it
MAC = "02:00:00:00:00:77"
SERIAL = "gyre-disk-1"
LINE = "the quick brown fox"  # typed on each guest's console


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    series: str
    image: str            # bzImage or vmlinux
    boot: str             # gyred's --boot
    cpus: int
    memory: int           # MiB
    then: str             # what the guest does at its end: a word that guest-init knows
    cmdline: str = ""     # added to the common one
    options: tuple = ()   # added to gyred's
    logged: tuple = ()    # what gyred's log says in this order, beside what `then` makes it say

    @property
    def status(self):
        """The exit status that gyred owes us; a reset of the guest ends it, since --action says so."""
        if self.then.startswith("exit:"):
            return int(self.then[5:]) << 1 & 0xff | 1
        return 0

    @property
    def much(self):
        """The guest does more of it than the others of its kind."""
        return "gyre.much" in self.cmdline

    @property
    def kernel_cmdline(self):
        words = ["console=ttyS0", "quiet", "panic=-1", "mitigations=off", "cryptomgr.notests", "random.trust_cpu=on", self.cmdline,
                 f"gyre.then={self.then}"]
        return " ".join(word for word in words if word)

    @property
    def script(self):
        """What runs it."""
        return {"journal": "kill_case.sh", "readme": "readme_case.sh"}.get(self.then, "run_case.sh")

    @property
    def starts(self):
        """How many times the patience of one start it is given."""
        return {"journal": 4, "readme": 2}.get(self.then, 1)

    def uses(self, word):
        return any(word in option for option in self.options)

    def arguments(self, kernel, initrd, images, cache):
        """gyred's arguments, for the kernel, the initramfs, the images {TOOLS: ..., FIO: ...} and the kernel cache at these
        paths."""
        options = self.options
        for word, path in images.items():
            options = [option.replace(word, path) for option in options]
        caching = () if "--kernel-cache" in self.options else ("--kernel-cache", f"path={cache}")
        return ["--kernel", kernel, "--initrd", initrd, "--cmdline", self.kernel_cmdline, "--boot", self.boot,
                "--memory", f"{self.memory}M", "--cpus", str(self.cpus), "--serial", "stdio",
                "--action", "reboot=shutdown", *caching, *options]


def all_cases():
    """Every case of the tier, the small ones first."""
    cases = []
    for series in SERIES:
        cases += [
            Case(f"{series}-bzimage", series, "bzImage", "auto", 1, 256, "reboot", "reboot=k",
                 ("--log-level", "info"), (UNPACKED,)),
            Case(f"{series}-bzimage-packed", series, "bzImage", "linux", 1, 256, "reboot", "reboot=k"),
            Case(f"{series}-bzimage-damaged", series, "bzImage", "auto", 1, 256, "reboot", "reboot=k",
                 ("--log-level", "info", "--kernel-cache", f"path={DAMAGED}"),
                 ("is damaged and made anew", UNPACKED)),
            Case(f"{series}-bzimage-128m", series, "bzImage", "auto", 1, 128, "panic", "reboot=k"),
            Case(f"{series}-vmlinux", series, "vmlinux", "linux", 1, 256, "reboot", "reboot=t"),
            Case(f"{series}-vmlinux-pvh", series, "vmlinux", "pvh", 1, 512, "exit:42", "reboot=t"),
            Case(f"{series}-bzimage-5g", series, "bzImage", "auto", 1, 5120, "exit:3", "reboot=k"),
            Case(f"{series}-poweroff", series, "bzImage", "auto", 1, 256, "poweroff", "reboot=k"),
        ]
        # What gyred's log must tell of these is in verdict.py.
        power = (("button", ()), ("suspend", ()), ("watchdog", ("--watchdog", "on")))
        cases += [Case(f"{series}-{then}", series, "bzImage", "auto", 1, 256, then, "reboot=k",
                       ("--log-level", "info", *options)) for then, options in power]
    # Split rings of one driver, packed ones and two queues of the other.
    for series, more in (("6.1", ""), ("6.12", ",packed=on,queues=2")):
        cases.append(Case(f"{series}-virtio", series, "bzImage", "auto", 1, 256, "virtio", "reboot=k",
                          ("--disk", f"path={TOOLS},readonly=on", "--disk", f"path={DISK},serial={SERIAL}{more}",
                           "--entropy", "on", "--console", f"to=append:{PORT},port={PORT_NAME}:append:{PORT},port={TALK_NAME}:pty",
                           "--log-level", "info")))
    cases.append(Case("6.12-disk", "6.12", "bzImage", "auto", 1, 256, "disk", "reboot=k",
                      ("--iothread", "a,poll-max-ns=32768", "--qmp", f"unix:{QMP}", "--disk", f"path={FIO},readonly=on",
                       "--disk", f"path={DISK},id=data,queues=2,iothread=a")))
    # A queue of each of two CPUs, each with an I/O thread of its own; and as many devices as there may be.
    cases.append(Case("6.12-queues", "6.12", "bzImage", "auto", 2, 256, "queues", "reboot=k",
                      ("--iothread", "a", "--iothread", "b", "--qmp", f"unix:{QMP}",
                       "--disk", f"path={DISK},queues=2,iothread=a:b")))
    cases.append(Case("6.1-devices", "6.1", "bzImage", "auto", 1, 256, "devices", "reboot=k",
                      ("--entropy", "on") * MOST_DEVICES))
    # The guest writes and flushes; gyred is killed.
    for series, more in (("6.1", ()), ("6.12", ("--iothread", "a"))):
        disk = f"path={DISK}" + (",packed=on,queues=2,iothread=a" if more else "")
        cases.append(Case(f"{series}-journal", series, "bzImage", "auto", 1, 256, "journal",
                          f"reboot=k gyre.last={LAST} gyre.write={WRITE}",
                          (*more, "--disk", f"path={TOOLS},readonly=on", "--disk", disk)))
    for series, mtu, more in (("6.1", 1500, ""), ("6.12", 1400, ",mtu=1400,packed=on,queues=2")):
        cases.append(Case(f"{series}-network", series, "bzImage", "auto", 1, 256, "network", f"reboot=k gyre.mtu={mtu}",
                          ("--disk", f"path={IPERF},readonly=on", "--net", f"tap={TAP},mac={MAC},vhost=off{more}")))
        cases.append(Case(f"{series}-user", series, "bzImage", "auto", 1, 256, "user", f"reboot=k gyre.port={HOST_PORT}",
                          ("--net", f"user,hostfwd=tcp:127.0.0.1:{HOST_PORT}-:80")))
    # By the kernel's vhost, and the same without.
    for series, cpus, more in (("6.1", 1, ""), ("6.12", 2, ",queues=2")):
        cases.append(Case(f"{series}-vhost-net", series, "bzImage", "auto", cpus, 256, "vhost", "reboot=k gyre.vhost",
                          ("--qmp", f"unix:{QMP}", "--net", f"tap={TAP},mac={MAC},vhost=on{more}")))
    cases.append(Case("6.1-vhost-off", "6.1", "bzImage", "auto", 1, 256, "vhost", "reboot=k",
                      ("--qmp", f"unix:{QMP}", "--net", f"tap={TAP},mac={MAC},vhost=off")))
    cases.append(Case("6.12-readme", "6.12", "bzImage", "auto", 1, 512, "readme"))
    # Two VMs that talk to each other.
    for series, more in (("6.1", ""), ("6.12", ",packed=on,queues=2")):
        cases.append(Case(f"{series}-pair", series, "bzImage", "auto", 1, 256, "pair", f"reboot=k gyre.peer={PEER}",
                          ("--net", f"tap={TAP},mac={MAC}{more}")))
    # A thousand connections, and a gigabyte, in one of them.
    for series, much, more in (("6.1", "", ""), ("6.12", " gyre.much", ",packed=on")):
        cases.append(Case(f"{series}-vsock", series, "bzImage", "auto", 1, 256, "vsock", f"reboot=k{much}",
                          ("--vsock", f"cid=7,uds={UDS}{more}")))
    cases.append(Case("6.1-vhost-vsock", "6.1", "bzImage", "auto", 1, 256, "vsock", "reboot=k gyre.vhost",
                      ("--qmp", f"unix:{QMP}", "--vsock", f"{CID},vhost=on")))
    # The guest runs gyre-agent, and gyrectl commands by it.
    for kind, device in (("exec", AGENT), ("vhost-exec", f"{AGENT_CID},vhost=on")):
        cases.append(Case(f"6.1-{kind}", "6.1", "bzImage", "auto", 1, 256, "exec", "reboot=k",
                          ("--qmp", f"unix:{QMP}", "--vsock", device)))
    # Balloons that are told what to do, that follow the host, and that get what is free by reports.
    for series, more in (("6.1", f",auto=96M,auto-reserve=32M,auto-pressure={PRESSURE}"), ("6.12", ",packed=on")):
        cases.append(Case(f"{series}-balloon", series, "bzImage", "auto", 1, 160, "balloon",
                          "reboot=k gyre.auto" if "auto" in more else "reboot=k",
                          ("--qmp", f"unix:{QMP}", "--balloon", f"stats-interval=1{more}")))
        cases.append(Case(f"{series}-reporting", series, "bzImage", "auto", 1, 160, "reporting", "reboot=k",
                          ("--qmp", f"unix:{QMP}", "--balloon", "free-page-reporting=on")))
        cases.append(Case(f"{series}-mem", series, "bzImage", "auto", 1, 160, "mem", "reboot=k",
                          ("--qmp", f"unix:{QMP}", "--mem-device", "size=512M")))
        cases.append(Case(f"{series}-pmem", series, "bzImage", "auto", 1, 256, "pmem", "reboot=k",
                          ("--disk", f"path={TOOLS},readonly=on", "--pmem", f"path={PMEM}")))
    # One with as many files as a large build has.
    for series, much, share, more in (("6.1", "", f"socket={SHARE_SERVER}", ""),
                                      ("6.12", " gyre.much", f"path={SHARE_DIRECTORY}", ",packed=on")):
        cases.append(Case(f"{series}-vhost-user", series, "bzImage", "auto", 1, 256, "vhost-user", f"reboot=k{much}",
                          ("--disk", f"path={TOOLS},readonly=on", "--disk", f"vhost-user={BLOCK_SERVER}{more}",
                           "--share", f"tag=home,{share}{more}"),
                          ("has closed the connection; the guest waits", "is there again")))
    cases += [
        Case("6.1-vmlinux-3g", "6.1", "vmlinux", "auto", 1, 3072, "panic", "reboot=t"),
        Case("6.12-vmlinux-pvh-5g", "6.12", "vmlinux", "pvh", 1, 5120, "reboot", "reboot=t"),
    ]
    for cpus, series in itertools.product((2, 4, 8), SERIES):
        cases.append(Case(f"{series}-bzimage-smp{cpus}", series, "bzImage", "auto", cpus, 512, "reboot", "reboot=k"))
    cases.append(Case("6.1-vmlinux-pvh-smp2", "6.1", "vmlinux", "pvh", 2, 512, "exit:1", "reboot=t"))
    return cases
