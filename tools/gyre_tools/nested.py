"""The nested machine: true hardware-style KVM where the host's own cannot run a stock kernel.

QEMU's TCG emulates SVM with nested paging; a Debian cloud kernel in it (the outer machine) loads kvm-amd, and a
given shell script runs there with the files that it was given. The script comes by fw_cfg and the files in an ext4
image, which is kept and found again as long as the files are the same. The outcome comes by QEMU's exit port and
by markers on the serial console; both must say success.
"""
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time

from . import build, initramfs, kernels, util

MARK = "@@gyre:"
SUCCESS = 42                      # what the outer machine writes to the exit port; QEMU's status is 2 v + 1
FAILURE = 21
START_BOUND = 60                  # seconds to the start of the script; 4 are usual on an idle machine
IMAGES_KEPT = 4
TROUBLE = re.compile(r"soft lockup|BUG: |Call Trace|Kernel panic")
HERE = pathlib.Path(__file__).resolve().parent
INIT = HERE / "nested_init.sh"
LOAD_KVM = HERE / "load_kvm.sh"


@dataclasses.dataclass(frozen=True)
class Boot:
    """How an image is started."""
    init: str = "/init"
    mode: str = "ro"                  # "rw": what is written is lost with the machine
    start_bound: int = START_BOUND


@dataclasses.dataclass
class Result:
    output: str            # the script's console output, without our markers
    status: int | None     # the script's exit status; None where the machine did not get that far
    reason: str            # one line: "ok", or what went wrong
    marks: list            # (seconds since the start, marker) in order
    seconds: float

    @property
    def ok(self):
        return self.status == 0


class Console:
    """Takes the serial stream apart into lines; markers go to the list, the rest to the output and the stream."""

    def __init__(self, stream):
        self._stream = stream
        self._pending = b""
        self._shown = False
        self.marks = []
        self.output = []
        self._started = time.monotonic()

    def feed(self, data):
        self._pending += data
        while b"\n" in self._pending:
            line, self._pending = self._pending.split(b"\n", 1)
            self._line(line.rstrip(b"\r") + b"\n")
        # A prompt has no end of line; hold back only what may become a marker.
        if self._pending and self._shown and not MARK.encode().startswith(self._pending[:len(MARK)]):
            self._emit(self._pending)
            self._pending = b""

    def finish(self):
        if self._pending:
            self._line(self._pending)
            self._pending = b""

    def reached(self, marker):
        return any(text.split(" ")[0] == marker for _, text in self.marks)

    def _line(self, line):
        text = line.decode(errors="replace")
        if text.startswith(MARK):
            marker = text[len(MARK):].strip()
            self.marks.append((time.monotonic() - self._started, marker))
            self._shown = self._shown or marker == "body"
            if marker.startswith(("case ", "stderr ")):
                self.output.append(text)
        else:
            self._emit(line)

    def _emit(self, data):
        self.output.append(data.decode(errors="replace"))
        if self._shown and self._stream:
            self._stream.write(data)
            self._stream.flush()


def run_nested(script, files, timeout=60, *, memory=2048, console_input=None, stream=None, kernel=None):
    """Runs a shell script in the outer machine, as root, and returns its Result.

    files maps absolute paths there to files here; a file's mode goes along. timeout is in seconds, for all of it.
    console_input is a file descriptor for the machine's console (none by default); stream gets the script's output
    as it comes (a binary file). A machine that hangs or dies before the script starts is started once more, with a
    line that says so; a script that started is never repeated.
    """
    kernel = kernel or kernels.default()
    return run_image(build_image(files, kernel), kernel, timeout, Boot(), script=script, memory=memory,
                     console_input=console_input, stream=stream)


def run_image(image, kernel, timeout, boot, *, script="", memory=2048, console_input=None, stream=None):
    """The same on an image that has its own first process, which prints the markers and ends the machine."""
    for attempt in range(2):
        result, started = _run_once(boot, script, image, kernel, timeout, memory, console_input, stream)
        if started or result.reason == "interrupted" or attempt:
            return result
        print(f"nested machine: {result.reason} before the script's start; starting it once more", file=sys.stderr, flush=True)
    raise AssertionError("unreachable")


def build_image(files, kernel):
    """The ext4 root image with these files; made unless an equal one is in the cache."""
    sources = {path: pathlib.Path(source).resolve() for path, source in files.items()}
    busybox, applets = initramfs.busybox()
    sources["/bin/busybox"] = busybox
    sources["/bin/outb"] = build.helper("outb")
    sources["/init"] = INIT
    sources["/load_kvm.sh"] = LOAD_KVM
    for order, module in enumerate(kernel.modules(kernels.OUTER)):
        sources[f"/modules/{order:02}-{module.name}"] = module
    directory = util.CACHE / "nested"
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"root-{_key(sources)}.ext4"
    with open(directory / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            target.touch()
        else:
            _make_image(sources, applets, target)
            _forget_old_images(directory)
    return target


def _make_image(sources, applets, target):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".stage-") as name:
        stage = pathlib.Path(name) / "root"
        _stage(sources, applets, stage)
        part = pathlib.Path(name) / "image"
        size = sum(source.stat().st_size for source in sources.values())
        mebibytes = size * 21 // 20 // (1 << 20) + 16
        util.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit",
                  "-E", "lazy_itable_init=1,nodiscard", "-m0", "-d", stage, part, f"{mebibytes}M"], timeout=120)
        part.replace(target)


def _key(sources):
    digest = hashlib.sha256()
    for path, source in sorted(sources.items()):
        status = source.stat()
        digest.update(f"{path}\0{source}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_mode}\n".encode())
    return digest.hexdigest()[:16]


def _stage(sources, applets, stage):
    for directory in ("bin", "dev", "proc", "sys", "tmp", "modules"):
        (stage / directory).mkdir(parents=True)
    for path, source in sources.items():
        target = stage / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy(source, target)
    for applet in applets:
        (stage / "bin" / applet).symlink_to("busybox")


def _forget_old_images(directory):
    images = sorted(directory.glob("root-*.ext4"), key=lambda path: path.stat().st_mtime)
    for image in images[:-IMAGES_KEPT]:
        if time.time() - image.stat().st_mtime > 3600:  # a running machine may still read a younger one
            image.unlink(missing_ok=True)


def _command(boot, image, kernel, memory, script_file):
    append = ("console=ttyS0 reboot=t panic=-1 mitigations=off quiet cryptomgr.notests lpj=10000000 "
              # A busy host makes the emulated clocks look as if they ran apart.
              "tsc=reliable "
              f"root=/dev/nvme0n1 rootfstype=ext4 {boot.mode} init={boot.init}")
    protection = "readonly=on" if boot.mode == "ro" else "snapshot=on"
    return ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC", "-smp", "1",
            "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
            "-no-reboot", "-kernel", str(kernel.bzimage), "-append", append,
            "-drive", f"file={image},if=none,id=d0,format=raw,{protection}", "-device", "nvme,serial=a,drive=d0",
            "-fw_cfg", f"name=opt/run,file={script_file}",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


def _run_once(boot, script, image, kernel, timeout, memory, console_input, stream):
    started = time.monotonic()
    console = Console(stream)
    with tempfile.TemporaryDirectory(prefix="gyre-nested-") as directory, _terminal_kept(console_input):
        script_file = pathlib.Path(directory) / "run.sh"
        script_file.write_text(script)
        with open(pathlib.Path(directory) / "stderr", "w+b") as errors:
            try:
                process = subprocess.Popen(
                    _command(boot, image, kernel, memory, script_file), stdout=subprocess.PIPE, stderr=errors,
                    stdin=console_input if console_input is not None else subprocess.DEVNULL)
            except FileNotFoundError as error:
                raise util.ToolError("qemu-system-x86_64 is not installed (tools/install-deps installs it)") from error
            try:
                hang = _pump(process, console, started, timeout, boot.start_bound)
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                hang = hang or "QEMU closed its console and did not end"
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                process.stdout.close()
            errors.seek(0)
            error_text = errors.read().decode(errors="replace")
    console.finish()
    result = _judge(console, process.returncode, hang, error_text)
    result.seconds = time.monotonic() - started
    return result, console.reached("body")


def _pump(process, console, started, timeout, start_bound):
    """Reads the console until its end or a bound; returns None, or what hung."""
    descriptor = process.stdout.fileno()
    while True:
        elapsed = time.monotonic() - started
        bound = timeout if console.reached("body") else min(timeout, start_bound)
        if elapsed > bound:
            process.kill()
            place = console.marks[-1][1] if console.marks else "nothing"
            return f"no end within {bound} s; last reached: {place}"
        ready, _, _ = select.select([descriptor], [], [], min(1.0, bound - elapsed + 0.01))
        if ready:
            data = os.read(descriptor, 65536)
            if not data:
                return None
            console.feed(data)


def _judge(console, qemu_status, hang, error_text):
    output = "".join(console.output)
    status = None
    for _, marker in console.marks:
        match = re.fullmatch(r"done (\d+)", marker)
        if match:
            status = int(match.group(1))
    if hang:
        status, reason = None, hang
    elif status == 0 and qemu_status == 2 * SUCCESS + 1:
        reason = "ok"
    elif status and qemu_status == 2 * FAILURE + 1:
        reason = f"the script ended with status {status}"
    elif qemu_status == 1:
        lines = [line for line in error_text.splitlines() if "TCG doesn't support" not in line]
        status, reason = None, f"QEMU failed: {lines[-1] if lines else 'no message'}"
    else:
        trouble = TROUBLE.search(output)
        status = None
        reason = f"the outer machine died (QEMU status {qemu_status}{', ' + trouble.group(0) if trouble else ''})"
    return Result(output, status, reason, console.marks, 0.0)


@contextlib.contextmanager
def _terminal_kept(descriptor):
    """QEMU makes a terminal raw; one that is killed leaves it so, and SIGTERM would leave QEMU behind."""
    saved = termios.tcgetattr(descriptor) if descriptor is not None and os.isatty(descriptor) else None
    on_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _interrupt) if on_main else None
    try:
        yield
    finally:
        if on_main:
            signal.signal(signal.SIGTERM, previous)
        if saved:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)


def _interrupt(_signal, _frame):
    raise KeyboardInterrupt
