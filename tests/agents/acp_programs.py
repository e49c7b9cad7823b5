"""The real agents that speak ACP, as `make test-acp` installs them, and how to start them against the scripted model."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents.programs import CLAUDE, CODEX, ROOT, claude_home, codex_home

INSTALLED = Path(os.environ.get("LEASEHOLD_ACP_AGENTS_DIR", ROOT / ".venv" / "agents-acp")) / "node_modules"


@dataclass(frozen=True)
class AcpProgram:
    """One of them: its entry point, the words of its command, its private configuration in a directory."""

    name: str
    path: Path
    needs: tuple[Path, ...]
    configure: Callable[[Path, str], dict[str, str]]
    words: tuple[str, ...] = ()
    node: bool = True
    waits_out: tuple[str, ...] = ()  # scenarios in which it says nothing for minutes
    minute: bool = False  # a session can be loaded in a later minute than the one it began in

    def pause(self) -> None:
        """Until a session of this moment can be gone on with."""
        if self.minute:
            time.sleep(61 - time.time() % 60)

    @property
    def there(self) -> bool:
        return all(path.is_file() for path in (self.path, *self.needs)) and (
            not self.node or bool(shutil.which("node"))
        )

    @property
    def command(self) -> list[str]:
        return [*(["node"] if self.node else []), str(self.path), *self.words]


def opencode_home(home: Path, url: str) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    limit = {"context": 200000, "output": 8000}
    models = {"scripted-1": {"name": "Scripted", "limit": limit, "cost": {"input": 3, "output": 15, "cache_read": 0.3}}}
    options = {"baseURL": f"{url}/v1", "apiKey": "no-key"}
    scripted = {"npm": "@ai-sdk/openai-compatible", "name": "Scripted", "options": options, "models": models}
    config = {
        "autoupdate": False, "share": "disabled", "model": "scripted/scripted-1", "small_model": "scripted/scripted-1",
        "enabled_providers": ["scripted"], "provider": {"scripted": scripted}, "permission": {"bash": "ask"},
    }  # fmt: skip
    quiet = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    return {
        "HOME": str(home), **{f"XDG_{name}_HOME": str(home / name.lower()) for name in ("DATA", "CONFIG", "STATE", "CACHE")},
        "OPENCODE_CONFIG_CONTENT": json.dumps(config), **{f"OPENCODE_DISABLE_{name}": "1" for name in quiet},
    }  # fmt: skip


def gemini_home(home: Path, url: str) -> dict[str, str]:
    (home / ".gemini").mkdir(parents=True, exist_ok=True)
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "general": {"enableAutoUpdate": False}, "privacy": {"usageStatisticsEnabled": False}, "telemetry": {"enabled": False},
    }  # fmt: skip
    (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    return {
        "HOME": str(home), "GEMINI_API_KEY": "no-key", "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_TELEMETRY_ENABLED": "false",
        "NO_COLOR": "1", "GEMINI_CLI_NO_RELAUNCH": "true",
    }  # fmt: skip


def codex_acp_home(home: Path, url: str) -> dict[str, str]:
    return {**codex_home(home, url), "CODEX_PATH": str(CODEX.path)}


def claude_acp_home(home: Path, url: str) -> dict[str, str]:
    return {**claude_home(home, url), "CLAUDE_CODE_EXECUTABLE": str(CLAUDE.path)}


OFFICIAL = INSTALLED / "@agentclientprotocol"
PROGRAMS = {
    each.name: each
    for each in (
        AcpProgram("opencode", INSTALLED / "opencode-linux-x64" / "bin" / "opencode", (), opencode_home, ("acp",), node=False),
        AcpProgram("claude-agent-acp", OFFICIAL / "claude-agent-acp" / "dist" / "index.js", (CLAUDE.path,), claude_acp_home),
        AcpProgram("codex-acp", OFFICIAL / "codex-acp" / "dist" / "index.js", (CODEX.path,), codex_acp_home),
        AcpProgram(
            "gemini", INSTALLED / "@google" / "gemini-cli" / "bundle" / "gemini.js", (), gemini_home,
            ("-m", "gemini-2.5-flash", "--acp"), waits_out=("429", "quota"), minute=True,
        ),
    )
}  # fmt: skip


@pytest.fixture(params=PROGRAMS.values(), ids=lambda program: program.name, name="program")
def acp_program(request):
    """Each of them; where it is not, this is skipped, and says so."""
    if "LEASEHOLD_ACP_AGENTS" not in os.environ:
        pytest.skip(f"{request.param.name}: what it said is replayed, nothing real is shown (make test-acp)")
    if not request.param.there:
        pytest.fail(f"{request.param.name} is not installed")
    return request.param
