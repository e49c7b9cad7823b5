"""What a fold over an ACP agent knows, and how pieces of its words become whole. JSON can say all of it. Pure."""

from dataclasses import dataclass, field
from typing import Any

from leasehold.agents.conversation import Known, Said
from leasehold.models import Event

MESSAGE_LIMIT = 256 << 10
"""Characters of one message that are put together; the pieces themselves are told whatever there is of them."""
ASKED_LIMIT = 1000
"""Questions of one run that are remembered."""


@dataclass
class AcpKnown(Known):
    """All that a later line, a control or the verdict may need."""

    agent: str | None = None  # its own name for itself
    can: dict[str, bool] = field(default_factory=dict)  # load, resume, steer
    cwd: str = ""
    opening: str | None = None  # the method by which its session was opened
    ready: bool = False
    past: bool = False  # what it says has been said before
    owed: list[list[str]] = field(default_factory=list)  # key, text
    turn: str | None = None  # the key of the prompt it works on
    answered: list[str] = field(default_factory=list)  # keys of prompts that it has answered
    later: list[list[str]] = field(default_factory=list)  # prompts that wait for that: key, text
    sent: list[str] = field(default_factory=list)  # keys of controls
    interrupts: list[int] = field(default_factory=list)  # ids of those controls, until a turn has ended
    interrupted: bool = False
    cancelling: bool = False
    asked: dict[str, Said] = field(default_factory=dict)
    piece: Said | None = None
    before: str | None = None  # the agent's id of the message before that one
    spoken: int = 0
    tools: dict[str, Said] = field(default_factory=dict)
    cost: float | None = None
    counted: float = 0.0  # of the cost
    trouble: Said | None = None  # of this turn: what its provider answered
    notices: list[list[Any]] = field(default_factory=list)  # turn, state, why: to be told with its next line

    def compact(self) -> None:
        """As little as says the same."""
        if self.piece is not None:
            self.piece["parts"] = ["".join(self.piece["parts"])]

    def add(self, kind: str, theirs: str | None, text: str) -> tuple[list[Event], str]:
        """More of its words or thoughts. Answers what is whole now because something else begins, and the id of this."""
        whole: list[Event] = []
        piece = self.piece
        if piece is None or (piece["kind"], piece["theirs"]) != (kind, theirs):
            whole = self.close()
            self.spoken += 1
            ident = f"{theirs}/{self.spoken}" if theirs and theirs == self.before else theirs or f"m{self.spoken}"
            piece = self.piece = {"kind": kind, "id": ident, "theirs": theirs, "parts": [], "size": 0}
        room = MESSAGE_LIMIT - piece["size"]
        if room > 0:
            piece["parts"].append(text[:room])
        piece["size"] += len(text)
        return whole, piece["id"]

    def close(self, *, failed: bool = False) -> list[Event]:
        """What it was saying is over. `failed`: these are not the model's words."""
        piece, self.piece = self.piece, None
        text = "".join(piece["parts"]) if piece else ""
        if piece is None or not text:
            return []
        if piece["kind"] == "thought":
            return [Event("progress", text, {}, phase="thinking")]
        self.before = piece["theirs"]
        cut = {"cut": piece["size"]} if piece["size"] > MESSAGE_LIMIT else {}
        data = {"id": piece["id"], "role": "agent", "status": "failed" if failed else "completed", **cut}
        if failed:
            return [Event("message", text, data, "warning")]
        self.words = text
        return [Event("message", text, data)]
