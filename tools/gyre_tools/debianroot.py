"""A Debian root file system with systemd as its first process, for the nested machine: made once from the packages of
apt's configured mirror, kept in the cache, and given further files each time."""
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import tarfile
import tempfile

from . import kernels, util

PACKAGES = ("systemd", "systemd-sysv", "udev", "kmod", "libedit2", "iproute2", "passt")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# What a machine of one test has no use for; a boot under emulation is long enough.
MASKED = ("serial-getty@ttyS0.service", "getty@tty1.service", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer",
          "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-update-utmp.service",
          "systemd-update-utmp-runlevel.service", "systemd-logind.service", "systemd-random-seed.service",
          "systemd-pstore.service", "systemd-firstboot.service", "systemd-machine-id-commit.service",
          "systemd-tmpfiles-clean.timer", "systemd-hwdb-update.service", "ldconfig.service", "kmod-static-nodes.service")
BOOTSTRAP_TIMEOUT = 1200  # seconds; a minute or two are usual
SLACK = 96 << 20          # bytes that are free in the image
IMAGES_KEPT = 2


def image(files, links, kernel):
    """An ext4 image of the root with these files (absolute path: file or text) and links (path: target).

    kernel's modules are in /modules, in their order. An equal image in the cache is taken as it is.
    """
    packages = base()
    directory = util.CACHE / "debianroot"
    modules = kernel.modules(kernels.OUTER)
    files = dict(files) | {f"/modules/{order:02}-{module.name}": module for order, module in enumerate(modules)}
    links = dict(links) | {f"/etc/systemd/system/{unit}": "/dev/null" for unit in MASKED}
    target = directory / f"root-{_key(packages, files, links)}.ext4"
    with open(directory / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _make(packages, files, links, target)
            for old in sorted(directory.glob("root-*.ext4"), key=lambda path: path.stat().st_mtime)[:-IMAGES_KEPT]:
                old.unlink()
    return target


def base():
    """The packages alone, as a tar file."""
    directory = util.CACHE / "debianroot"
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"base-{hashlib.sha256(repr((PACKAGES, LEFT_OUT)).encode()).hexdigest()[:12]}.tar"
    with open(directory / "base-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            util.say("debian root: installing its packages (once)")
            part = target.with_suffix(".part.tar")
            util.run(["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
                      *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT), _suite(), part, *_sources()],
                     timeout=BOOTSTRAP_TIMEOUT)
            part.replace(target)
    return target


def _suite():
    match = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise util.ToolError("this is no Debian release: /etc/os-release has no VERSION_CODENAME")
    return match.group(1)


def _sources():
    """The files in which apt's mirror is configured."""
    places = [pathlib.Path("/etc/apt/sources.list")]
    places += sorted(path for path in pathlib.Path("/etc/apt/sources.list.d").glob("*") if path.suffix in (".list", ".sources"))
    return [path for path in places if path.exists()]


def _key(packages, files, links):
    digest = hashlib.sha256(f"{packages.name} {sorted(links.items())}".encode())
    for path, source in sorted(files.items()):
        if isinstance(source, pathlib.Path):
            status = source.stat()
            source = f"{source} {status.st_size} {status.st_mtime_ns} {status.st_mode}"
        digest.update(f"\0{path}\0{source}".encode())
    return digest.hexdigest()[:16]


def _make(packages, files, links, target):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".stage-") as name:
        stage = pathlib.Path(name)
        overlay = stage / "overlay"
        for path, source in files.items():
            place = overlay / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, pathlib.Path):
                shutil.copy(source, place)
            else:
                place.write_text(source, encoding="utf-8")
                place.chmod(0o755 if source.startswith("#!") else 0o644)
        for path, goal in links.items():
            place = overlay / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(goal)
        with tarfile.open(packages) as archive:
            size = sum(member.size + 4096 for member in archive)
        size += sum(path.stat().st_size for path in overlay.rglob("*") if path.is_file() and not path.is_symlink())
        # Owners are the archive's: root is needed, or a fake of it. Devices are the kernel's.
        script = ('set -e; mkdir root; tar -C root --exclude="./dev/*" -xf "$1"; chmod -R u+rwX,go+rX overlay; '
                  'cp -a --no-preserve=ownership overlay/. root/; '
                  'mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -m0 -d root image "$2"')
        prefix = [] if os.geteuid() == 0 else ["fakeroot"]
        util.run([*prefix, "sh", "-c", script, "sh", packages, f"{(size + SLACK) >> 20}M"], cwd=stage, timeout=300)
        (stage / "image").replace(target)
