"""Can this host's KVM run a stock kernel? Found by trying: tools/probe/host_probe.cc."""
import dataclasses
import os

from . import build, util

DIRECT = "direct"    # stock kernels run on this host's KVM
NESTED = "nested"    # there is a KVM, but not for stock kernels
ABSENT = "absent"    # no usable /dev/kvm
_STATUS = {0: DIRECT, 3: NESTED, 4: ABSENT}


@dataclasses.dataclass(frozen=True)
class HostKvm:
    kind: str
    facts: str  # the probe's line

    @property
    def direct(self):
        return self.kind == DIRECT


def probe():
    """Runs the probe. GYRE_KVM=direct|nested|absent overrides its finding (for trying the other ways out)."""
    forced = os.environ.get("GYRE_KVM")
    if forced:
        if forced not in _STATUS.values():
            raise util.ToolError(f"GYRE_KVM is '{forced}', not one of {', '.join(_STATUS.values())}")
        return HostKvm(forced, "chosen by GYRE_KVM")
    result = util.run([build.helper("host_probe")], timeout=30, check=False)
    kind = _STATUS.get(result.returncode)
    if kind is None:
        raise util.ToolError(f"the KVM probe ended with status {result.returncode}: {result.stdout.strip()}")
    return HostKvm(kind, result.stdout.strip())
