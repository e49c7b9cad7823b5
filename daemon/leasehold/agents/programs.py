"""The agents of vendors that are known here: how each is started, in which version it was tried, and what it needs to be let in. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

VERSION = re.compile(r"\b(\d+(?:\.\d+){1,3})\b")


@dataclass(frozen=True, slots=True)
class Program:
    """One of them. `tested` is what the tests run; an older one may speak differently."""

    name: str
    adapter: str
    words: tuple[str, ...]  # behind the program in agents.command
    tested: str
    key: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # with a key in its env, in place of a login


CODEX_BY_KEY = """\
model_provider = "key"
check_for_update_on_startup = false
[model_providers.key]
name = "OpenAI"
base_url = "https://api.openai.com/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""

PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program("codex", "codex", ("-c", "sandbox_mode=workspace-write"), "0.169.0", "OPENAI_API_KEY", files={"config.toml": CODEX_BY_KEY}),
        Program("claude", "claude", ("--permission-mode", "acceptEdits"), "2.1.329", "ANTHROPIC_API_KEY"),
        Program(
            "opencode", "acp", ("acp",), "1.18.33", "ANTHROPIC_API_KEY",
            {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"},
        ),
        Program("gemini", "acp", ("--acp",), "0.61.0", "GEMINI_API_KEY", {"GEMINI_CLI_NO_RELAUNCH": "true"}),
    )
}  # fmt: skip
"""By name, which is what the program is called on PATH, too."""


def known(command: str) -> Program | None:
    """Which of them a row's command[1] is; None: some other program."""
    return PROGRAMS.get(PurePath(command).name)


def version_in(words: str) -> str | None:
    """The first thing that looks like a version."""
    found = VERSION.search(words)
    return found[1] if found else None


def is_older(version: str, tested: str) -> bool:
    """Compared number by number."""
    return _numbers(version) < _numbers(tested)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
