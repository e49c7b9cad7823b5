"""A run to give to an adapter."""

from datetime import timedelta
from uuid import UUID

from leasehold.models import Run, RunKey


def run_of(adapter, command=("agent",), **more):
    given = {
        "key": RunKey(1, UUID(int=1)), "job_id": 1, "attempt": 1, "tenant": "default", "queue": "default", "agent": "a",
        "adapter": adapter, "command": tuple(command), "env": {}, "workspace": None, "launcher": (), "prompt": "hello",
        "payload": {}, "limits": {}, "stop_grace": timedelta(seconds=1), "total_timeout": None, "status": "starting",
        "started_at": None, "cancel_requested": False, "stdout_shipped": 0, "stderr_shipped": 0, "events_mark": -1,
    }  # fmt: skip
    return Run(**{**given, **more})
