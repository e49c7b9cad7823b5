"""`python -m leasehold.stage`: make ready, run the agent as a child, say what it changed, leave as it left."""

import errno
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from leasehold.stage import config, workspace
from leasehold.stage.agent import run_agent
from leasehold.stage.ends import Ends, leave
from leasehold.stage.plan import Plan, parts, read_plan
from leasehold.stage.report import Report
from leasehold.stage.words import StageError, say

FAILED = {"not_found": 127, "denied": 126}
"""A shell's exit status for what it could not execute; anything else that keeps the agent from running is 125."""


def main() -> NoReturn:
    """Leave as the agent left; as a shell would if there was none."""
    os.umask(0o007)  # the daemon may be another user of our group, and removes what nobody needs any more
    ends = Ends()
    try:
        plan = read_plan(os.environ, sys.argv[1:])
    except StageError as error:
        say(error.step, str(error))
        leave(125)
    for name in parts(os.environ):
        del os.environ[name]
    base = dict(os.environ)
    leave(stage(plan, base, ends))


def stage(plan: Plan, base: Mapping[str, str], ends: Ends) -> int:
    """The life of the run below the keeper; the agent's status."""
    report = Report(plan.run_directory)
    status: int | None = None
    try:
        report.phase("preparing")
        with (
            config.private(plan.config, lambda: ends.asked is not None) as added,
            workspace.prepared(plan.workspace, report, ends, {**base, **added}) as cwd,
        ):
            if ends.asked is not None:  # in the middle of a step that was done all the same
                raise StageError("stopped", "agent", "stopped before it was started")
            report.phase("agent")
            status = run_agent(plan.argv, {**base, **added}, cwd)
            report.phase("recording")
        report.phase("over")
    except StageError as error:
        _give_up(report, error)
    except OSError as error:  # no room, no right: whatever it was, there was no agent, or it has left
        kind = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "workspace"
        _give_up(report, StageError(kind, "stage", str(error)))
    return status if status is not None else _failed(report, ends)


def _give_up(report: Report, error: StageError) -> None:
    with suppress(OSError):  # where the report cannot be written, how the agent has left is still said
        say(error.step, str(error))
        report.failed(error)


def _failed(report: Report, ends: Ends) -> int:
    if ends.asked is not None:
        return -ends.asked
    return FAILED.get(report.failed_as or "", 125)


if __name__ == "__main__":
    main()
