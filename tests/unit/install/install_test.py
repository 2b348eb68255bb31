#!/usr/bin/env python3
"""What `meson install` puts where, and what systemd says of the units: install_test.py BUILD_DIRECTORY."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
MOST_EXPOSURE = 2.0  # of 10, as systemd-analyze security counts


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls._directory = tempfile.TemporaryDirectory(prefix="gyre-install-")
        cls.root = pathlib.Path(cls._directory.name)
        result = run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.root)
        assert result.returncode == 0, result.stdout + result.stderr
        prefix = next(cls.root.rglob("bin/gyrectl")).parent.parent
        cls.prefix = prefix

    @classmethod
    def tearDownClass(cls):
        cls._directory.cleanup()

    def found(self, name):
        paths = list(self.prefix.rglob(name)) + list(self.root.glob(f"etc/**/{name}"))
        self.assertEqual(len(paths), 1, f"{name}: {paths}")
        return paths[0]

    def test_everything_is_in_place(self):
        for name in ("gyred", "gyrectl", "gyre-agent", "gyred.8", "gyrectl.1", "gyre-agent.8", "gyre-agent.service", "gyre@.service", "gyre@.socket", "_gyrectl",
                     "gyrectl.fish", "example.conf", "sysusers.d/gyre.conf", "bash-completion/completions/gyrectl"):
            if "/" in name:
                self.assertTrue(list(self.prefix.rglob(name)), name)
            elif name == "gyrectl":
                self.assertTrue((self.prefix / "bin/gyrectl").is_file())
            else:
                self.found(name)

    def test_programs_run(self):
        for name in ("gyred", "gyrectl"):
            self.assertEqual(run(self.prefix / "bin" / name, "--version").stdout.split()[0], name)

    def test_agent_needs_nothing_of_its_guest(self):
        agent = self.found("gyre-agent")
        self.assertEqual(agent.relative_to(self.prefix), pathlib.Path("libexec/gyre/gyre-agent"))
        self.assertEqual(run(agent, "--version").stdout.split()[0], "gyre-agent")
        # Where a sanitizer is in it, gyred is not static either.
        if shutil.which("ldd") and run("ldd", self.prefix / "bin/gyred").returncode != 0:
            self.assertNotEqual(run("ldd", agent).returncode, 0, "it is static")

    def test_example_is_a_configuration(self):
        # The one mistake left in it is that the kernel may not be there.
        text = self.found("example.conf").read_text()
        names = re.findall(r"^([a-z-]+)=", text, re.MULTILINE)
        listed = run(self.prefix / "bin/gyred", "--help").stdout
        for name in names:
            self.assertIn(f"--{name}", listed)

    def units(self, directory):
        """An instance of each template, with the program where it is."""
        for kind in ("service", "socket"):
            text = self.found(f"gyre@.{kind}").read_text()
            program = "/" + str((self.prefix / "bin/gyred").relative_to(self.root))
            (directory / f"gyre@vm.{kind}").write_text(text.replace(program, str(self.prefix / "bin/gyred")))
        return directory / "gyre@vm.service", directory / "gyre@vm.socket"

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_finds_no_fault(self):
        with tempfile.TemporaryDirectory(prefix="gyre-units-") as directory:
            result = run("systemd-analyze", "verify", "--man=no", *self.units(pathlib.Path(directory)))
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_finds_no_fault_in_the_units_of_a_shared_directory(self):
        with tempfile.TemporaryDirectory(prefix="gyre-units-") as name:
            directory = pathlib.Path(name)
            service, socket = self.units(directory)
            drop_ins = directory / "gyre@vm.service.d"
            drop_ins.mkdir()
            shutil.copy(self.found("share.conf"), drop_ins)
            for kind in ("service", "socket"):
                text = self.found(f"gyre-share@.{kind}").read_text()
                (directory / f"gyre-share@vm.{kind}").write_text(text.replace("/usr/lib/qemu/virtiofsd", "/bin/true"))
            result = run("systemd-analyze", "verify", "--man=no", service, socket, directory / "gyre-share@vm.service",
                         directory / "gyre-share@vm.socket")
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_finds_no_fault_in_the_agents_unit(self):
        with tempfile.TemporaryDirectory(prefix="gyre-units-") as name:
            unit = pathlib.Path(name) / "gyre-agent.service"
            unit.write_text(self.found("gyre-agent.service").read_text().replace(
                "/usr/libexec/gyre/gyre-agent", str(self.found("gyre-agent"))))
            result = run("systemd-analyze", "verify", "--man=no", unit)
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_service_is_hardened(self):
        with tempfile.TemporaryDirectory(prefix="gyre-units-") as directory:
            service, _ = self.units(pathlib.Path(directory))
            result = run("systemd-analyze", "security", "--offline=true", "--no-pager", service)
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
        self.assertIsNotNone(exposure, result.stdout + result.stderr)
        self.assertLessEqual(float(exposure.group(1)), MOST_EXPOSURE)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_service_may_do_what_options_ask_for(self):
        # As systemd reads it: the first line says what may be, "~" takes something out, and later lines add to it.
        groups = syscall_groups()
        lines = re.findall(r"^SystemCallFilter=(.*)$", self.found("gyre@.service").read_text(), re.MULTILINE)
        self.assertFalse(lines[0].startswith("~"))
        allowed = set()
        for line in lines:
            calls = {call for name in line.lstrip("~").split() for call in members(groups, name)}
            allowed = allowed - calls if line.startswith("~") else allowed | calls
        for option, calls in {"any": {"io_uring_setup", "prlimit64", "ioctl"},
                              "--iothread cpus=": {"sched_setaffinity"},
                              "--memory numa=": {"mbind", "set_mempolicy"},
                              "--memory locked=": {"mlock"}}.items():
            self.assertLessEqual(calls, allowed, option)
        for call in ("mount", "reboot", "setuid", "ptrace", "init_module", "sched_setscheduler"):
            self.assertNotIn(call, allowed)


def syscall_groups():
    """What each of systemd's groups of system calls has, by its name."""
    groups = {}
    for line in run("systemd-analyze", "syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            groups[line] = calls = set()
        elif line.strip() and not line.strip().startswith("#"):
            calls.add(line.strip())
    return groups


def members(groups, name):
    """The system calls of a group, with those of groups within it; a call by itself."""
    if not name.startswith("@"):
        return {name}
    return {call for member in groups[name] for call in members(groups, member)}


if __name__ == "__main__":
    unittest.main(verbosity=2)
