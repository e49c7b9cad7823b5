"""Transcripts, and what an adapter makes of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.runs import run_of
from leasehold.agents.base import Adapter
from leasehold.agents.registry import ADAPTERS, adapter_for
from leasehold.models import Event, Verdict

HERE = Path(__file__).parent / "transcripts"
ALL = sorted(HERE.glob("*/*.jsonl"))


@dataclass(frozen=True)
class Replay:
    """What came of one."""

    about: dict[str, Any]
    adapter: Adapter
    events: list[Event]
    verdict: Verdict

    def kinds(self, *but: str) -> list[str]:
        return [event.kind for event in self.events if event.kind not in but]

    def the(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def lines(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    about, *said = path.read_bytes().splitlines(keepends=True)
    return json.loads(about), said


def name_of(path: Path) -> str:
    name = path.parent.name.replace("_", "-")
    assert name in ADAPTERS
    return name


def fresh(path: Path, about: dict[str, Any]) -> Adapter:
    return adapter_for(run_of(name_of(path), session=about["resumed"]))


def replay(case: str, *, exit_code: int | None = None, but: int = 0) -> Replay:
    """All lines but the last few, then the end."""
    path = HERE / f"{case}.jsonl"
    about, said = lines(path)
    adapter = fresh(path, about)
    events = [event for line in said[: len(said) - but] for event in adapter.receive(line) or ()]
    return Replay(about, adapter, events, adapter.verdict(about["exit_code"] if exit_code is None else exit_code))
