"""Everything an operator may set. One flat, frozen table; a field without a docstring is not allowed in."""

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from leasehold.errors import BadSettings

PREFIX = "LEASEHOLD_"
NOT_FIELDS = frozenset({"LEASEHOLD_CONFIG", "LEASEHOLD_TEST_DSN"})
"""Names of ours in the environment that are not settings. A run's own LEASEHOLD_RUN_ID and so on are not either."""
OF_A_RUN = frozenset({
    "JOB_ID", "RUN_ID", "ATTEMPT", "TENANT", "KEEPER_ID", "CONTEXT", "SESSION", "WORKSPACE", "WORKSPACE_SOURCE", "REPOSITORY",
    "BRANCH", "BASE_BRANCH", "ACP_MODE",
})  # fmt: skip
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
IN_URL = re.compile(r"(://[^:/@\s]*):(?:[^/?#\s]*@|[^@\s]*@)")
IN_WORDS = re.compile(r"((?:^|[?&\s\"'])(?:\w*password|passfile)\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)", re.IGNORECASE)
"""A password in `://user:password@host`, and in `password=...` of a query or of libpq's words."""
ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_NO_DURATION = "this is no duration; write 90, 90s, 2m, 1h30m or PT2M"
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def _duration(value: Any) -> Any:
    """`90`, `90s`, `2m`, `1h30m`; everything else (ISO 8601) is left to pydantic."""
    if isinstance(value, bool):
        return str(value)  # pydantic would take it for a second
    if isinstance(value, int | float):
        return _seconds(value)
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _seconds(float(text))
    parts = DURATION.findall(text)
    if parts and not DURATION.sub("", text).strip():
        return _seconds(sum(float(number) * UNITS[unit] for number, unit in parts))
    return value


def _seconds(number: float) -> timedelta:
    try:
        return timedelta(seconds=number)
    except OverflowError:
        raise ValueError(_NO_DURATION) from None


def _names(value: Any) -> Any:
    """`a, b`; empty or `*` means all."""
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    return None if names in ((), ("*",)) else names


def _address(value: Any) -> Any:
    """`host:port`, `[::1]:port`; empty means none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or not (found := ADDRESS.fullmatch(value.strip())) or int(found[1]) > 65535:
        raise ValueError("write host:port, for example 127.0.0.1:9464 or [::1]:9464")
    return value.strip()


Address = Annotated[str | None, BeforeValidator(_address)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]
Names = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_names)]


def under_systemd() -> bool:
    """Were we started as a service? A terminal or a container is not."""
    return "NOTIFY_SOCKET" in os.environ


def _state_dir() -> Path:
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/leasehold")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "leasehold"


class Settings(BaseSettings):
    """Read from the environment, then a TOML file, then systemd credentials."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    database_url: str = Field(min_length=1)
    """Where Postgres is: postgresql://user:password@host:port/database, or ?host=/socket/directory."""
    state_dir: Path = Field(default_factory=_state_dir)
    """Directory of locks, the keeper's identity and the run directories. Absolute."""
    keeper_socket: Path | None = None
    """The keeper's socket; by default `keeper.sock` in the state directory."""
    instance: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """What a restart keeps: the next daemon of this name on this host takes over the runs of the last."""
    max_runs: int = Field(8, ge=1, le=10_000)
    """How many agents may run here at once."""
    disk_reserve: ByteSize = ByteSize(64 * 1024 * 1024)
    """Nothing new is begun while less than this is free in the state directory. Bytes, or `64MiB`; 0 is no reserve."""
    queues: Names = None
    """Which queues to claim from, comma separated; all when empty."""
    lease: Duration = timedelta(seconds=120)
    """How long the database holds our runs for us after the last renewal."""
    renewal: Duration = timedelta(seconds=15)
    """How often the lease is renewed."""
    margin: Duration = timedelta(seconds=20)
    """How long before the end of an unrenewed lease the agents must be dead."""
    poll: Duration = timedelta(seconds=30)
    """How long to trust silence on LISTEN before looking anyway."""
    sweep: Duration = timedelta(minutes=1)
    """How often to look for rows and directories whose time is over, see `leasehold.retention`."""
    grace: Duration = timedelta(seconds=10)
    """Most time between TERM and KILL when the daemon is in a hurry; an agent's `stop_grace` may be less."""
    drain: Duration = timedelta(minutes=5)
    """How long `drain` waits for agents before it interrupts them."""
    stop_mode: Literal["auto", "detach", "drain", "interrupt"] = "auto"
    """What the first TERM does: leave agents to the next daemon, wait for them, or stop them. auto: detach under systemd, else drain."""
    metrics_address: Address = None
    """Where Prometheus may read metrics over HTTP: host:port, best a loopback address. Nowhere when empty."""
    log_format: Literal["auto", "json", "pretty"] = "auto"
    """One JSON object per line, or for eyes; auto: pretty on a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines to print."""

    @property
    def socket(self) -> Path:
        """Where the keeper listens."""
        return self.keeper_socket or self.state_dir / "keeper.sock"

    @property
    def patience(self) -> float:
        """Seconds for one renewal: on a dead line one is given up, and another made, before agents are stopped."""
        spare = (self.lease - self.margin - self.grace - self.renewal).total_seconds()
        return min(20.0, max(1.0, spare / 4))  # a statement that hangs costs it twice: asking, and giving up

    @property
    def under_systemd(self) -> bool:
        """Were we started as a service?"""
        return under_systemd()

    @property
    def leave(self) -> str:
        """The stop mode in force."""
        return self.stop_mode if self.stop_mode != "auto" else "detach" if under_systemd() else "drain"

    def redacted(self) -> dict[str, str]:
        """Effective settings for people's eyes: no password."""
        shown = {name: str(getattr(self, name)) for name in type(self).model_fields}
        return shown | {
            "database_url": redact_dsn(self.database_url),
            "stop_mode": self.leave,
            "keeper_socket": str(self.socket),
        }

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.margin + 2 * self.renewal >= self.lease:
            raise ValueError("lease must be longer than margin + 2 x renewal: one late renewal would kill every agent")
        if self.grace >= self.margin:
            raise ValueError("grace must be shorter than margin: agents must be dead before the lease ends")
        if self.grace + self.renewal >= self.lease - self.margin:
            raise ValueError(
                "grace + renewal must be shorter than lease - margin: agents would be stopped between renewals"
            )
        if not self.state_dir.is_absolute():
            raise ValueError(f"state_dir must be absolute, not {str(self.state_dir)!r}")
        watchdog = timedelta(microseconds=int(os.environ.get("WATCHDOG_USEC") or 0))
        if watchdog and 2 * max(self.poll, self.renewal) > watchdog:
            raise ValueError("poll and renewal must be at most half of WatchdogSec in the unit: systemd would kill us")
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 no .env
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 replaced by credentials
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Overrides, environment, TOML file, systemd credentials."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        config = os.environ.get("LEASEHOLD_CONFIG") or "/etc/leasehold/leasehold.toml"
        named = bool(os.environ.get("LEASEHOLD_CONFIG"))
        if named and not Path(config).is_file():
            raise BadSettings(f"there is no file {config}", hint="LEASEHOLD_CONFIG names a TOML file.")
        if named or Path(config).exists():
            sources.append(_Toml(settings_cls, toml_file=config))
        if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
            sources.append(SecretsSettingsSource(settings_cls, secrets_dir=credentials, env_prefix=""))
        return tuple(sources)


class _Toml(TomlConfigSettingsSource):
    """A TOML file that must be there when it was named."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            return super()._read_file(file_path)
        except (OSError, ValueError) as error:
            raise BadSettings(
                f"cannot read {file_path}: {error}", hint="LEASEHOLD_CONFIG names a TOML file."
            ) from error


def load_settings(**overrides: Any) -> Settings:
    """The effective settings. Raises BadSettings with every mistake, one a line."""
    _refuse_unknown()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise BadSettings("\n".join(_explain(mistake) for mistake in error.errors()), hint=_HINT) from error


_HINT = (
    "Set LEASEHOLD_<NAME>, or <name> in the TOML file that LEASEHOLD_CONFIG names; see systemd/leasehold.env.example."
)


def _refuse_unknown() -> None:
    fields = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in fields | NOT_FIELDS or name.removeprefix(PREFIX) in OF_A_RUN:
            continue
        near = get_close_matches(name, fields, 1)
        raise BadSettings(f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _explain(mistake: Any) -> str:
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "missing":
        return f"{where} is not set"
    if mistake["type"] == "extra_forbidden":
        near = get_close_matches(where, Settings.model_fields, 1)
        return f"there is no setting {where}" + (f"; did you mean {near[0]}?" if near else "")
    if mistake["type"] == "time_delta_parsing":
        return f"{where}: {_NO_DURATION}"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def redact_dsn(dsn: str) -> str:
    """The same address, or any text that quotes one, without its password."""
    return IN_WORDS.sub(r"\1***", IN_URL.sub(r"\1:***@", dsn))
