"""How far this keeper reaches: what it may signal, and in plain words what may outlive its run here.

If it fails, the keeper does not start.
"""

from leasehold.keeper.containment import CONTROLLERS, Groups
from leasehold.keeper.procfs import read_bytes

CAP_KILL = 5


def capable(number: int) -> bool:
    """Have we that capability in effect?"""
    for line in (read_bytes("/proc/self/status") or b"").splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def containment(groups: Groups | None) -> dict[str, object]:
    """The rung, and what it gives and does not give; `hello` answers it and `doctor` prints it."""
    rung, enforced = ("cgroup", sorted(groups.controllers)) if groups is not None else ("subreaper", [])
    return {
        "rung": rung,
        "enforced": enforced,
        "missing": sorted(set(CONTROLLERS) - set(enforced)),
        "cannot_catch": cannot_catch(rung, None),
        "agent_user": None,
    }


def cannot_catch(rung: str, agent_user: str | None) -> list[str]:
    """What may outlive its run, or the keeper, here; each sentence has its test."""
    found = ["what another service starts for an agent (docker, cron, at, systemd): it belongs to that service"]
    nameless = "has left its session, cleaned its environment and changed its oom_score_adj"
    until = "it is killed when the last run that can have started it has ended"
    if rung == "subreaper":
        found.append(f"a daemon that {nameless}, while other runs live: {until}")
        found.append(f"a daemon that {nameless}, once the keeper itself was killed")
        if not capable(CAP_KILL):
            found.append("a program that becomes another user (sudo, setuid): its run is unkillable until it ends")
    elif agent_user is None:
        found.append(f"a daemon that {nameless} and moved itself to another control group: {until}")
    if agent_user is None:
        found.append("an agent that means harm: it runs as the keeper's user and may kill the keeper")
    return found
