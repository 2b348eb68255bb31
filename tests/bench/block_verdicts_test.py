#!/usr/bin/env python3
"""What tools/bench block says of figures: block_verdicts_test.py SOURCE_DIRECTORY."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(sys.argv.pop(1)).resolve() / "tools"))
from bench_support import block  # noqa: E402

DEEP = "4k randread, depth 128, 1 queue"


def peers(**more):
    figures = {"floor": (1000, 1000), "ring": (950, 1050), "device": (900, 1100), "gyred": (910, 1000), "polling": (890, 1000),
               "qemu": (500, 2000), "qemu-asleep": (500, 1400), **more}
    return {name: {"ops": ops, "cpu_ns": cpu_ns, "kicking": 0.0} for name, (ops, cpu_ns) in figures.items()}


def said(summary, of, what):
    """The one verdict on that peer which has those words, and whether it says reached."""
    (found,) = [(text, reached) for text, reached in block.verdicts(summary, {}) if f": {of}: " in text and what in text]
    return found


class Verdicts(unittest.TestCase):
    def test_who_sleeps_is_compared_with_who_sleeps(self):
        summary = {"4k randread, depth 1, 1 queue": peers()}
        text, reached = said(summary, "gyred", "CPU second")
        self.assertIn("1.40 x the operations a CPU second of qemu-asleep", text)
        self.assertFalse(reached)
        text, reached = said(summary, "polling", "CPU second")
        self.assertIn("2.00 x the operations a CPU second of qemu,", text)
        self.assertTrue(reached)

    def test_what_the_kernel_alone_takes_excuses_nothing_and_is_told(self):
        summary = {"128k write, depth 32, 1 queue": peers(gyred=(800, 1300), floor=(800, 1400))}
        text, reached = said(summary, "gyred", "CPU second")
        self.assertIn("floor has 1.00; ring has 1.33", text)
        self.assertFalse(reached)

    def test_depth_128_is_judged_by_the_hosts_own(self):
        summary = {DEEP: peers()}
        self.assertEqual(said(summary, "gyred", "io_uring")[1], True)
        self.assertEqual(said(summary, "polling", "io_uring"), (f"{DEEP}: polling: 0.890 of the host's io_uring, at least 0.9; a bare "
                                                              "ring has 0.950", False))

    def test_peers_that_could_not_run_are_no_verdict(self):
        some = {name: figures for name, figures in peers().items() if name in ("floor", "device")}
        texts = [text for text, _ in block.verdicts({DEEP: some}, {})]
        self.assertEqual(len(texts), 1, texts)

    def test_calls_are_counted_by_batch(self):
        counted = {"batches": 100, "calls": {"io_uring_enter": 101, "mmap": 3}}
        self.assertEqual(block.verdicts({}, {"gyred": counted}), [
            ("gyred, aio=io_uring: system calls a batch that was submitted: 1.04, at most 1.02", False)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
