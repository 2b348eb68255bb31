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


def _favordynmods():
    """Whether the cgroup file systems are mounted for quick moves of threads, on which creating a VM waits."""
    mounts = [line.split() for line in (_read("/proc/self/mounts") or "").splitlines()]
    options = [mount[3].split(",") for mount in mounts if len(mount) > 3 and mount[2].startswith("cgroup")]
    return {"cgroup": "v2" if any(mount[2] == "cgroup2" for mount in mounts if len(mount) > 2) else "v1",
            "favordynmods": any("favordynmods" in words for words in options)}


def _memory_mib():
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def load():
    return (_read("/proc/loadavg") or "").split()[:3]


def version(program, option="--version"):
    """The first line that the program says of its version, or None."""
    try:
        out = subprocess.run([program, option], capture_output=True, text=True, timeout=10, check=False).stdout
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
        "memory_mib": _memory_mib(),
        "cgroups": _favordynmods(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none visible",
        "transparent_hugepage": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": load(),
    }
