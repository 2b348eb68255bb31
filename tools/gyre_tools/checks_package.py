"""The Debian package: built, looked at, and installed into a Debian root of its own and purged again."""
import os
import pathlib
import shutil
import stat
import tempfile

from . import debianroot, sources, util

PACKAGE_TIMEOUT = 1800  # seconds
PACKAGED = ("/usr/bin/gyred", "/usr/bin/gyrectl", "/usr/libexec/gyre/gyre-agent", "/usr/share/gyre/guest/gyre-agent.service",
            "/lib/systemd/system/gyre@.service", "/lib/systemd/system/gyre@.socket",
            "/usr/lib/sysusers.d/gyre.conf", "/etc/gyre/example.conf", "/usr/share/man/man1/gyrectl.1.gz",
            "/usr/share/man/man8/gyred.8.gz", "/usr/share/man/man8/gyre-agent.8.gz", "/usr/share/bash-completion/completions/gyrectl",
            "/usr/share/zsh/vendor-completions/_gyrectl", "/usr/share/fish/vendor_completions.d/gyrectl.fish")
# It is in no archive, has no bug there that it could close, and its maintainer no address; gyred and gyre-agent are static files,
# which have their libraries in them.
NOT_TOLD = "initial-upload-closes-no-bugs,bogus-mail-host,bogus-mail-host-in-debian-changelog,statically-linked-binary,embedded-library"


def package(**_):
    """Builds it from a copy of the tree and tries it; it stays in the cache."""
    if not shutil.which("dh"):
        raise util.ToolError("debhelper is not installed: tools/install-deps package")
    target = util.CACHE / "package"
    shutil.rmtree(target, ignore_errors=True)
    tree = target / "gyre"
    for name in sources.tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(util.ROOT / name, tree / name)
    util.run(["dpkg-buildpackage", "-us", "-uc", "-b", f"-j{util.JOBS}"], cwd=tree, timeout=PACKAGE_TIMEOUT)
    shutil.rmtree(tree)
    archive = next(target.glob("gyre_*.deb"))
    listed = util.run(["dpkg-deb", "--contents", archive]).stdout
    missing = [path for path in PACKAGED if f" .{path}\n" not in listed]
    if missing:
        raise util.ToolError(f"{archive.name} lacks {', '.join(missing)}")
    notes = [str(archive.relative_to(util.ROOT) if archive.is_relative_to(util.ROOT) else archive), _lint(archive),
             _install(archive)]
    return "; ".join(notes)


def _lint(archive):
    """Lintian's errors are faults, its warnings are told."""
    if not shutil.which("lintian"):
        return "lintian is not installed"
    result = util.run(["lintian", "--allow-root", "--tag-display-limit", "0", "--suppress-tags", NOT_TOLD, archive], check=False,
                      timeout=600)
    if result.returncode:
        raise util.ToolError(f"lintian: {result.stdout}")
    tags = [line for line in result.stdout.splitlines() if line.startswith("W:")]
    return f"lintian: {len(tags)} warnings{''.join(chr(10) + tag for tag in tags)}"


def _install(archive):
    """By dpkg in a root of Debian's packages alone: what is there then, what systemd says of it, and what a purge leaves."""
    if os.geteuid() != 0:
        return "not installed anywhere: that needs root"
    if not shutil.which("mmdebstrap"):
        return "not installed anywhere: mmdebstrap is not installed"
    with tempfile.TemporaryDirectory(prefix="gyre-package-") as name:
        root = pathlib.Path(name)
        util.run(["tar", "-C", root, "--exclude=./dev/*", "-xf", debianroot.base()], timeout=300)
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        shutil.copy(archive, root / "gyre.deb")

        def inside(*command):
            return util.run(["chroot", root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", *command],
                            timeout=300)
        # The root leaves manual pages out; this package's are looked for.
        inside("dpkg", "--path-include=/usr/share/man/*", "--path-include=/usr/share/doc/*", "-i", "/gyre.deb")
        missing = [path for path in PACKAGED if not (root / path.lstrip("/")).is_file()]
        if missing:
            raise util.ToolError(f"the installed package lacks {', '.join(missing)}")
        for program in ("gyred", "gyrectl", "/usr/libexec/gyre/gyre-agent"):
            said = inside(program, "--version").stdout
            if not said.startswith(pathlib.Path(program).name):
                raise util.ToolError(f"{program} --version says {said!r}")
        verified = inside("systemd-analyze", "verify", "--man=no", "gyre@vm.service", "gyre@vm.socket")
        if verified.stdout:
            raise util.ToolError(f"systemd-analyze verify: {verified.stdout}")
        inside("dpkg", "--purge", "gyre")
        left = [str(path.relative_to(root)) for path in root.rglob("*gyre*")
                if path.name != "gyre.deb" and "var/log" not in str(path)]
        if left:
            raise util.ToolError(f"the purge leaves {', '.join(left)}")
    return "installed and purged"
