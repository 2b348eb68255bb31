#!/usr/bin/env python3
"""tools/bench without a VMM: statistics, verdicts, turns, guests, schema and report: bench_test.py SOURCE_DIRECTORY."""
import html.parser
import json
import pathlib
import random
import re
import struct
import sys
import tempfile
import types
import unittest
import xml.etree.ElementTree

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.path.insert(0, str(SOURCE / "tools"))
from bench_support import (document, driven, guest_images, linux, net, parallel, peers, plots, report, results,  # noqa: E402
                           schema, session, stats, suites, vsock)


def noisy(median, count=30, spread=0.02, seed=7):
    source = random.Random(seed)
    return [median * (1 + source.uniform(-spread, spread)) for _ in range(count)]


class Percentiles(unittest.TestCase):
    def test_nearest_rank(self):
        values = list(range(1, 101))
        random.Random(3).shuffle(values)
        self.assertEqual([stats.percentile(values, p) for p in (0, 1, 50, 90, 99, 100)], [1, 1, 50, 90, 99, 100])
        self.assertEqual(stats.percentile([5, 3], 50), 3)
        self.assertEqual(stats.percentile([4], 99), 4)

    def test_summary(self):
        summary = stats.summarise([3.0, 1.0, 2.0, 10.0])
        self.assertEqual((summary["count"], summary["median"], summary["least"], summary["most"]), (4, 2.5, 1.0, 10.0))


class Bootstrap(unittest.TestCase):
    def test_interval_of_constants_is_the_ratio(self):
        self.assertEqual(stats.bootstrap([3.0] * 9, [2.0] * 9), (1.5, 1.5))

    def test_same_samples_same_interval(self):
        self.assertEqual(stats.bootstrap(noisy(1), noisy(2, seed=8)), stats.bootstrap(noisy(1), noisy(2, seed=8)))

    def test_interval_covers_the_truth_as_often_as_it_says(self):
        # Of lognormal samples with a true ratio of medians of 1.25: near 95 % of the intervals hold it.
        source = random.Random(11)
        held = 0
        trials = 200
        for _ in range(trials):
            ours = [1.25 * source.lognormvariate(0, 0.3) for _ in range(30)]
            theirs = [source.lognormvariate(0, 0.3) for _ in range(30)]
            low, high = stats.bootstrap(ours, theirs, resamples=400)
            held += low <= 1.25 <= high
        self.assertGreaterEqual(held / trials, 0.90)
        self.assertLess(held / trials, 1.0)

    def test_interval_narrows_with_samples(self):
        def width(count):
            low, high = stats.bootstrap(noisy(1, count, 0.3), noisy(1, count, 0.3, seed=8))
            return high - low
        self.assertLess(width(400), width(25))


class Verdicts(unittest.TestCase):
    def test_clear_difference(self):
        less = stats.compare(noisy(1), noisy(2, seed=8))
        self.assertEqual(less.verdict, stats.LESS)
        self.assertTrue(less.low < 0.5 < less.high < 0.6)
        self.assertEqual(stats.compare(noisy(2), noisy(1, seed=8)).verdict, stats.MORE)

    def test_same_thing_twice_has_none(self):
        same = stats.compare(noisy(1, spread=0.3), noisy(1, spread=0.3, seed=8))
        self.assertEqual((same.verdict, same.why), (stats.UNDECIDED, "the interval holds 1"))

    def test_none_where_a_peer_drifts_by_as_much(self):
        # The interval alone would call it: the halves of one peer differ more than the two peers do.
        ours = noisy(1.0, 10, 0.001) + noisy(1.3, 20, 0.001)
        theirs = noisy(1.1, 30, 0.001, seed=8)
        comparison = stats.compare(ours, theirs)
        self.assertGreater(comparison.low, 0)
        self.assertFalse(comparison.low <= 1 <= comparison.high)
        self.assertEqual(comparison.verdict, stats.UNDECIDED)
        self.assertIn("drifted", comparison.why)

    def test_none_of_few_samples(self):
        few = stats.compare([1.0] * 4, [2.0] * 30)
        self.assertEqual((few.verdict, few.why), (stats.UNDECIDED, "only 4 samples"))
        self.assertIsNone(few.reaches(most=1))

    def test_no_ratio_to_nothing(self):
        self.assertIsNone(stats.compare([1.0], []))
        self.assertIsNone(stats.compare([1.0] * 9, [0.0] * 9))

    def test_targets_need_the_whole_interval(self):
        comparison = stats.compare(noisy(1.2), noisy(1, seed=8))
        self.assertIs(comparison.reaches(most=1.3), True)
        self.assertIs(comparison.reaches(most=1.1), False)
        self.assertIsNone(comparison.reaches(most=comparison.ratio))
        self.assertIs(comparison.reaches(least=1.1), True)
        self.assertIs(comparison.reaches(least=1.3), False)

    def test_more_is_better_for_rates(self):
        rates = stats.compare(noisy(10), noisy(1, seed=8))
        self.assertEqual(results.is_better("rate", rates.verdict), True)
        self.assertEqual(results.is_better("exit", rates.verdict), False)


def two_peers(quantity, ours, theirs, name="a", parameter=None):
    case = results.Case(name, "a case", "group", parameter)
    case.samples = {quantity: {results.OURS: list(ours), results.FLOOR: list(theirs)}}
    return case


class Targets(unittest.TestCase):
    def test_growth_is_what_each_step_adds(self):
        suite = results.Suite("s", "S", [], [two_peers("exit", [5.0] * 9, [2.0] * 9, "one", 1),
                                             two_peers("exit", [17.0] * 9, [6.0] * 9, "five", 5)])
        suite.aim_growth("each further", "one", "five", "exit", results.FLOOR, most=2)
        self.assertEqual([(target.reached, target.measured) for target in suite.targets], [(False, "3 (3 to 3)")])

    def test_growth_that_the_noise_hides_is_open(self):
        suite = results.Suite("s", "S", [], [two_peers("exit", [5.0] * 9, [2.0] * 9, "one", 1),
                                             two_peers("exit", [6.0] * 9, [1.0] * 9, "five", 5)])
        suite.aim_growth("each further", "one", "five", "exit", results.FLOOR, most=2)
        self.assertEqual([target.reached for target in suite.targets], [None])

    def test_absolute(self):
        suite = results.Suite("s", "S", [], [two_peers("memory", [1.0, 1.5, 2.0], [1.0])])
        for most, reached in ((2, True), (0.5, False), (1.5, None)):
            suite.targets.clear()
            suite.aim_absolute("memory", "a", "memory", most)
            self.assertIs(suite.targets[0].reached, reached)

    def test_none_without_samples(self):
        suite = results.Suite("s", "S", [], [results.Case("a", "a")])
        suite.aim("x", "a", "exit", results.FLOOR, most=1)
        suite.aim_absolute("x", "a", "exit", 1)
        suite.aim_growth("x", "a", "b", "exit", results.FLOOR, 1)
        self.assertEqual(suite.targets, [])


class Turns(unittest.TestCase):
    def turns(self, seconds, runs, warmup, budget, failing=()):
        case, order = results.Case("a", "a"), []

        def once(peer, _start):
            order.append(peer.name)
            if peer.name in failing:
                raise session.Failure("no")
            return {"exit": 1.0}

        usable = [(types.SimpleNamespace(name=name), None, each) for name, each in seconds]
        session.take_turns(case, usable, runs, warmup, budget, once)
        return case, "".join(order)

    def test_alternate(self):
        case, order = self.turns((("A", 0.01), ("B", 0.01)), 3, 1, 100)
        self.assertEqual(order, "ABABABAB")
        self.assertEqual({peer: len(values) for peer, values in case.samples["exit"].items()}, {"A": 3, "B": 3})

    def test_slow_peer_is_spread_over_the_run(self):
        _, order = self.turns((("A", 0.01), ("B", 3)), 20, 0, 30)
        self.assertEqual(order.count("A"), 20)
        self.assertEqual(order.count("B"), 10)
        self.assertEqual(max(len(run) for run in re.findall("A+", order)), 2)

    def test_one_hiccup_makes_nobody_slow(self):
        # The first try took long; the warm-up shows that it need not.
        case, _ = self.turns((("A", 0.01), ("B", 15)), 20, 1, 30)
        self.assertEqual(len(case.values("exit", "B")), 20)

    def test_slow_is_who_always_is(self):
        seconds = {"gyre": [9, 9, 9], "qemu-microvm": [9, 0.1], "qemu-q35": [3, 2, 4]}
        everyone = [types.SimpleNamespace(name=name) for name in seconds]
        with tempfile.TemporaryDirectory() as directory:
            run = session.Session(pathlib.Path(directory), pathlib.Path(directory), everyone)
            run.one_start = lambda peer, _start: {"exit_ns": seconds[peer.name].pop(0) * 1e9}
            run.survey()
        self.assertEqual(run.slow, {"qemu-q35": 2})
        case = results.Case("a", "a")
        self.assertEqual([peer.name for peer, _, _ in run.usable(case, lambda _: None, lambda *_: None)], ["gyre", "qemu-microvm"])
        self.assertIn("only in base cases", case.skipped["qemu-q35"])
        self.assertEqual(len(run.usable(case, lambda _: None, lambda *_: None, base=True)), 3)

    def test_failures_are_told_and_end_it(self):
        case, order = self.turns((("A", 0.01), ("B", 0.01)), 30, 0, 100, failing="B")
        self.assertEqual(case.failures, {"B: no": session.MOST_FAILURES + 1})
        self.assertNotIn("B", case.samples["exit"])
        self.assertLess(len(order), 12)


class Guests(unittest.TestCase):
    def test_pvh_note_names_the_code(self):
        image = guest_images.image("pvh", guest_images.hello)
        self.assertEqual(image[:6], b"\x7fELF\x02\x01")
        kind, _, offset, _, address = struct.unpack_from("<IIQQQ", image, 64)
        self.assertEqual((kind, offset, address), (1, 0, guest_images.LOAD_ADDRESS))
        note, = struct.unpack_from("<Q", image, 64 + 56 + 8)
        self.assertEqual(struct.unpack_from("<III4s", image, note), (4, 4, 18, b"Xen\0"))
        entry, = struct.unpack_from("<I", image, note + 16)
        self.assertTrue(image[entry - guest_images.LOAD_ADDRESS:].startswith(guest_images.hello()))

    def test_linux_has_no_note(self):
        self.assertEqual(struct.unpack_from("<H", guest_images.image("linux", guest_images.hello), 56), (1,))

    def test_multiboot_sums_to_nothing(self):
        magic, flags, checksum = struct.unpack_from("<III", guest_images.image("multiboot", guest_images.hello))
        self.assertEqual((magic, (magic + flags + checksum) & 0xffffffff), (0x1badb002, 0))

    def test_bzimage_header(self):
        image = guest_images.image("bzimage", guest_images.hello)
        self.assertEqual((image[0x202:0x206], image[0x1fe:0x200], image[0x236] & 1), (b"HdrS", b"\x55\xaa", 1))
        setup = (image[0x1f1] + 1) * 512
        self.assertTrue(image[setup:].startswith(guest_images.hello()))
        self.assertTrue(image[setup + 0x200:].startswith(guest_images.hello()))
        jump = 0x202 + image[0x201]
        self.assertTrue(image[jump:].startswith(guest_images.hello(bits=16)))

    def test_more_reads_change_the_count_alone(self):
        few, many = (guest_images.image("pvh", guest_images.port_reads, count) for count in (1, 1000))
        self.assertEqual(len(few), len(many))
        self.assertLessEqual(sum(a != b for a, b in zip(few, many)), 4)


class Peers(unittest.TestCase):
    def test_each_has_a_command_or_a_reason(self):
        with tempfile.TemporaryDirectory() as directory:
            for peer in peers.ALL:
                installed = peers.Installed(peer, pathlib.Path("/bin/vmm"), None)
                for protocol in guest_images.PROTOCOLS:
                    start = peers.Start("guest", protocol, cpus=2, memory_mib=256, disks=("disk0",), taps=("tap0",),
                                        directory=directory)
                    if protocol in peer.protocols:
                        command = installed.command(start)
                        told = " ".join(command) + "".join(path.read_text() for path in pathlib.Path(directory).iterdir())
                        self.assertEqual(command[0], "/bin/vmm")
                        for word in ("guest", "256", "disk0", "tap0"):
                            self.assertIn(word, told, peer.name)
                    else:
                        self.assertRaises(peers.Unsupported, installed.command, start)

    def test_named_one_is_taken(self):
        with tempfile.TemporaryDirectory() as directory:
            program = pathlib.Path(directory) / "vmm"
            program.write_text("#!/bin/sh\necho VMM 1.2\n")
            program.chmod(0o755)
            found, missing = peers.find(pathlib.Path(directory), {"firecracker": str(program)}, ("firecracker", "crosvm"))
        self.assertEqual([(peer.name, peer.version) for peer in found], [("firecracker", "VMM 1.2")])
        self.assertEqual(len(missing) + len(found), 2 if "crosvm" in missing else 1)

    def test_microvm_says_how_many_devices_it_has(self):
        microvm = next(peer for peer in peers.ALL if peer.name == "qemu-microvm")
        self.assertRaises(peers.Unsupported, microvm.arguments, peers.Start("guest", disks=("d",) * 9))


class Driven(unittest.TestCase):
    def test_the_vcpu_is_no_work_of_a_device(self):
        threads = {"vcpu": 5, "CPU 0/KVM": 7, "gyred": 11, "iou-wrk-": 13}
        self.assertEqual(sum(driven.working({"threads": threads}).values()), 24)

    def test_a_peer_that_does_not_begin_says_why(self):
        with self.assertRaisesRegex(session.Failure, "did not begin: no tap"):
            driven.measure(["sh", "-c", "echo no tap >&2"], ["true"], True)

    def test_what_the_program_outside_says_is_the_result(self):
        outside = ["sh", "-c", 'echo "{\\"frames\\": 5}"']
        inside = ["sh", "-c", "echo begin; echo phase 6 1 0"]
        self.assertEqual(driven.measure(inside, outside, True), {"frames": 5, "guest": (6, 1, 0)})
        with self.assertRaisesRegex(session.Failure, "2 errors"):
            driven.measure(["sh", "-c", "echo begin; echo phase 6 1 2"], outside, True)
        with self.assertRaisesRegex(session.Failure, "outside is ill"):
            driven.measure(inside, ["sh", "-c", "echo outside is ill >&2; exit 1"], True)

    def test_a_floor_is_ended(self):
        self.assertEqual(driven.measure(["sh", "-c", "echo begin; exec sleep 60"], ["sh", "-c", "echo {}"], False), {})

    def test_a_floor_that_is_near_bounds_what_is_wanted_of_us(self):
        case = results.Case("x", "x")
        self.assertEqual(net.least_of_qemu(case), (1.5, ""))
        case.samples["packets_per_cpu"] = {results.FLOOR: [400.0], "qemu-microvm": [100.0]}
        self.assertEqual(net.least_of_qemu(case), (1.5, ""))
        case.samples["packets_per_cpu"] = {results.FLOOR: [120.0], "qemu-microvm": [100.0]}
        least, why = net.least_of_qemu(case)
        self.assertAlmostEqual(least, 1.08)
        self.assertIn("1.20", why)

    def test_cases_are_named_once_and_a_short_run_has_each_kind(self):
        for module in (net, vsock):
            names = [case.name for case, *_ in module.cases(False)]
            self.assertEqual(len(names), len(set(names)))
            self.assertLess({case.name for case, *_ in module.cases(True)}, set(names))


def a_run():
    """A whole run as it would be measured, with every kind of thing in it."""
    suite = results.Suite("boot", "A start", ["How."], timeline=[("begin", 0, 5), ("end", 5, 9)])
    for number, parameter in enumerate((1, 4, 16), 1):
        case = two_peers("exit", noisy(2 * number), noisy(number, seed=8), f"n-{parameter}", parameter)
        case.group = "vcpus"
        suite.cases.append(case)
    idle = two_peers("idle_cpu", [0.0, 0.0], [0.0, 0.1], "idle")
    idle.skipped["other"] = "is not <here>"
    idle.failures["other: x"] = 2
    idle.details = {"gyre": {"threads": {"gyred": 1}}}
    idle.nested = True
    suite.cases.append(idle)
    suite.aim("x", "n-1", "exit", results.FLOOR, most=1)
    older = results.Suite("loop", "tools/bench loop", [], text="a <table>")
    facts = {"date": "2020-01-01", "commit": "abc", "cpu": {"model": "CPU", "count": 2, "virtualised": True}, "kernel": "6.1",
             "kvm": {"modules": ["kvm"], "parameters": {"kvm.nx_huge_pages": "Y"}}, "memory_mib": 1024,
             "cgroups": {"cgroup": "v2", "favordynmods": False}, "governor": "none visible", "transparent_hugepage": None,
             "load_before": ["0.0", "0.0", "0.0"], "load_after": ["0.0", "0.0", "0.0"]}
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory) / "vmm"
        program.write_bytes(b"x")
        everyone = [peers.Installed(peer, program, "1") for peer in peers.ALL]
        run = session.Session(pathlib.Path(directory), pathlib.Path(directory), everyone)
        return json.loads(json.dumps(document.make(facts, run, {"other": "not here"}, [suite, older], 12.5), allow_nan=False))


class Schema(unittest.TestCase):
    def test_a_run_is_as_it_says(self):
        self.assertEqual(schema.problems(a_run()), [])

    def test_what_is_wrong_is_named(self):
        for path, value, complaint in ((("version",), 2, "$.version"), (("seconds",), "1", "$.seconds"),
                                       (("host", "cpu", "count"), True, "$.host.cpu.count"),
                                       (("suites", 0, "cases", 0, "ratios", 0, "verdict"), "perhaps", "verdict"),
                                       (("host", "more"), 1, "more is not known")):
            run = a_run()
            place = run
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
            problems = schema.problems(run)
            self.assertEqual(len(problems), 1, problems)
            self.assertIn(complaint, problems[0])

    def test_what_is_missing_is_named(self):
        run = a_run()
        del run["suites"][0]["cases"][0]["nested"]
        self.assertEqual(schema.problems(run), ["$.suites[0].cases[0]: nested is missing"])

    def test_words_that_it_does_not_know_are_no_licence(self):
        self.assertRaises(ValueError, schema.problems, 1, {"maximum": 3})


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.outside = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


class Report(unittest.TestCase):
    def test_is_whole_in_itself(self):
        text = report.html(a_run())
        reader = Reader()
        reader.feed(text)
        self.assertEqual(reader.outside, [])
        self.assertNotIn("script", reader.tags)
        self.assertEqual(reader.tags.count("svg"), 3)  # timeline, growth, ratios
        for words in ("not comparable", "is not &lt;here&gt;", "a &lt;table&gt;", "nx_huge_pages Y", "favordynmods off"):
            self.assertIn(words, text)
        for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            xml.etree.ElementTree.fromstring(picture)

    def test_charts_take_nothing_and_zeros(self):
        self.assertEqual(plots.cdf("x", {"gyre": [1.0]}), "")
        self.assertEqual(plots.growth("x", {"gyre": [(1, 1, 1, 1)]}), "")
        self.assertEqual(plots.ratios("x", []), "")
        zeros = {"p10": 0.0, "median": 0.0, "p90": 0.0}
        xml.etree.ElementTree.fromstring(plots.bars("x", "ms", {"gyre": zeros}))
        xml.etree.ElementTree.fromstring(plots.cdf("x & y", {"gyre": [0.0, 0.0], "floor": [2.0, 2.0]}))

    def test_scale_holds_its_values_in_order(self):
        scale = plots.Scale([0.013, 880], 100, 500)
        self.assertTrue(100 <= scale(0.013) < scale(1) < scale(880) <= 500)

    def test_documentation_is_replaced_between_the_marks(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "page.md"
            path.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
            document.write_docs(path, a_run())
            once = path.read_text()
            document.write_docs(path, a_run())
            self.assertEqual(path.read_text(), once)
        self.assertTrue(once.startswith("before\n") and once.endswith("\nafter\n"))
        self.assertNotIn("old", once)
        self.assertIn("a case (nested)", once)

    def test_the_page_has_its_marks(self):
        text = (SOURCE / "docs" / "benchmarks.md").read_text()
        self.assertEqual((text.count(document.BEGIN), text.count(document.END)), (1, 1))


class Suites(unittest.TestCase):
    def test_fleet_is_told_by_its_percentiles(self):
        said = {"starts_ns": [n * 1_000_000 for n in range(1, 101)], "wall_ns": 2_000_000_000, "cpu_ns": 500_000_000}
        values = parallel._values(said, 100)
        self.assertEqual([values[f"start_{key}"] for key in ("p50", "p90", "p99", "most")], [50, 90, 99, 100])
        self.assertEqual(values["cpu"], 5)

    def test_nested_lines_are_checked(self):
        case = results.Case("userland-nested", "a kernel", nested=True)
        good = {"timed_out": False, "output": (linux.WORDS + b"\r\n").hex(), "first_byte_ns": 2_000_000_000, "exit_ns": 3_000_000_000}
        linux._note(case, "gyre", json.dumps(good) + " a warning")
        linux._note(case, "gyre", json.dumps({**good, "output": b"panic".hex()}) + " a reason")
        linux._note(case, "gyre", "sh: not found")
        self.assertEqual(case.samples["to_userland"], {"gyre": [2.0]})
        self.assertEqual(len(case.failures), 2)
        self.assertIn("a reason", " ".join(case.failures))

    def test_fewer_than_thirty_runs_are_refused(self):
        self.assertEqual(suites._runs("30"), 30)
        self.assertRaises(Exception, suites._runs, "29")
        self.assertRaises(Exception, suites._peer, "somebody=/bin/true")


if __name__ == "__main__":
    unittest.main(verbosity=2)
