"""Paths, messages and subprocesses, as every command here uses them."""
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("GYRE_CACHE", ROOT / ".cache"))
JOBS = min(2, os.cpu_count() or 1)


class ToolError(Exception):
    """A mistake of the surroundings that ends the command with one clear line."""


def say(text):
    print(text, flush=True)


def run_main(main):
    """Runs a command's main function: an expected mistake is one line on stderr and exit status 1."""
    try:
        sys.exit(main())
    except ToolError as error:
        name = pathlib.Path(sys.argv[0]).name
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)


def run(command, timeout=600, check=True, **kwargs):
    """Runs a command quietly and returns its CompletedProcess; a failure raises with the end of its output.

    The command gets its own process group, so that a timeout ends its children too.
    """
    command = [str(word) for word in command]
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.STDOUT)
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    try:
        process = subprocess.Popen(command, text=True, errors="replace", start_new_session=True, **kwargs)
    except FileNotFoundError as error:
        raise ToolError(f"{command[0]} is not installed (tools/install-deps installs it)") from error
    try:
        output, error_output = process.communicate(timeout=timeout)
    except BaseException as error:
        kill_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ToolError(f"{' '.join(command[:6])} did not end in {timeout} s") from error
        raise
    if check and process.returncode != 0:
        tail = "\n".join(((output or "") + (error_output or "")).splitlines()[-40:])
        raise ToolError(f"{' '.join(command[:6])} failed with status {process.returncode}\n{tail}")
    return subprocess.CompletedProcess(command, process.returncode, output or "", error_output or "")


def kill_group(process):
    """Ends a process that was started in a session of its own, with its children, and reaps it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def write_if_changed(path, data):
    """Writes bytes to a file by rename, so that a reader never sees half of it; keeps an equal file's time."""
    path = pathlib.Path(path)
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
