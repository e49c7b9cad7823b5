"""The real agents that `make test-agents` has installed, and how to start them against the scripted model.

A test that needs them takes the fixtures `codex` and `claude`; where they are absent it is skipped, and says so.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = Path(os.environ.get("LEASEHOLD_AGENTS", ROOT / ".venv" / "agents")) / "node_modules"
CODEX_CONFIG = """
model = "gpt-5.5"
model_provider = "scripted"
check_for_update_on_startup = false
analytics.enabled = false
feedback.enabled = false
otel.exporter = "none"
[model_providers.scripted]
name = "Scripted"
base_url = "{url}/v1"
env_key = "SCRIPTED_KEY"
wire_api = "responses"
request_max_retries = 2
stream_max_retries = 2
stream_idle_timeout_ms = 8000
"""


@dataclass(frozen=True)
class Program:
    """One of them: its adapter, where it is, options for its command, its private configuration in a directory.

    `asking`: options with which it asks for permission, of one that can be spoken to while it works.
    """

    adapter: str
    path: Path
    options: tuple[str, ...]
    configure: Callable[[Path, str], dict[str, str]]
    asking: tuple[str, ...] | None = None

    @property
    def there(self) -> bool:
        return self.path.is_file()


def codex_home(home: Path, url: str) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(CODEX_CONFIG.format(url=url))
    return {"HOME": str(home), "CODEX_HOME": str(home), "SCRIPTED_KEY": "no-key"}


def claude_home(home: Path, url: str) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    quiet = ("DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC")
    return {
        "HOME": str(home), "CLAUDE_CONFIG_DIR": str(home), "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "no-key",
        "CLAUDE_CODE_MAX_RETRIES": "2", **dict.fromkeys(quiet, "1"),
    }  # fmt: skip


CODEX_PROGRAM = INSTALLED / "@openai" / "codex" / "vendor" / "x86_64-unknown-linux-musl" / "bin" / "codex"
FULL, ON_REQUEST = ("-c", "sandbox_mode=danger-full-access"), ("-c", "approval_policy=on-request")
READ_ONLY = ("-c", "sandbox_mode=read-only", *ON_REQUEST)
QUESTIONS_ON = ("-c", "features.default_mode_request_user_input=true")
CODEX_APP = Program("codex", CODEX_PROGRAM, (*FULL, *ON_REQUEST, *QUESTIONS_ON), codex_home, asking=READ_ONLY)
CODEX = Program(
    "codex-exec",
    CODEX_PROGRAM,
    ("-s", "danger-full-access"),
    codex_home,
)
CLAUDE = Program(
    "claude",
    INSTALLED / "@anthropic-ai" / "claude-code-linux-x64" / "claude",
    ("--allowedTools", "Bash"),
    claude_home,
    asking=(),
)
