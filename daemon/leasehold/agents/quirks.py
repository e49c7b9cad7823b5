"""What is known of single ACP agents beyond the protocol. An agent that is not in the table is taken at its word. Pure.

An entry only says what was seen of the real program, and in which version. Whoever adds an agent needs a row, not an entry.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Quirks:
    """How one agent differs from what the protocol lets one expect."""

    mode: str | None = None
    """The session mode that it is put into: without it a model, not a human, says what it may do."""
    cost: Literal["run", "session"] = "run"
    """Of what its `usage_update.cost` is the total: of this process, or of the session whoever has run it."""
    tokens: Literal["turn", "last_step"] = "turn"
    """Of what the token counts beside its stop reason are."""
    quota_meta: bool = False
    """Its token counts are in `_meta.quota` only."""
    late_past: bool = False
    """It answers `session/load` before it has told the past again; what it says until it names its commands is that."""
    error_as_words: bool = False
    """It ends a turn that its provider refused with `end_turn`, and the error is what it says last."""


# 1.18.33. A permission denied: `end_turn` and not a word. Cost: the session's, whichever process; tokens: the last step's. Answers that
# are no stream it asks for again and again, here without a word, which is the idle clock's.
OPENCODE = Quirks(cost="session", tokens="last_step")
# 0.49.0. Typed errors, which it says as its own words as well; tokens of all steps; its cost begins anew in each process.
CLAUDE = Quirks()
# 2.6.0. It begins in the mode "Auto review"; a 429 ends as `end_turn`; a permission denied: `cancelled`. Over Codex 0.169 it leaves
# when its stdin is closed; over the 0.166 that it brings it often had to be stopped, which the linger clock does.
CODEX = Quirks(mode="workspace-write", error_as_words=True)
# 0.61.0. Errors have the HTTP status as their code; a rate limit it waits out without a word, which is the idle clock's. A session
# that is loaded in the minute in which it began is lost: it writes over its own file.
GEMINI = Quirks(quota_meta=True, late_past=True)

TABLE = {
    "OpenCode": OPENCODE,
    "@agentclientprotocol/claude-agent-acp": CLAUDE,
    "@zed-industries/claude-code-acp": CLAUDE,
    "@agentclientprotocol/codex-acp": CODEX,
    "gemini-cli": GEMINI,
}
"""By the name in `agentInfo` of the answer to `initialize`."""


def quirks_of(agent: str | None) -> Quirks:
    """What is known of it; nothing, if nothing is."""
    return TABLE.get(agent or "", Quirks())
