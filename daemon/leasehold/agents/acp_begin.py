"""How a conversation with an ACP agent begins: handshake, session, mode, prompt. Pure; if it fails, one run fails."""

from collections.abc import Sequence
from typing import Any

from leasehold.agents.acp_errors import reason_of, words_of
from leasehold.agents.acp_state import AcpKnown
from leasehold.agents.acp_tells import Tells
from leasehold.agents.conversation import Said
from leasehold.agents.start import command, environment
from leasehold.models import Command, Event, Run

VERSION = 1
"""Of the protocol."""
MODE = "LEASEHOLD_ACP_MODE"
"""In the environment of an agent's row: the session mode it is put into, instead of the one in the table of quirks; empty: none."""


class Begins(Tells):
    """The steps of the protocol until its first prompt is said, each owed when the one before is answered."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._run = run
        self.known = AcpKnown(cwd=run.workspace or "/")  # not resumed: it says itself what it does not know any more
        info = {"name": "leasehold", "title": "Leasehold", "version": "1"}
        abilities = {
            "fs": {"readTextFile": False, "writeTextFile": False},
            "terminal": False,
            "elicitation": {"form": {}},
        }
        hello = {"protocolVersion": VERSION, "clientInfo": info, "clientCapabilities": abilities}
        self.ask("init", "initialize", hello)

    def launch(self, run: Run, workspace: str) -> Command:
        """The command as it is: the program with the words that make it speak ACP."""
        self.known.cwd = workspace
        return Command(argv=(*run.launcher, *command(run, workspace)), env=environment(run), converses=True)

    def hello(self, result: Said) -> Sequence[Event]:
        """It says who it is and what it can."""
        known = self.known
        info, can = _part(result, "agentInfo"), _part(result, "agentCapabilities")
        known.agent = str(info.get("name") or "")
        known.can = {
            "load": bool(can.get("loadSession")),
            "resume": _part(can, "sessionCapabilities").get("resume") is not None,
            "steer": bool(_part(_part(result, "_meta"), "steering").get("supported")),
        }
        if result.get("protocolVersion") != VERSION:
            message = f"it speaks version {result.get('protocolVersion')} of the protocol, not {VERSION}"
            return (self.end(ok=False, reason="protocol", message=message),)
        session = self._run.session
        where = {"cwd": known.cwd, "mcpServers": []}
        if session is not None and not (known.can["resume"] or known.can["load"]):
            return (
                self.end(
                    ok=False, reason="session_rejected", message="it cannot go on with a session of another process"
                ),
            )
        how = "session/new" if session is None else "session/resume" if known.can["resume"] else "session/load"
        known.opening = how
        self.ask("open", how, where if session is None else {"sessionId": session, **where})
        name = " ".join(str(info[part]) for part in ("name", "version") if info.get(part))
        return (Event("progress", name or None, {}, phase="agent"),)

    def opened(self, result: Said) -> Sequence[Event]:
        """Its session is there."""
        begun = self.begin(self._run.session or result["sessionId"])
        self.known.past = self.quirks.late_past and self.known.opening == "session/load"
        mode = self._run.env.get(MODE, self.quirks.mode)
        if mode and _part(result, "modes").get("currentModeId") != mode:
            self.ask("mode", "session/set_mode", {"sessionId": self.known.session, "modeId": mode})
            return (begun,)
        return (begun, *self.start())

    def start(self) -> Sequence[Event]:
        """All is as it has to be."""
        if self.known.ready:
            return ()
        self.known.ready = True
        self.prompt("start", self._run.prompt)
        return (Event("progress", None, {}, phase="turn"),)

    def not_begun(self, key: str, error: Any) -> Sequence[Event]:
        """It could not be begun. A session that it does not know is told by no code or word that all of them share."""
        reason = reason_of(error)
        if key == "open" and self._run.session is not None and reason != "auth":
            reason = "session_rejected"
        what = {
            "init": "it would not begin",
            "open": "it would not open a session",
            "mode": "it would not be put into its mode",
        }
        return (self.end(ok=False, reason=reason, message=f"{what[key]}: {words_of(error)}"),)


def _part(said: Said, name: str) -> Said:
    part = said.get(name)
    return part if isinstance(part, dict) else {}
