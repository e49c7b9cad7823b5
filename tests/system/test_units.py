"""The shipped unit files, as far as they can be judged without booting: systemd's own word on them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from leasehold.settings import load_settings

UNITS = Path(__file__).parents[2] / "systemd"

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path):
    """Copies whose programs exist on this machine; everything else is as shipped."""
    for unit in UNITS.glob("*.service"):
        text = re.sub(r"/opt/leasehold/bin/\w+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_analyze
@pytest.mark.parametrize("unit", ["leasehold.service", "leasehold-keeper.service"])
def test_systemd_finds_nothing_wrong_with(installed, unit):
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed / unit)], capture_output=True, text=True, check=False
    )
    ours = [line for line in said.stderr.splitlines() if "leasehold" in line and "not found" not in line]
    assert said.returncode == 0, said.stderr
    assert not ours, ours


@needs_analyze
@pytest.mark.parametrize(("unit", "at_most"), [("leasehold.service", 1.5), ("leasehold-keeper.service", 4.5)])
def test_the_exposure_that_systemd_sees_stays_low(installed, unit, at_most):
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed / unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    score = float(re.search(r"exposure level for \S+: ([\d.]+)", said.stdout).group(1))
    assert score <= at_most, said.stdout


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not installed")
def test_the_users_are_described_well():
    said = subprocess.run(
        ["systemd-sysusers", "--dry-run", str(UNITS / "leasehold.sysusers.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in said.stderr:
        pytest.skip("this systemd-sysusers knows no --dry-run")
    assert said.returncode == 0, said.stderr


def test_every_line_of_tmpfiles_is_a_directory_of_ours():
    lines = [
        line.split() for line in (UNITS / "leasehold.tmpfiles.conf").read_text().splitlines() if line and line[0] != "#"
    ]
    assert lines
    for kind, path, mode, user, group, _age in lines:
        assert kind == "d" and path.startswith(("/var/lib/", "/run/", "/etc/")) and int(mode, 8) < 0o4000
        assert user in ("root", "leasehold", "leasehold-agents") and group == "leasehold"


def test_the_example_environment_holds_real_settings(monkeypatch):
    for line in (UNITS / "leasehold.env.example").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
    assert load_settings(database_url="postgresql://x").max_runs == 8


def test_the_example_toml_holds_real_settings(monkeypatch):
    monkeypatch.setenv("LEASEHOLD_CONFIG", str(UNITS / "leasehold.toml.example"))
    assert load_settings(database_url="postgresql://x").queues == ("default", "reviews")
