"""tools/quickstart: from a fresh checkout to a stock Debian kernel's userland in gyred, in one command."""
import argparse
import os
import shlex
import signal
import subprocess
import sys

from . import build, hostkvm, initramfs, kernels, nested, util

INIT = util.ROOT / "tools" / "guest" / "greeting-init"
CMDLINE = "console=ttyS0 loglevel=3 reboot=k panic=-1 cryptomgr.notests random.trust_cpu=on"
DIRECT_TIMEOUT = 60
NESTED_TIMEOUT = 300


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        description="Installs what is missing, builds gyred, and boots a stock Debian kernel with a busybox initramfs in "
                    "it, with the guest's console on this terminal. The exit status is gyred's.")
    parser.add_argument("--kernel", metavar="SERIES", help="the kernel's series, such as 6.12 (default: Debian's own)")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="256M")
    parser.add_argument("--timeout", type=int, help="seconds until the guest is given up "
                        f"(default: {DIRECT_TIMEOUT}; {NESTED_TIMEOUT} in the nested machine)")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    util.say("quickstart: building gyred (the first time takes a minute or two)")
    gyred = build.daemon()
    util.say("quickstart: fetching a stock kernel, making an initramfs")
    kernel = kernels.get(arguments.kernel) if arguments.kernel else kernels.default()
    initrd = initramfs.build(INIT, "greeting")
    host = hostkvm.probe()

    def command(program, kernel_path, initrd_path):
        return [str(program), "--kernel", str(kernel_path), "--initrd", str(initrd_path), "--cmdline", CMDLINE,
                "--memory", arguments.memory, "--cpus", str(arguments.cpus), "--serial", "stdio",
                "--action", "reboot=shutdown"]

    if host.direct:
        words = command(_shown(gyred), _shown(kernel.bzimage), _shown(initrd))
        util.say(f"quickstart: {shlex.join(words)}")
        status = _run_direct(words, arguments.timeout or DIRECT_TIMEOUT)
    else:
        util.say(f"quickstart: {host.facts}; so the same gyred runs in a machine with a KVM that can: an emulated "
                 "one, which takes some 15 seconds")
        words = command("/gyre/gyred", f"/gyre/{kernel.series}/bzImage", "/gyre/initrd")
        util.say(f"quickstart: {shlex.join(words)}")
        files = {words[0]: gyred, words[2]: kernel.bzimage, words[4]: initrd}
        status = _run_nested(words, files, arguments.timeout or NESTED_TIMEOUT)
    return status


def _shown(path):
    return os.path.relpath(path)


def _run_direct(words, timeout):
    process = subprocess.Popen(words)
    try:
        return process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise util.ToolError(f"the guest did not end within {timeout} s") from None
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        return 130


def _run_nested(words, files, timeout):
    console_input = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    script = shlex.join(words) + "\n"
    result = nested.run_nested(script, files, timeout, memory=1024, console_input=console_input,
                               stream=sys.stdout.buffer)
    if result.status is None:
        raise util.ToolError(f"nested machine: {result.reason}")
    return result.status


if __name__ == "__main__":
    util.run_main(main)
