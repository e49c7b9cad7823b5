"""For tests of single rooms: an environment in which nobody has set anything."""

import os

import pytest


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No setting of ours in the environment, and no configuration file of this machine."""
    ours = ("LEASEHOLD_", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    for name in [name for name in os.environ if name.startswith(ours)]:
        monkeypatch.delenv(name)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("LEASEHOLD_CONFIG", str(empty))
    return monkeypatch
