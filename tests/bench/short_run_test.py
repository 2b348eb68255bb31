#!/usr/bin/env python3
"""Every suite of tools/bench in its short form: short_run_test.py SOURCE_DIRECTORY BUILD_DIRECTORY. No time is judged."""
import html.parser
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1)).resolve()
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
SKIP = 77
TIMEOUT = 600
sys.path.insert(0, str(SOURCE / "tools"))
from bench_support import schema  # noqa: E402

# What each suite owes us of gyre, in which case.
OWED = {
    "boot": {"hello": ("first_byte", "exit", "cpu"), "protocol-linux": ("exit",), "protocol-multiboot": ("exit",),
             "protocol-bzimage": ("exit",), "vcpus-2": ("exit",), "memory-512": ("exit",), "disks-1": ("exit",)},
    "parallel": {"10-by-10": ("start_p50", "start_p90", "start_p99", "start_most", "rate", "cpu")},
    "density": {"idle": ("vms", "rss", "pss", "host_memory", "idle_cpu", "idle_wakeups")},
    "overhead": {"one-vcpu": ("memory", "threads", "fds", "syscalls"), "one-disk": ("memory",)},
    "exits": {name: ("operation",) for name in ("port-read", "memory-read", "port-read-inside", "memory-read-inside", "ioeventfd",
                                                "irqfd", "kick")},
    "cleanup": {"one-asked": ("release",), "one-killed": ("release",)},
    "net": {"to-host-64": ("packets", "packets_per_cpu"), "to-guest-64": ("packets", "packets_per_cpu"),
            "echo": ("latency_p50", "latency_p99")},
    "vsock": {"to-host": ("throughput", "cpu_per_mib"), "to-guest": ("throughput", "cpu_per_mib"),
              "echo": ("latency_p50", "latency_p99"), "connect": ("connections",)},
    "linux": {},
}
MAY_BE_NOTHING = ("host_memory", "idle_cpu", "idle_wakeups")
# The difference of two starts, which a busy machine can turn round.
MAY_BE_ANYTHING = ("port-read", "memory-read")


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)


class ShortRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory(prefix="gyre-bench-test-") as name:
            directory = pathlib.Path(name)
            command = [sys.executable, SOURCE / "tools" / "bench", "all", "--quick", "--build", BUILD, "--json", directory / "run.json",
                       "--html", directory / "run.html"]
            result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
            cls.status, cls.said = result.returncode, result.stdout[-4000:] + result.stderr[-4000:]
            cls.run_data = json.loads((directory / "run.json").read_text()) if (directory / "run.json").exists() else None
            cls.report = (directory / "run.html").read_text() if (directory / "run.html").exists() else ""

    def test_ends_well(self):
        self.assertEqual(self.status, 0, self.said)

    def test_results_are_as_the_schema_has_them(self):
        self.assertIsNotNone(self.run_data, self.said)
        self.assertEqual(schema.problems(self.run_data), [])
        self.assertTrue(self.run_data["settings"]["quick"])

    def test_each_suite_measured_gyre_and_the_floor(self):
        suites = {suite["name"]: suite for suite in self.run_data["suites"]}
        self.assertEqual(set(suites), set(OWED))
        for name, cases in OWED.items():
            measured = {case["name"]: case for case in suites[name]["cases"]}
            for case, quantities in cases.items():
                if name == "net" and "all" in measured[case]["skipped"]:
                    continue  # whoever runs this may make no tap: test_network_or_the_reason
                for quantity in quantities:
                    peers = measured[case]["quantities"].get(quantity, {"peers": {}})["peers"]
                    for peer in ("gyre", "floor"):
                        with self.subTest(suite=name, case=case, quantity=quantity, peer=peer):
                            self.assertIn(peer, peers, measured[case]["skipped"] | measured[case]["failures"])
                            if quantity not in MAY_BE_NOTHING and case not in MAY_BE_ANYTHING:
                                self.assertGreater(peers[peer]["least"], 0)

    def test_details_tell_what_a_vm_takes(self):
        overhead = next(suite for suite in self.run_data["suites"] if suite["name"] == "overhead")
        details = overhead["cases"][0]["details"]["gyre"]
        self.assertIn("kvm-vcpu", details["memory, KiB"])
        self.assertIn("gyred", details["threads"])
        self.assertGreater(details["system calls"]["ioctl"], 10)

    def test_timeline_goes_on_to_the_exit(self):
        steps = self.run_data["suites"][0]["timeline"]
        self.assertEqual(steps[-1][0], "exit")
        for (_, _, end), (_, begin, _) in zip(steps, steps[1:]):
            self.assertEqual(end, begin)

    def test_stock_kernel_or_the_reason(self):
        suite = next(suite for suite in self.run_data["suites"] if suite["name"] == "linux")
        first = suite["cases"][0]
        self.assertTrue(first["skipped"].get("all") or "gyre" in first["quantities"]["to_userland"]["peers"], first)

    def test_network_or_the_reason(self):
        suite = next(suite for suite in self.run_data["suites"] if suite["name"] == "net")
        for case in suite["cases"]:
            reason = case["skipped"].get("all", "")
            if reason:
                self.assertIn("no tap can be made here", reason)
                self.assertFalse(os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK), reason)
        if suite["cases"][0]["skipped"].get("all"):
            self.skipTest(suite["cases"][0]["skipped"]["all"])

    def test_report_is_whole(self):
        tags = Tags()
        tags.feed(self.report)
        self.assertGreater(tags.seen.count("svg"), 5)
        self.assertNotIn("script", tags.seen)


if __name__ == "__main__":
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("no usable /dev/kvm")
        sys.exit(SKIP)
    unittest.main(verbosity=2)
