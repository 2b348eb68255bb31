#!/usr/bin/env python3
"""tools/new-device in a copy of the sources: what it writes compiles, is listed, and its test passes.

Arguments: the compiler's words, "--", and the libraries to link with.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[4]
COPIED = ("devices/virtio", "include", "tests/support", "tests/unit/devices")
FLAGS = ["-std=c++23", "-D_GNU_SOURCE", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread", "-fno-strict-aliasing"]


def main():
    separator = sys.argv.index("--")
    compiler, libraries = sys.argv[1:separator], sys.argv[separator + 1:]
    with tempfile.TemporaryDirectory(prefix="gyre-new-device-") as name:
        copy = pathlib.Path(name)
        for folder in COPIED:
            shutil.copytree(ROOT / folder, copy / folder)
        subprocess.run([ROOT / "tools" / "new-device", "null-thing", "63", "--root", copy], check=True)
        sources = ["devices/virtio/null_thing.cc", "devices/virtio/registry.cc",
                   "tests/unit/devices/virtio/null_thing_test.cc", "tests/support/virtio/fake_driver.cc"]
        for build in ("devices/virtio/meson.build", "tests/unit/devices/virtio/meson.build"):
            if "null_thing" not in (copy / build).read_text(encoding="utf-8"):
                sys.exit(f"{build} does not list it")
        program = copy / "test"
        subprocess.run([*compiler, *FLAGS, f"-I{copy}", f"-I{copy / 'include'}", *(copy / source for source in sources),
                        *libraries, "-luring", "-lgtest_main", "-lgtest", "-o", program], check=True)
        subprocess.run([program], check=True)
        again = subprocess.run([ROOT / "tools" / "new-device", "null-thing", "63", "--root", copy], check=False,
                               stderr=subprocess.PIPE, text=True)
        if again.returncode == 0 or "is there already" not in again.stderr:
            sys.exit("a second one of the same name was made")


if __name__ == "__main__":
    main()
