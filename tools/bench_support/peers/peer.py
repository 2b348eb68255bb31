"""What a peer is, and what it is asked to start."""
import dataclasses
import pathlib
import typing


class Unsupported(Exception):
    """The peer has no way to start that; the text says what it lacks."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A guest that uses the serial port on stdout and ends by itself, or holds."""
    guest: str
    protocol: str = "pvh"      # what kind of image it is: guest_images.PROTOCOLS
    cpus: int = 1
    memory_mib: int = 128
    disks: tuple = ()          # raw images, read-only
    taps: tuple = ()           # names of tap interfaces, of the VMM's making
    initrd: str = ""           # with a Linux kernel: its initramfs
    cmdline: str = ""          # the guest's
    directory: str = ""        # for files that a VMM needs beside; empty when the VM is not going to be started


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    title: str
    programs: tuple            # file names, the first that is found; of one that we build its path in the build directory
    arguments: typing.Callable  # of a Start: its command line without the program; may raise Unsupported
    protocols: tuple           # that it takes
    version_option: str = "--version"
    built: bool = False
    nested: bool = False       # can be taken into the nested machine, with the files of `share`
    share: tuple = ()          # firmware and the like that it looks for in /share
    exit_port: bool = True     # port 0xf4 ends it with status (v << 1) | 1; else the guest ends it another way, with status 0


@dataclasses.dataclass(frozen=True)
class Installed:
    peer: Peer
    program: pathlib.Path
    version: str | None

    @property
    def name(self):
        return self.peer.name

    def command(self, start):
        if start.protocol not in self.peer.protocols:
            raise Unsupported(f"does not start a {start.protocol} image")
        return [str(self.program), *self.peer.arguments(start)]

    @property
    def title(self):
        return self.peer.title

    def ended_well(self, status):
        return status == (1 if self.peer.exit_port else 0)
