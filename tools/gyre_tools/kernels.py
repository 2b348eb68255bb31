"""Debian's stock cloud kernels, unpacked into the cache and never installed: bzImage, vmlinux and a few modules.

A filled cache needs no network: a series that is there is not asked for again.
"""
import dataclasses
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import zlib

from . import util

# By file name, in the order of their needs: what a machine loads that runs VMs itself, and what a guest of ours does.
OUTER = ("irqbypass", "kvm", "kvm-amd", "qemu_fw_cfg", "tun", "tap", "vhost_iotlb", "vhost", "vhost_net",
         "vsock", "vmw_vsock_virtio_transport_common", "vhost_vsock")
GUEST = ("button", "evdev", "watchdog", "wdat_wdt", "virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio-rng",
         "virtio_console", "failover", "net_failover", "virtio_net", "vsock", "vmw_vsock_virtio_transport_common",
         "vmw_vsock_virtio_transport", "vsock_loopback", "virtio_balloon", "virtio_mem", "libnvdimm", "nd_btt", "nd_pmem",
         "nd_virtio", "virtio_pmem", "fuse", "virtiofs")
MODULES = OUTER + GUEST  # that are unpacked
DEFAULT_PACKAGE = "linux-image-cloud-amd64"


@dataclasses.dataclass(frozen=True)
class Kernel:
    series: str  # "6.1"
    package: str
    directory: pathlib.Path

    @property
    def bzimage(self):
        return self.directory / "bzImage"

    @property
    def vmlinux(self):
        return self.directory / "vmlinux"

    def modules(self, names):
        """Paths of those modules that this kernel does not have built in, in the given order."""
        paths = (self.directory / "modules" / f"{name}.ko" for name in names)
        return [path for path in paths if path.exists()]


def default():
    """The kernel of Debian's current meta package."""
    mark = util.CACHE / "kernels" / "default"
    if mark.exists():
        return get(mark.read_text().strip())
    package = _dependency(DEFAULT_PACKAGE)
    if not package:
        raise util.ToolError(f"apt knows no package {DEFAULT_PACKAGE} (is this Debian, has apt-get update run?)")
    kernel = _fetch(package)
    util.write_if_changed(mark, kernel.series.encode())
    return kernel


def get(series):
    """The kernel of a series such as "6.12"; raises ToolError where apt has none."""
    cached = _cached(series)
    if cached:
        return cached
    package = find_package(series)
    if not package:
        raise util.ToolError(f"the configured apt sources have no cloud kernel {series}")
    return _fetch(package)


def find_package(series):
    """The name of the newest signed cloud kernel package of a series, or None."""
    default_package = _dependency(DEFAULT_PACKAGE)
    if default_package and _series(default_package) == series:
        return default_package
    names = util.run(["apt-cache", "pkgnames", f"linux-image-{series}."]).stdout.split()
    wanted = re.compile(rf"linux-image-{re.escape(series)}\.[0-9.]+[-+][a-z0-9-]*cloud-amd64")
    names = [name for name in names if wanted.fullmatch(name)]
    return max(names, key=_version_key) if names else None


def _cached(series):
    directory = util.CACHE / "kernels" / series
    try:
        package, modules = (directory / "package").read_text().splitlines()
    except (OSError, ValueError):
        return None
    return Kernel(series, package, directory) if modules == " ".join(MODULES) else None


def _version_key(name):
    return [int(number) for number in re.findall(r"\d+", name)]


def _series(package):
    match = re.match(r"linux-image-(\d+\.\d+)", package)
    return match.group(1) if match else ""


def _dependency(package):
    for attempt in range(2):
        shown = util.run(["apt-cache", "depends", "--important", package], check=False).stdout
        match = re.search(r"Depends: (linux-image-\S+)", shown)
        if match or attempt or not _apt_update():
            return match.group(1) if match else None
    return None


def _apt_update():
    """Refreshes apt's lists where we may; they are missing on a fresh machine and old on a stale one."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and not shutil.which("sudo"):
        return False
    return util.run([*prefix, "apt-get", "-qq", "update"], check=False).returncode == 0


def _fetch(package):
    series = _series(package)
    cached = _cached(series)
    if cached:
        return cached
    base = util.CACHE / "kernels"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base, prefix=".unpack-") as name:
        work = pathlib.Path(name)
        archive = _download(package, work)
        util.run(["dpkg", "-x", archive, work / "root"])
        ready = work / "ready"
        _lay_out(work / "root", ready)
        (ready / "package").write_text(f"{package}\n{' '.join(MODULES)}\n")
        target = base / series
        if target.exists() and not _cached(series):
            target.rename(work / "old")  # with other modules than we want now
        try:
            ready.rename(target)
        except OSError:
            if not _cached(series):  # not merely another process that was quicker
                raise
    return Kernel(series, package, target)


def _download(package, directory):
    for attempt in range(2):
        result = util.run(["apt-get", "download", package], check=False, cwd=directory)
        archives = list(directory.glob("*.deb"))
        if result.returncode == 0 and archives:
            return archives[0]
        if attempt or not _apt_update():
            raise util.ToolError(f"apt-get download {package} failed:\n{result.stdout.strip()}")
    raise AssertionError("unreachable")


def _lay_out(root, ready):
    """Copies what we use of an unpacked package: both forms of the kernel, and modules as plain .ko files."""
    (ready / "modules").mkdir(parents=True)
    image = next((root / "boot").glob("vmlinuz-*"))
    shutil.copy(image, ready / "bzImage")
    (ready / "vmlinux").write_bytes(extract_vmlinux(image.read_bytes()))
    found = {}
    for path in (root / "lib" / "modules").rglob("*.ko*"):
        found[path.name.split(".ko")[0]] = path
    for name in MODULES:
        path = found.get(name)
        if path is None:
            continue
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        elif path.suffix == ".zst":
            data = _filter(["zstd", "-dc"], data)
        (ready / "modules" / f"{name}.ko").write_bytes(data)


def extract_vmlinux(image):
    """The ELF file inside a bzImage, found by the header's payload fields (boot protocol 2.08 and later)."""
    if image[0x202:0x206] != b"HdrS":
        raise util.ToolError("not a bzImage: the signature HdrS is missing")
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = _decompress(image[start:start + length])
    if elf[:4] != b"\x7fELF":
        raise util.ToolError("the kernel's payload is not an ELF file")
    return elf[:_elf_size(elf)]


def _decompress(payload):
    # All but gzip have their own little-endian size appended by the kernel's build.
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload[:6] == b"\xfd7zXZ\x00":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return _filter(["zstd", "-dc"], payload[:-4])
    if payload[:4] == b"\x02\x21\x4c\x18":
        return _filter(["lz4", "-dc"], payload[:-4])
    raise util.ToolError(f"unknown compression of the kernel's payload: {payload[:6].hex()}")


def _filter(command, data):
    result = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
    if result.returncode != 0:
        raise util.ToolError(f"{command[0]} failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


def _elf_size(elf):
    """Where the ELF file ends: the kernel's relocations follow it in the payload."""
    program_offset, section_offset = struct.unpack_from("<QQ", elf, 0x20)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", elf, 0x36)
    end = max(program_offset + program_size * program_count, section_offset + section_size * section_count)
    for index in range(program_count):
        offset, _, _, file_size = struct.unpack_from("<QQQQ", elf, program_offset + index * program_size + 8)
        end = max(end, offset + file_size)
    for index in range(section_count):
        kind, = struct.unpack_from("<I", elf, section_offset + index * section_size + 4)
        offset, size = struct.unpack_from("<QQ", elf, section_offset + index * section_size + 24)
        if kind != 8:  # SHT_NOBITS
            end = max(end, offset + size)
    return min(end, len(elf))
