"""The case "systemd": a Debian with systemd as its first process runs VMs by gyre@.service, in the nested machine."""
import os
import pathlib
import re
import shutil

from gyre_tools import build, debianroot, kernels, nested, util

NAME = "systemd"
GYRECTL = "tools/gyrectl/gyrectl"
VIRTIOFSD = pathlib.Path("/usr/lib/qemu/virtiofsd")
LIMIT = 1200        # seconds in all; 150 are usual on a busy machine
START_LIMIT = 420   # of it, to the test's start
MEMORY = 1024       # MiB of the machine
HERE = pathlib.Path(__file__).resolve().parent
UNIT = """[Unit]
Description=the test
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/gyre/runner
"""


def missing():
    """What of the host's programs the case lacks, or None."""
    for program in ("mmdebstrap", "mke2fs", "qemu-system-x86_64", *(("fakeroot",) if os.geteuid() else ())):
        if not shutil.which(program):
            return f"{program} is not installed (tools/install-deps installs it)"
    return None


def virtiofsd_files():
    """virtiofsd with the libraries that it needs, where it is installed."""
    if not VIRTIOFSD.exists():
        return {}
    listed = util.run(["ldd", VIRTIOFSD]).stdout
    paths = [pathlib.Path(path) for path in re.findall(r"=> (/\S+) \(0x", listed)]
    # /lib is a link there.
    return {str(VIRTIOFSD): VIRTIOFSD, **{f"/usr/lib/{path.parent.name}/{path.name}": path for path in paths}}


def run(gyred):
    """Returns (outcome, reason, output)."""
    kernel = kernels.default()
    path = build.compile("gcc", "tests/guests/button", GYRECTL)
    units = pathlib.Path("/usr/local/lib/systemd/system")
    files = {
        "/usr/local/bin/gyred": gyred,
        "/usr/local/bin/gyrectl": path / GYRECTL,
        str(units / "gyre@.service"): path / "tools/systemd/gyre@.service",
        str(units / "gyre@.socket"): HERE.parents[2] / "tools/systemd/gyre@.socket",
        "/usr/local/lib/sysusers.d/gyre.conf": HERE.parents[2] / "tools/systemd/gyre.sysusers",
        "/usr/local/etc/gyre/example.conf": HERE.parents[2] / "tools/systemd/example.conf",
        "/gyre/tap.conf": HERE.parents[2] / "tools/systemd/tap.conf",
        "/gyre/user-network.conf": HERE.parents[2] / "tools/systemd/user-network.conf",
        "/gyre/share.conf": HERE.parents[2] / "tools/systemd/share.conf",
        **{f"/etc/systemd/system/gyre-share@.{kind}": HERE.parents[2] / f"tools/systemd/gyre-share@.{kind}"
           for kind in ("service", "socket")},
        **virtiofsd_files(),
        "/gyre/button": path / "tests/guests/button",
        "/gyre/outb": build.helper("outb"),
        "/gyre/runner": HERE / "runner",
        "/gyre/load_kvm.sh": nested.LOAD_KVM,
        "/gyre/test.sh": HERE / "test.sh",
        "/etc/systemd/system/gyre-test.service": UNIT,
        "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    }
    links = {"/etc/systemd/system/graphical.target.wants/gyre-test.service": "/etc/systemd/system/gyre-test.service"}
    image = debianroot.image(files, links, kernel)
    boot = nested.Boot(init="/lib/systemd/systemd", mode="rw", start_bound=START_LIMIT)
    result = nested.run_image(image, kernel, LIMIT, boot, memory=MEMORY)
    passed = result.ok and "PASS systemd" in result.output
    steps = sum(1 for line in result.output.splitlines() if line.startswith("systemd: "))
    return ("PASS" if passed else "FAIL",
            f"{steps} steps in {result.seconds:.0f} s" if passed else f"{result.reason}, after {steps} steps", result.output)
