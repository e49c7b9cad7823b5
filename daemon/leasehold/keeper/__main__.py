"""`python -m leasehold.keeper`: owns agents' process trees, outlives daemons, kills what has no lease."""

import argparse
import ctypes
import fcntl
import grp
import json
import os
import sys
import uuid
from pathlib import Path

from leasehold import __version__
from leasehold.keeper.containment import find_groups
from leasehold.keeper.desk import Desk
from leasehold.keeper.house import House
from leasehold.keeper.inherit import take_over
from leasehold.keeper.kill import Kill
from leasehold.keeper.log import log
from leasehold.keeper.reach import containment
from leasehold.keeper.server import Server

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Exit codes: 0 told to stop or idle, 1 another keeper has the state directory, 2 wrong usage."""
    words = _words()
    if words.about:
        return _about()
    os.umask(0o027)
    state: Path = words.state_dir.absolute()
    state.mkdir(parents=True, exist_ok=True)
    lock = os.open(state / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log("state_dir_taken", "error", state_dir=str(state), hint="another keeper runs with this state directory")
        return 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper_id = _identity(state / "keeper.id")
    groups = find_groups(keeper_id) if words.containment != "subreaper" else None
    if groups is None and words.containment == "cgroup":
        log("no_cgroup", "error", hint="this host lets us make no cgroup v2 group; use --containment auto")
        return 2
    Kill.patience = words.unkillable_after
    told: list[Server] = []
    house = House(state, keeper_id, groups, lambda message: told[0].tell(message) if told else None)
    desk = Desk(house, __version__)
    take_over(house, desk.rounds)
    server = Server((words.socket or state / "keeper.sock").absolute(), _gids(words))
    told.append(server)
    log("ready", keeper_id=keeper_id, pid=os.getpid(), containment=house.rung, runs_inherited=len(house.runs))
    try:
        server.serve(desk, words.exit_when_idle_after)
    finally:
        server.close()
        if groups is not None:
            groups.close()
    log("stopped")
    return 0


def _about() -> int:
    """What a keeper started like this would say of its containment. Takes no state directory and touches no agent."""
    groups = find_groups(uuid.uuid4().hex)
    print(json.dumps({"version": __version__, "containment": containment(groups)}))  # noqa: T201 this is its answer
    if groups is not None:
        groups.close()
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="leasehold keeper", description="Own the agents' processes.")
    parser.add_argument("--state-dir", type=Path, required=True, help="run directories, lock and identity")
    parser.add_argument("--socket", type=Path, help="where to listen; by default keeper.sock in the state directory")
    parser.add_argument("--allow-group", action="append", default=[], help="the same, by the group's name")
    parser.add_argument("--allow-gid", type=int, action="append", default=[], help="members of this group may connect")
    parser.add_argument("--containment", choices=("auto", "cgroup", "subreaper"), default="auto")
    parser.add_argument("--about", action="store_true", help="say what it could contain here, and leave")
    parser.add_argument("--exit-when-idle-after", type=float, metavar="SECONDS")
    parser.add_argument("--unkillable-after", type=float, default=Kill.patience, help=argparse.SUPPRESS)
    return parser.parse_args()


def _gids(words: argparse.Namespace) -> set[int]:
    return {*words.allow_gid, *(grp.getgrnam(name).gr_gid for name in words.allow_group)}


def _identity(path: Path) -> str:
    """Who this keeper is, for as long as its state directory lives: cloned hosts are told apart by it (rule 9)."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(uuid.uuid4().hex + "\n", encoding="ascii")
        fresh.rename(path)
    return path.read_text(encoding="ascii").strip()


if __name__ == "__main__":
    sys.exit(main())
