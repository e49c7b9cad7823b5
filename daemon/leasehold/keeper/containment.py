"""A cgroup v2 group per run, where the host lets us make one. If it fails, the sweep by /proc is all there is."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from leasehold.keeper.limits import FILES
from leasehold.keeper.log import log
from leasehold.keeper.procfs import SCARCE, read_bytes

ASIDE = "supervisor"
"""Where a keeper in a unit of its own puts itself: no process may sit above groups with controllers."""
CONTROLLERS = ("memory", "pids", "cpu")
"""What limits need; `io` is for counting only."""

MOVED = re.compile(rb"\b[rw]bytes=(\d+)")

PLACE = (
    "failed=$1; shift; trap 'echo $? >\"$failed\"' EXIT; "  # runs only when exec fails: after a good exec this shell is no more
    'echo 0 >"$0/cgroup.procs" || exit 125; exec "$@"'
)
"""Joins the group and becomes the agent; writes its exit status to a file when it could not."""


class Group:
    """One run's group."""

    def __init__(self, path: Path, run_id: int) -> None:
        self.path = path
        self.run_id = run_id

    def pids(self) -> list[int]:
        """Who is in it, sub-groups included."""
        found: list[int] = []
        for path in self._all():
            found += [int(pid) for pid in (read_bytes(f"{path}/cgroup.procs") or b"").split()]
        return found

    def kill(self) -> None:
        """All of it at once; a frozen group is thawed, else its members would never die."""
        self.thaw()
        self._write("cgroup.kill", "1")

    def freeze(self) -> bool:
        """Nobody in it runs from here on; False: this host cannot."""
        return self._write("cgroup.freeze", "1")

    def thaw(self) -> None:
        """All of it runs again, groups that the agent made and froze below it too."""
        with suppress(OSError):
            for path in self._all():
                with suppress(OSError):
                    (path / "cgroup.freeze").write_text("0", encoding="ascii")

    def cpu_seconds(self) -> float | None:
        """Of all that ever ran in it."""
        used = self._table("cpu.stat").get("usage_usec")
        return None if used is None else used / 1e6

    def populated(self) -> bool:
        """Is anybody left?"""
        return b"populated 1" in (read_bytes(str(self.path / "cgroup.events")) or b"")

    def usage(self) -> dict[str, object]:
        """What the run used, as far as the host's controllers count."""
        found: dict[str, object] = {}
        if (cpu := self.cpu_seconds()) is not None:
            found["cpu_seconds"] = round(cpu, 3)
        for name, file in (("memory_peak", "memory.peak"), ("pids_peak", "pids.peak")):
            if (value := read_bytes(str(self.path / file))) and value.strip().isdigit():
                found[name] = int(value)
        if (kills := self._table("memory.events").get("oom_kill")) is not None:
            found["oom_kills"] = kills
        if (moved := read_bytes(str(self.path / "io.stat"))) is not None:
            found["io_bytes"] = sum(int(count) for count in MOVED.findall(moved))
        return found

    def remove(self) -> bool:
        """Remove the empty group; False: somebody is still in it."""
        try:
            for path in reversed(self._all()):
                with suppress(FileNotFoundError):
                    path.rmdir()
        except OSError:
            return False
        return True

    def limit(self, limits: Mapping[str, int]) -> list[str]:
        """Set what can be set; the names of limits that this host does not enforce."""
        missing = []
        for name, value in limits.items():
            done = [self._write(file, fixed or str(value)) for file, fixed in FILES[name]]
            if not done[-1]:
                missing.append(name)
        return missing

    def _all(self) -> list[Path]:
        """Itself and every group below it, those above first. The agent makes and removes them while we look."""
        found = [self.path]
        for path in found:  # grows as we go: as deep as they like, and no recursion
            try:
                with os.scandir(path) as entries:
                    found += [path / each.name for each in entries if each.is_dir(follow_symlinks=False)]
            except OSError as error:
                if error.errno in SCARCE:
                    raise
        return found

    def _write(self, name: str, value: str) -> bool:
        try:
            (self.path / name).write_text(value, encoding="ascii")
        except OSError:
            return False
        return True

    def _table(self, name: str) -> dict[str, int]:
        lines = (read_bytes(str(self.path / name)) or b"").decode("ascii", "replace").splitlines()
        pairs = [line.split() for line in lines]
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


class Groups:
    """Our own place in the hierarchy; runs' groups lie below it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for above in (root.parent, root):  # a controller must be on all the way down
            on = [_switch_on(above, name) for name in (*CONTROLLERS, "io")]
        self.controllers = [name for name, done in zip(CONTROLLERS, on, strict=False) if done]

    def make(self, run_id: int) -> Group:
        """A fresh group for a run. Raises OSError."""
        group = Group(self._root / f"run-{run_id}", run_id)
        group.path.mkdir(exist_ok=True)
        with suppress(OSError):  # a daemon of our group may end it, should we hang (rule 15)
            (group.path / "cgroup.kill").chmod(0o220)
        return group

    def leftovers(self) -> list[Group]:
        """Groups of runs that nobody owns any more."""
        found = [(path, path.name.removeprefix("run-")) for path in self._root.glob("run-*") if path.is_dir()]
        return [Group(path, int(number)) for path, number in found if number.isdigit()]

    def close(self) -> None:
        """Leave nothing behind, as far as we may."""
        try:
            self._root.rmdir()
        except OSError:
            return


def find_groups(keeper_id: str) -> Groups | None:
    """A place where we may make, fill, kill and remove groups; tried, not guessed. None: there is none."""
    for mount in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if not (mount / "cgroup.procs").exists():
            continue
        own = mount / _own_path().lstrip("/")
        if own.name == ASIDE:  # systemd put us there (DelegateSubgroup=), or we did before an exec
            own = own.parent
        root = own / f"leasehold-{keeper_id[:12]}"
        try:
            _make_room(own)
            root.mkdir(exist_ok=True)
            groups = Groups(root)
            trial = groups.make(0)
            usable = (trial.path / "cgroup.kill").exists() and os.access(trial.path / "cgroup.procs", os.W_OK)
            if trial.remove() and usable and _may_enter(own):
                return groups
            groups.close()
        except OSError as error:
            log("cgroup_not_usable", "debug", root=str(root), error=str(error))
    return None


def _switch_on(group: Path, controller: str) -> bool:
    control = group / "cgroup.subtree_control"
    if controller not in (read_bytes(str(control)) or b"").decode().split():
        with suppress(OSError):  # not there, not ours to give, or processes in the way
            control.write_text(f"+{controller}", encoding="ascii")
    return controller in (read_bytes(str(control)) or b"").decode().split()


def _own_path() -> str:
    for line in (read_bytes("/proc/self/cgroup") or b"").decode().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _may_enter(own: Path) -> bool:
    """Moving a process needs the right to write to the common ancestor's cgroup.procs too."""
    return os.access(own / "cgroup.procs", os.W_OK)


def _make_room(own: Path) -> None:
    """In a delegated unit no process may sit above groups with controllers: step aside into a leaf of our own."""
    if os.environ.get("INVOCATION_ID") and os.access(own / "cgroup.procs", os.W_OK):
        leaf = own / ASIDE
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0", encoding="ascii")
