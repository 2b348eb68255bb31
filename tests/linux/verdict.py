"""What a case's console output and exit status must be."""
import dataclasses
import re

from cases import LINE, MAC, MOST_DEVICES, PORT_NAME, SAID, SERIAL

# What gyred's log says of a guest that ends so, in this order.
LOGGED = {
    "button": ("POWERDOWN", "SHUTDOWN guest=true reason=guest-shutdown"),
    "suspend": ("SUSPEND", "WAKEUP", "SHUTDOWN guest=true reason=guest-reset"),
    "watchdog": ("WATCHDOG action=reset", "SHUTDOWN guest=true reason=guest-reset"),
}
LEAST_KILLS = 3
GIB = 1 << 30
MIB = 1 << 20
GAP_START = 3 * GIB
HIGH_START = 4 * GIB


@dataclasses.dataclass
class Record:
    """One case as run_case.sh told it."""
    began: int = 0            # seconds since the epoch
    ended: bool = False
    status: str = ""          # a number, or "timeout"
    seconds: int = 0
    output: str = ""
    errors: str = ""          # gyred's stderr


def parse_records(text):
    """Splits a run's output at run_case.sh's markers: a map from case to Record."""
    records = {}
    current = None
    for line in text.replace("\r", "").split("\n"):
        match = re.match(r"@@gyre:case (\S+) (begin|end) (\S+)(?: (\d+))?", line)
        stderr = re.match(r"@@gyre:stderr (\S+) (.*)", line)
        if match and match.group(2) == "begin":
            current = records.setdefault(match.group(1), Record())
            current.began = int(match.group(3))
        elif match and match.group(1) in records:
            record = records[match.group(1)]
            record.ended, record.status, record.seconds = True, match.group(3), int(match.group(4) or 0)
            current = None
        elif stderr and stderr.group(1) in records:
            records[stderr.group(1)].errors += stderr.group(2) + "\n"
        elif current is not None:
            current.output += line + "\n"
    return records


def judge(case, record, direct):
    """Returns ("PASS" | "FAIL" | "SKIP", reason). Only where KVM is direct does a stall speak against us: an emulated
    machine that gets little of a busy host's time stalls by itself."""
    if not record.ended:
        return "FAIL", f"no end; last line: {_last_line(record)}"
    if record.status == "timeout":
        return "FAIL", f"no end within {record.seconds} s; last line: {_last_line(record)}"
    facts = _facts(record.output)
    problems = []
    if "type" not in facts:
        problems.append(f"the guest's userland did not come up; last line: {_last_line(record)}")
    else:
        problems += _check_facts(case, record, facts)
        if direct and facts.get("stalls") != ["0"]:
            problems.append("the kernel's log has a lockup or a stall")
    if record.status != str(case.status):
        problems.append(f"exit status {record.status}, not {case.status}")
    if case.then == "panic" and "Kernel panic - not syncing" not in record.output:
        problems.append("no kernel panic was seen")
    problems += _check_log(case, record)
    if problems and record.errors.strip():
        problems.append(f"gyred said: {record.errors.strip().splitlines()[-1]}")
    if problems:
        return "FAIL", "; ".join(problems)
    if case.then == "poweroff" and "no" in facts:
        return "SKIP", "the machine has no power-off device; all else is as it must be"
    kills = facts.get("killed", [])
    return "PASS", f"{record.seconds} s" + (f", {len(kills)} kills, {kills[-1]} records" if kills else "")


def _check_log(case, record):
    rest = record.errors
    for wanted in (*case.logged, *LOGGED.get(case.then, ())):
        _, found, rest = rest.partition(wanted)
        if not found:
            return [f"gyred's log does not say {wanted} in its place"]
    return []


def _facts(output):
    facts = {}
    for line in output.split("\n"):
        match = re.match(r"gyre-guest: (\S+) ?(.*)", line)
        if match:
            facts.setdefault(match.group(1), []).append(match.group(2).rstrip())
    return facts


def _check_facts(case, record, facts):
    def value(name):
        return facts.get(name, [""])[0]

    problems = []
    if not value("kernel").startswith(case.series + "."):
        problems.append(f"kernel {value('kernel')}, not {case.series}")
    if value("cpus") != str(case.cpus):
        problems.append(f"{value('cpus')} CPUs, not {case.cpus}")
    problems += _check_memory(case, value("memtotal"), facts.get("iomem", []))
    clock = value("clocksource")
    if "kvm-clock" not in value("clocksources").split() or clock not in ("kvm-clock", "tsc"):
        problems.append(f"clock source {clock} of {value('clocksources')}: no kvm-clock")
    date = value("date")
    if not date.isdigit() or not -2 <= int(date) - record.began <= record.seconds + 2:
        problems.append(f"date {date}, but it was {record.began} to {record.began + record.seconds}")
    if value("faults") != "0":
        problems.append("the kernel's log has a fault")
    if case.then == "button" and value("pressed") != "power":
        problems.append(f"the guest saw '{value('pressed')}' pressed, not the power button")
    if case.then == "suspend" and value("woke") != "S1":
        problems.append(f"the guest woke from '{value('woke')}', not from S1")
    if case.then == "virtio":
        problems += _check_virtio(facts)
    if case.then == "journal":
        problems += _check_journal(facts)
    if case.then == "disk":
        problems += _check_disk(facts)
    if case.then == "queues":
        problems += _wrong(facts, {"queues": ["2"], "half": ["same", "same"], "used": ["2"]}) + _check_image(facts)
    if case.then == "devices":
        problems += _wrong(facts, {"virtio": [f"{MOST_DEVICES} 0x0004"], "bytes": [str(64 * MOST_DEVICES)],
                                   "interrupts": [f"{MOST_DEVICES} {MOST_DEVICES}"]})
    if case.then == "network":
        problems += _check_network(case, facts)
    if case.then == "vhost":
        problems += _check_vhost(case, facts)
    if case.then == "pair":
        problems += _wrong(facts, {"ping": ["5"], "checksums": ["0"]}) + _check_files(facts)
    if case.then in ("balloon", "reporting", "mem", "pmem"):
        problems += MEMORY_CHECKS[case.then](facts)
    if case.then == "vsock":
        problems += _check_vsock(case, facts)
    if case.then == "exec":
        problems += _check_exec(facts)
    if case.then == "vhost-user":
        problems += _check_vhost_user(case, facts)
    if case.then == "user":
        problems += _check_files(facts)
    if case.then == "readme":
        problems += _wrong(facts, {"mount": ["0"], "shared": ["hello"], "disk": ["same"], "got": ["same"], "fetched": ["same"]})
    if value("echo") != LINE:
        problems.append(f"typed '{LINE}', the guest read '{value('echo')}'")
    return problems


def _check_virtio(facts):
    wanted = {"virtio": ["0x0002 virtio_blk", "0x0002 virtio_blk", "0x0004 virtio_rng", "0x0003 virtio_console"],
              "serial": [SERIAL], "hwrng": ["virtio_rng.0 1024"],
              "mkfs": ["0"], "mounted": ["1"], "file": ["same"], "fstrim": ["0"], "fsck": ["0"], "discard": ["0 0"],
              "interrupts": ["4 4"], "hvc": ["written"], "port": [PORT_NAME],
              "heard": [SAID], "answered": [f"the guest heard: {SAID}"]}
    return _wrong(facts, wanted) + _check_image(facts)


def _check_journal(facts):
    """Each start but the first follows a kill: it replays the journal, finds what was told, and a clean file system."""
    told = facts.get("killed", [])
    there = facts.get("there", [])
    problems = []
    if len(told) < LEAST_KILLS:
        problems.append(f"{len(told)} kills, not {LEAST_KILLS} at least")
    if facts.get("fsck") != ["0"] * (len(told) + 1):
        problems.append(f"fsck: {facts.get('fsck')} after {len(told)} kills")
    if facts.get("replayed") != ["0"] + ["1"] * len(told):
        problems.append(f"replayed: {facts.get('replayed')} after {len(told)} kills")
    if len(there) != len(told) + 1 or not all(number.isdigit() for number in (*told, *there)):
        return [*problems, f"there: {there}, told: {told}"]
    lost = [f"{number} was told, {found} is there" for number, found in zip(told, there[1:]) if int(found) < int(number)]
    return problems + lost


def _check_disk(facts):
    return _wrong(facts, {"fio": ["0"], "resized": ["131072 147456"], "end": ["same"]}) + _check_image(facts)


def _check_image(facts):
    if facts.get("inside") and facts.get("inside") == facts.get("outside"):
        return []
    return [f"the disk is {facts.get('inside')} inside and {facts.get('outside')} outside"]


def _check_network(case, facts):
    mtu = re.search(r"gyre\.mtu=(\d+)", case.cmdline).group(1)
    wanted = {"driver": ["virtio_net"], "interface": [f"{MAC} {mtu} 1"], "ping": ["5"], "checksums": ["0"]}
    problems = [f"{name}: {facts.get(name)}, not {values}" for name, values in wanted.items()
                if facts.get(name) != values]
    return problems + _check_iperf3(facts) + _check_files(facts)


def _check_iperf3(facts):
    """Of a stream what the receiver had when the sender was done; of datagrams of 65,000 bytes half at least, since nobody sends
    one again."""
    got = dict(line.split(" ", 1) for line in facts.get("iperf3", []) if " " in line)
    least = {"tcp-out": 3 * MIB, "tcp-in": 3 * MIB, "udp-out": 10 * 65000, "udp-in": 10 * 65000}
    return [f"iperf3 {name}: {got.get(name)} bytes, not {wanted} at least" for name, wanted in least.items()
            if not got.get(name, "").isdigit() or int(got[name]) < wanted]


def _check_vhost(case, facts):
    pairs = 2 if case.uses("queues=2") else 1
    who, threads = ("kernel", f"{pairs} busy") if case.uses("vhost=on") else ("gyred", "0 idle")
    return _wrong(facts, {"driver": ["virtio_net"], "queues": [str(pairs)], "ping": ["5"], "downloads": [f"{2 // pairs} 1"], "checksums": ["0"],
                          "serves": [who, who, "gyred", who], "paused": ["gyred"], "threads": [threads]}) + _check_files(facts)


def _check_vsock(case, facts):
    told = f"300 talked, {24 * MIB} bytes same"
    by_guest = f"1000 talked, {1024 * MIB} bytes same" if case.much else told
    messages = "20 talked, all messages, same"
    wanted = {"peer": [f"guest {by_guest}", f"host {told}"], "messages": [f"guest {messages}", f"host {messages}"]}
    if case.uses("vhost=on"):
        wanted |= {"meanwhile": [f"1 talked, {16 * MIB} bytes same"], "serves": ["kernel", "kernel", "nobody", "kernel"],
                   "paused": ["nobody"], "threads": ["1 busy"]}
    return _wrong(facts, wanted)


def _check_exec(facts):
    wanted = ["status 7 /proc two words", "sum same", "back 0 same", "signalled 9", "killed 137", "terminal 30 90 /dev/pts/0",
              "missing 127", "nobody 255", "quick 100", "left 0"]
    # Who is in the guest, and not the host, is not served.
    return _wrong(facts, {"exec": wanted, "agent": ["0"], "local": ["0 bytes"]})


def _wrong(facts, wanted):
    return [f"{name}: {facts.get(name)}, not {values}" for name, values in wanted.items() if facts.get(name) != values]


def _rss(facts):
    """MiB of gyred's that are resident, by the moment's name; -1 where it was not told."""
    told = dict(line.split() for line in facts.get("rss", []) if len(line.split()) == 2)
    return lambda name: int(told.get(name, -1))


def _fell(facts, before, after, least):
    rss = _rss(facts)
    if rss(before) < 0 or rss(after) < 0 or rss(before) - rss(after) < least:
        return [f"resident memory {rss(before)} MiB {before}, {rss(after)} MiB {after}: it did not fall by {least}"]
    return []


def _check_balloon(facts):
    problems = _wrong(facts, {"driver": ["virtio_balloon"], "balloon": [str(96 * MIB), str(160 * MIB)]})
    problems += _fell(facts, "filled", "inflated", 24) + _fell(facts, "deflated", "inflated", 24)
    if not any(line.startswith("later ") and 100 < int(line.split()[1]) <= 160 for line in facts.get("statistics", [])):
        problems.append(f"statistics: {facts.get('statistics')}")
    events = facts.get("events", [""])[0].split()
    if len(events) != 2 or int(events[1]) < 2:
        problems.append(f"a client saw {events}, not two events at least")
    if "pressure" in " ".join(facts["ask"]) and int(facts.get("auto", ["0"])[0] or 0) < 32 * MIB:
        problems.append(f"under pressure the guest was asked for {facts.get('auto')}")
    return problems


def _check_reporting(facts):
    return _fell(facts, "filled", "reported", 24) + _fell(facts, "again", "reported", 24)


def _check_mem(facts):
    problems = _wrong(facts, {"driver": ["virtio_mem"], "resized": ["384", "128", "256", "0"], "kept": ["same"]})
    slots = facts.get("slots", [])
    if len(slots) != 2 or int(slots[0]) < 3 or slots[1] != "0":
        problems.append(f"regions of plugged memory: {slots}, not 3 at least and none in the end")
    problems += _fell(facts, "grown", "before", 48) + _fell(facts, "grown", "given", 40)
    total, before = (int(facts.get(name, ["0"])[0]) for name in ("total", "memtotal"))
    if total - before < 380 * 1024:
        problems.append(f"MemTotal {before} kB grew to {total} kB")
    if not any(line.startswith("MEMORY_DEVICE_SIZE_CHANGE ") and int(line.split()[1]) >= 3 for line in facts.get("events", [])):
        problems.append(f"a client saw {facts.get('events')}, not three events at least")
    return problems


def _check_pmem(facts):
    return _wrong(facts, {"driver": ["virtio_pmem"], "size": [str(16 * MIB // 512)], "mkfs": ["0"], "mounted": ["1"],
                          "written": ["0"], "file": ["same"], "fsck": ["0"]}) + _check_image(facts)


MEMORY_CHECKS = {"balloon": _check_balloon, "reporting": _check_reporting, "mem": _check_mem, "pmem": _check_pmem}


def _check_vhost_user(case, facts):
    wanted = {"virtio": ["0x0002 virtio_blk", "0x0002 virtio_blk", "0x001a virtiofs"], "mkfs": ["0"], "written": ["8"],
              "same": ["8"], "fsck": ["0"], "errors": ["0"], "share": ["1"], "image": ["QFI grown"],
              "files": ["2000" if case.much else "40"]}
    problems = _wrong(facts, wanted)
    many = facts.get("many", [""])[0].split()
    if len(many) != 4 or many[0] != many[2]:
        problems.append(f"many files: {many}")
    return problems + _check_files(facts)


def _check_files(facts):
    problems = []
    for inside, outside in (("got", "served"), ("sent", "taken")):
        if not facts.get(inside) or facts.get(inside) != facts.get(outside):
            problems.append(f"{inside} {facts.get(inside)}, but {outside} {facts.get(outside)}")
    return problems


def _check_memory(case, memtotal, iomem):
    problems = []
    size = case.memory * MIB
    # The kernel keeps its own image and a page structure for each page.
    least = size * 96 // 100 - 80 * MIB
    if not memtotal.isdigit() or not least <= int(memtotal) * 1024 <= size:
        problems.append(f"MemTotal {memtotal} kB of {case.memory} MiB")
    ranges = [re.match(r"([0-9a-f]+)-([0-9a-f]+) : System RAM", line) for line in iomem]
    ranges = [(int(match.group(1), 16), int(match.group(2), 16) + 1) for match in ranges if match]
    if not ranges:
        return [*problems, "no System RAM in /proc/iomem"]
    below = max((end for start, end in ranges if start < HIGH_START), default=0)
    above = [(start, end) for start, end in ranges if start >= HIGH_START]
    if below != min(size, GAP_START):
        problems.append(f"RAM below the gap ends at {below:#x}, not {min(size, GAP_START):#x}")
    wanted = [(HIGH_START, HIGH_START + size - GAP_START)] if size > GAP_START else []
    if above != wanted:
        problems.append(f"RAM above the gap is {above}, not {wanted}")
    return problems


def _last_line(record):
    lines = [line for line in (record.output + record.errors).split("\n") if line.strip()]
    return lines[-1][:160] if lines else "none"
