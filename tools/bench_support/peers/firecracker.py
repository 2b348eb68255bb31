"""Firecracker by a configuration file, without its API. Not tried with this suite's guests."""
import json
import pathlib

from bench_support.peers.peer import Peer


def arguments(start):
    configuration = {
        "boot-source": {"kernel_image_path": start.guest, "boot_args": start.cmdline,
                        **({"initrd_path": start.initrd} if start.initrd else {})},
        "machine-config": {"vcpu_count": start.cpus, "mem_size_mib": start.memory_mib},
        "drives": [{"drive_id": f"d{number}", "path_on_host": path, "is_root_device": False, "is_read_only": True}
                   for number, path in enumerate(start.disks)],
        "network-interfaces": [{"iface_id": f"n{number}", "host_dev_name": tap} for number, tap in enumerate(start.taps)],
    }
    path = pathlib.Path(start.directory) / f"firecracker-{abs(hash(start))}.json"
    if start.directory:
        path.write_text(json.dumps(configuration), encoding="utf-8")
    return ["--no-api", "--level", "Error", "--config-file", str(path)]


PEER = Peer("firecracker", "Firecracker", ("firecracker",), arguments, ("pvh", "linux"), exit_port=False)
