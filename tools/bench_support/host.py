"""What a reader of a measurement must know of the machine that it was made on."""
import datetime
import os
import pathlib
import platform
import subprocess


def _read(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _cpu():
    facts = {}
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return {"model": facts.get("model name"), "count": os.cpu_count(),
            "virtualised": "hypervisor" in facts.get("flags", "").split()}


def _kvm():
    modules = sorted(path.name for path in pathlib.Path("/sys/module").glob("kvm*"))
    parameters = {}
    for module in modules:
        for name in ("nx_huge_pages", "halt_poll_ns", "nested", "ept", "npt"):
            value = _read(f"/sys/module/{module}/parameters/{name}")
            if value is not None:
                parameters[f"{module}.{name}"] = value
    return {"modules": modules, "parameters": parameters}


def load():
    return (_read("/proc/loadavg") or "").split()[:3]


def version(program):
    """The first line that `program --version` says, or None."""
    try:
        out = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return out.splitlines()[0] if out else None


def commit(root):
    result = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def facts(root):
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(root),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "kvm": _kvm(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none visible",
        "transparent_hugepage": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": load(),
    }
