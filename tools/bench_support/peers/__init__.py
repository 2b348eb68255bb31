"""The VMMs that take part, one module each: how it is started with a given guest. Which of them are on this machine, or were
named by --peer, is found out here."""
import os
import pathlib
import shutil

from bench_support import host
from bench_support.peers import (cloud_hypervisor, crosvm, firecracker, floor, gyre, kvmtool, qemu_microvm, qemu_q35,
                                 stratovirt)
from bench_support.peers.peer import Installed, Peer, Start, Unsupported  # noqa: F401: what suites use

# In the order in which they take turns.
ALL = tuple(module.PEER for module in (floor, gyre, qemu_microvm, qemu_q35, kvmtool, firecracker, cloud_hypervisor, crosvm,
                                       stratovirt))
NAMES = tuple(peer.name for peer in ALL)


def find(build, named, wanted=None):
    """(the peers that are here, {peer: why it is not}). named: name -> path from the command line; wanted: only these."""
    found, missing = [], {}
    for peer in ALL:
        if wanted and peer.name not in wanted:
            continue
        path = _program(peer, build, named)
        if path is None:
            missing[peer.name] = f"no {' or '.join(peer.programs)} here; --peer {peer.name}=PATH names one"
        elif not os.access(path, os.X_OK):
            missing[peer.name] = f"{path} is not a program"
        else:
            version = host.version(path, peer.version_option) if peer.version_option else None
            found.append(Installed(peer, path, version))
    return found, missing


def _program(peer, build, named):
    if peer.name in named:
        return pathlib.Path(named[peer.name]).resolve()
    if peer.built:
        return build / peer.programs[0]
    paths = (shutil.which(program) for program in peer.programs)
    return next((pathlib.Path(path) for path in paths if path), None)
