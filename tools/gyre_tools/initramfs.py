"""Small initramfs images, made without root: busybox, its links, two device nodes and an /init script."""
import pathlib
import stat
import subprocess

from . import util

BUSYBOX = pathlib.Path("/bin/busybox")
DIRECTORIES = ("bin", "dev", "proc", "sys", "tmp", "etc", "modules")


def busybox():
    """The static busybox and its applets' names."""
    if not BUSYBOX.exists():
        raise util.ToolError("/bin/busybox is missing (package busybox-static)")
    if b"ld-linux" in BUSYBOX.read_bytes()[:4096]:
        raise util.ToolError("/bin/busybox is not a static program (package busybox-static)")
    applets = subprocess.run([BUSYBOX, "--list"], stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
    return BUSYBOX, sorted(set(applets.split()) - {"busybox"})


def build(init_script, name, programs=(), modules=()):
    """Makes (or finds) the image whose /init is the given file, with programs in /bin and kernel modules in /modules,
    numbered in their order; returns its path."""
    program, applets = busybox()
    archive = _Archive()
    for directory in DIRECTORIES:
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, program.read_bytes())
    for applet in applets:
        archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    for path in programs:
        archive.add(f"bin/{pathlib.Path(path).name}", stat.S_IFREG | 0o755, pathlib.Path(path).read_bytes())
    for order, path in enumerate(modules):
        archive.add(f"modules/{order:02}-{pathlib.Path(path).name}", stat.S_IFREG | 0o644, pathlib.Path(path).read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, pathlib.Path(init_script).read_bytes())
    path = util.CACHE / "initramfs" / f"{name}.cpio"
    util.write_if_changed(path, archive.finish())
    return path


class _Archive:
    """cpio's "newc" format, as the kernel's initramfs documentation gives it."""

    def __init__(self):
        self._parts = []
        self._inode = 0

    def add(self, name, mode, data=b"", device=(0, 0)):
        self._inode += 1
        name = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, device[0], device[1], len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._parts.append(_padded(header + name) + _padded(data))

    def finish(self):
        self._inode = -1
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(data):
    return data + b"\0" * (-len(data) % 4)
