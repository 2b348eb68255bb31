"""Build directories: configured when they are missing, built when something changed."""
import fcntl
import os
import shutil

from . import util

# Each build's compiler and options. The names are those of the directories: build-release and so on.
FLAVOURS = {
    "release": ("clang", ["-Dbuildtype=release", "-Doptimization=2", "-Db_lto=true", "-Dtests=false",
                          "--native-file", str(util.ROOT / "tools" / "clang-lld.ini")]),
    "gcc": ("gcc", ["-Dbuildtype=debug"]),
    "clang": ("clang", ["-Dbuildtype=debug"]),
    "asan": ("clang", ["-Dbuildtype=debug", "-Db_sanitize=address,undefined"]),
    "tsan": ("clang", ["-Dbuildtype=debug", "-Db_sanitize=thread"]),
}
DAEMON = "src/daemon/gyred"


def directory(flavour):
    return util.ROOT / f"build-{flavour}"


def configure(flavour):
    """Returns the flavour's build directory, set up if it was not."""
    path = directory(flavour)
    if (path / "build.ninja").exists():
        return path
    compiler, options = FLAVOURS[flavour]
    environment = dict(os.environ)
    prefix = "ccache " if shutil.which("ccache") else ""
    if compiler == "clang":
        environment.update(CC="clang-19", CXX=f"{prefix}clang++-19")
    else:
        environment.update(CC="gcc", CXX=f"{prefix}g++")
    arguments = ["--reconfigure"] if (path / "meson-private").exists() else []
    util.run(["meson", "setup", *arguments, path, util.ROOT, *options], env=environment, timeout=300)
    return path


def compile(flavour, *targets, timeout=1800):
    """Builds the targets (all by default); returns the build directory."""
    # One at a time a directory: ninja has no lock of its own, and the tiers' threads ask for the same helpers.
    util.CACHE.mkdir(parents=True, exist_ok=True)
    with open(util.CACHE / f"build-{flavour}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = configure(flavour)
        util.run(["ninja", "-C", path, "-j", str(util.JOBS), *targets], timeout=timeout)
    return path


def daemon():
    """The release build of gyred, up to date."""
    return compile("release", DAEMON) / DAEMON


def helper(name):
    """A static helper program of tools/probe, up to date."""
    target = f"tools/probe/{name}"
    return compile("release", target) / target
