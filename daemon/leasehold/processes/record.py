"""The exit record as the daemon reads it: what became of a process tree. If it fails, one run's story is unknown."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from leasehold.models import Exit

log = structlog.get_logger()

EXIT = TypeAdapter(Exit)


def parse_exit(record: Mapping[str, Any], run_id: int) -> Exit:
    """An exit record as the keeper writes it; fields of a newer keeper are left out. The agent could have wrecked its file."""
    known = {each.name for each in fields(Exit)}
    try:
        return EXIT.validate_python({name: record[name] for name in known & record.keys() if record[name] is not None})
    except ValidationError as error:
        log.warning(
            "run_crashed", run_id=run_id, error=f"its exit record makes no sense: {error.error_count()} mistakes"
        )
        return Exit(run_id, "", "exited", "keeper_lost")
