"""A configuration directory of a conversation's own: its files, its credential, the variables that name it. If it fails, its agent is not started."""

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from leasehold.stage.credential import STEP, lent
from leasehold.stage.within import open_up, put, room
from leasehold.stage.words import StageError

FULL = (errno.ENOSPC, errno.EDQUOT)


def nobody() -> bool:
    """Has anybody asked us to stop?"""
    return False


@contextmanager
def private(plan: Mapping[str, Any] | None, stopped: Callable[[], bool] = nobody) -> Iterator[dict[str, str]]:
    """Prepare what `plan` says; yields variables for the agent's environment. Raises StageError before it yields, never after.

    `dir`; `env`: variables, `{dir}` in them is the directory; `files`: text by name; `credential`: see `lent`.
    """
    if plan is None:
        yield {}
        return
    directory = Path(plan["dir"])
    with ExitStack() as stack:
        try:
            here = stack.enter_context(room(directory))
            stack.callback(open_up, here)
            for name, text in (plan.get("files") or {}).items():
                put(here, name, text.encode())
            if plan.get("credential"):
                stack.enter_context(lent(plan["credential"], here, directory, stopped))
        except OSError as error:
            raise unready(error) from error
        yield {name: text.replace("{dir}", str(directory)) for name, text in plan["env"].items()}


def unready(error: OSError) -> StageError:
    """What the system said, as a kind of failure."""
    if error.errno in FULL:
        return StageError("disk_full", STEP, f"there is no room for its configuration: {error}")
    return StageError("config", STEP, f"its private configuration could not be made: {error}")
