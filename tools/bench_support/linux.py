"""A stock kernel to its userland; in the nested machine where the host's KVM runs none, and then marked as such."""
import json
import pathlib
import re
import shlex

from bench_support import guest_images, peers, results, session as sessions
from gyre_tools import build as building, hostkvm, initramfs, kernels, nested, util

NAME = "linux"
WORDS = b"gyre-bench-userland"
CMDLINE = ("console=ttyS0 loglevel=1 panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on edd=off reboot=t 8250.nr_uarts=1 "
           "i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd")
MOST_OF_QEMU = 0.05
GUEST_MIB = 256
NESTED_MEMORY = 1024
NESTED_TIMEOUT = 900
START_TIMEOUT = 120
RUNS = {"userland": 3, "hello": 5}
SHARES = (pathlib.Path("/usr/share/qemu"), pathlib.Path("/usr/share/seabios"), pathlib.Path("/usr/local/share/qemu"))


def _userland(result):
    """What a start with a userland gives; gyre-bench-run keeps the first bytes of the guest's words."""
    words = bytes.fromhex(result["output"]).lstrip()
    if result["timed_out"] or not words.startswith(WORDS):
        raise sessions.Failure(f"the userland did not speak: {words[:48]!r}")
    return {"to_userland": result["first_byte_ns"] / 1e9, "to_end": result["exit_ns"] / 1e9}


def _hello(result):
    if result["timed_out"] or bytes.fromhex(result["output"]) != sessions.HELLO:
        raise sessions.Failure(f"ended with status {result['status']} and output {bytes.fromhex(result['output'])!r}")
    return {"first_byte": result["first_byte_ns"] / 1e6, "exit": result["exit_ns"] / 1e6}


def _start(session, initrd, kernel):
    return session.start(str(kernel), protocol="bzimage", memory_mib=GUEST_MIB, initrd=str(initrd), cmdline=CMDLINE)


def _direct(session, suite, kernel, initrd):
    case = results.Case("userland", f"Debian's kernel {kernel.series}, bzImage, {GUEST_MIB} MiB")
    suite.cases.append(case)

    def once(peer, start):
        return _userland(session.run([], peer.command(start), START_TIMEOUT)[0])

    usable = session.usable(case, lambda _peer: _start(session, initrd, kernel.bzimage), once, base=True)
    sessions.take_turns(case, usable, session.rounds(session.runs), 0, session.budget * 5, once)


def _libraries(program):
    listed = util.run(["ldd", program], check=False).stdout
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def _files(session, kernel, initrd):
    """What the nested machine needs, by its path there."""
    hello = session.image(guest_images.hello)
    files = {"/gyre/run": session.build / sessions.RUNNER, "/gyre/bzImage": kernel.bzimage, "/gyre/initrd": initrd,
             "/gyre/hello": pathlib.Path(hello)}
    for peer in session.peers:
        if peer.peer.nested:
            files[f"/gyre/{peer.name}"] = peer.program
            files |= {str(path): path for path in _libraries(peer.program)}
            for name in peer.peer.share:
                found = next((share / name for share in SHARES if (share / name).exists()), None)
                if found:
                    files[f"/share/{name}"] = found
    return files


def _line(case, peer, start):
    """The script's line for one start, which prints: bench CASE PEER JSON, and the last that the VMM complained of."""
    command = [f"/gyre/{peer.name}", *peer.command(start)[1:], *(["-L", "/share"] if peer.peer.share else [])]
    words = shlex.join(["/gyre/run", "--timeout", str(START_TIMEOUT), "--", *command])
    return f'echo "bench {case} {peer.name} $({words} 2>/tmp/errors) $(tail -n 1 /tmp/errors)"'


def _nested(session, suite, kernel, initrd):
    starts = {"userland": _start(session, "/gyre/initrd", "/gyre/bzImage"), "hello": session.start("/gyre/hello")}
    titles = {"userland": f"Debian's kernel {kernel.series}, bzImage, {GUEST_MIB} MiB",
              "hello": "the guest that says hello, on the same nested KVM"}
    lines = []
    for name, start in starts.items():
        case = results.Case(f"{name}-nested", titles[name], nested=True)
        suite.cases.append(case)
        able = []
        for peer in session.peers:
            try:
                if not peer.peer.nested:
                    raise peers.Unsupported("not taken into the nested machine")
                able.append(_line(name, peer, start))
            except peers.Unsupported as why:
                case.skipped[peer.name] = str(why)
        lines += able * (1 if session.quick else RUNS[name])
    result = nested.run_nested("\n".join([*lines, "exit 0"]) + "\n", _files(session, kernel, initrd), timeout=NESTED_TIMEOUT,
                               memory=NESTED_MEMORY)
    for line in result.output.splitlines():
        match = re.match(r"bench (\w+) (\S+) (.*)", line)
        if match:
            _note(suite.case(f"{match.group(1)}-nested"), match.group(2), match.group(3))
    if not result.ok:
        suite.cases[0].fail("nested machine", result.reason)


def _note(case, peer, said):
    try:
        result, end = json.JSONDecoder().raw_decode(said)
        values = (_hello if case.name.startswith("hello") else _userland)(result)
    except (ValueError, KeyError):
        case.fail(peer, said[:200] or "said nothing")
    except sessions.Failure as failure:
        case.fail(peer, f"{failure}. {said[end:].strip()[:200]}")
    else:
        for quantity, value in values.items():
            case.add(quantity, peer, value)


def run(session):
    suite = results.Suite(NAME, "A stock kernel", [
        "Debian's cloud kernel as its bzImage with a busybox initramfs, whose /init writes a line to the console and ends the VM. "
        "Wall clock from exec to that line's first byte, and to exit.",
        "Nested: on an emulated machine with a KVM of its own, where the host's KVM runs no stock kernel. All of its time is "
        "emulated, so it is compared with nothing but itself; hello shows there what a VMM does before the guest's entry."])
    try:
        host = hostkvm.probe()
        kernel = kernels.default()
        initrd = initramfs.build(building.util.ROOT / "tools" / "guest" / "bench-init", "bench", [building.helper("outb")])
        if host.direct:
            _direct(session, suite, kernel, initrd)
        else:
            _nested(session, suite, kernel, initrd)
    except util.ToolError as error:
        case = results.Case("userland", "a stock kernel", skipped={"all": str(error).splitlines()[0]})
        suite.cases.append(case)
    suite.aim("before the guest's entry, nested", "hello-nested", "first_byte", "qemu-microvm", most=MOST_OF_QEMU)
    return suite
