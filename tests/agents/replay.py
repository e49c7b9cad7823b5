"""Transcripts, and what an adapter makes of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.runs import run_of
from leasehold.agents.base import Adapter, Conversing
from leasehold.agents.registry import ADAPTERS, adapter_for
from leasehold.models import Control, Event, Input, RunKey, Verdict

HERE = Path(__file__).parent / "transcripts"
ALL = sorted(HERE.glob("*/*.jsonl"))


@dataclass(frozen=True)
class Replay:
    """What came of one."""

    about: dict[str, Any]
    adapter: Adapter
    events: list[Event]
    verdict: Verdict
    inputs: list[Input]

    def heard(self, key: str) -> Any:
        """What the agent got under that key."""
        (found,) = [json.loads(each.raw) for each in self.inputs if each.key == key]
        return found

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
    number = about.get("run", 1)
    key = RunKey(number, UUID(int=number))
    return adapter_for(run_of(name_of(path), session=about["resumed"], prompt=about["prompt"], key=key))


def told(about: dict[str, Any], after: int) -> list[Control]:
    """What it was told behind so many of its lines."""
    return [Control(**control) for line, control in about.get("sent", ()) if line == after]


def tell(adapter: Adapter, about: dict[str, Any], after: int, *, takes: bool = True) -> list[Input]:
    """Send it that; the keeper takes what it then owes. Answers what it owed."""
    if not isinstance(adapter, Conversing):
        return []
    for control in told(about, after):
        adapter.send(control)
    owed = list(adapter.owed)
    for each in owed if takes else ():
        adapter.taken(each.key)
    return owed


def replay(case: str, *, exit_code: int | None = None, but: int = 0) -> Replay:
    """All lines but the last few, then the end."""
    path = HERE / f"{case}.jsonl"
    about, said = lines(path)
    adapter = fresh(path, about)
    events, inputs = [], tell(adapter, about, 0)
    for number, line in enumerate(said[: len(said) - but], 1):
        events += adapter.receive(line) or ()
        inputs += tell(adapter, about, number)
    verdict = adapter.verdict(about["exit_code"] if exit_code is None else exit_code)
    return Replay(about, adapter, events, verdict, inputs)
