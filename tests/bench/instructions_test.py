#!/usr/bin/env python3
"""Whether instructions can still be counted: instructions_test.py SOURCE_DIRECTORY BUILD_DIRECTORY. No count is judged."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1)).resolve()
BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
SKIP = 77
TIMEOUT = 250


class Instructions(unittest.TestCase):
    def test_functions_of_ours_take_some_of_each_request(self):
        with tempfile.TemporaryDirectory(prefix="gyre-bench-test-") as directory:
            out = pathlib.Path(directory) / "counts.json"
            result = subprocess.run([sys.executable, SOURCE / "tools" / "bench", "instructions", "--build", BUILD, "--requests", "1000",
                                     "--json", out], capture_output=True, text=True, timeout=TIMEOUT, check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            counts = json.loads(out.read_text())
        self.assertEqual(set(counts), {"read", "write"})
        for op, taken in counts.items():
            with self.subTest(op=op):
                for name in ("BlockTask::Answer", "Queue::Complete"):
                    found = [count for function, count in taken.items() if name in function]
                    self.assertEqual(len(found), 1, sorted(taken))
                    self.assertGreater(found[0], 1)
                    self.assertLess(found[0], 1000)


if __name__ == "__main__":
    if shutil.which("valgrind") is None:
        print("no valgrind")
        sys.exit(SKIP)
    unittest.main(verbosity=2)
