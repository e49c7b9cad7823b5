"""The unit files as systemd itself reads them: they parse, they are as tight as promised, their settings exist."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from leasehold.settings import Settings, load_settings

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = ("leasehold.service", "leasehold-keeper.service")
TIGHT = {"leasehold.service": 1.8, "leasehold-keeper.service": 1.9}
"""The exposure that `systemd-analyze security` may find. The daemon's is what the last resort costs; see the unit."""
PROGRAMS = re.compile(r"/opt/leasehold/bin/\w+")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def directives(service):
    """Every (key, value) of a unit, in order."""
    lines = (UNITS / service).read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith(("#", "["))]


@pytest.fixture
def installed(tmp_path):
    """The units as they will be, with a program that exists on this machine."""
    for service in SERVICES:
        (tmp_path / service).write_text(PROGRAMS.sub(shutil.which("true"), (UNITS / service).read_text()))
    return tmp_path


@needs_systemd
def test_systemd_reads_both_units_without_a_word(installed):
    said = run("systemd-analyze", "verify", "--man=no", *(str(installed / service) for service in SERVICES))
    complaints = [line for line in said.stderr.splitlines() if "leasehold" in line]
    assert (said.returncode, complaints) == (0, [])


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_a_spelling_mistake_in_a_unit_would_be_noticed(installed, service):
    broken = (installed / service).read_text().replace("KillMode=", "KilMode=")
    (installed / service).write_text(broken)
    assert "KilMode" in run("systemd-analyze", "verify", "--man=no", str(installed / service)).stderr


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_is_as_tight_as_promised(service):
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / service))
    assert said.returncode == 0, said.stderr
    score = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)[1])
    assert score <= TIGHT[service], said.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_a_restart_sweeps_the_whole_control_group(service):
    assert ("KillMode", "mixed") in directives(service)


@pytest.mark.rule("X29")
def test_the_daemon_is_supervised_and_stays_down_when_a_restart_cannot_help():
    unit = dict(directives("leasehold.service"))
    assert unit["Type"] == "notify"
    assert unit["WatchdogSec"] == "90s"
    assert unit["Restart"] == "on-failure"
    assert set(unit["RestartPreventExitStatus"].split()) == {"57", "69", "78"}
    assert unit["LoadCredential"] == "database_url:/etc/leasehold/database_url"


def test_the_daemon_starts_and_stops_around_its_keeper_but_does_not_fall_with_it():
    unit = dict(directives("leasehold.service"))
    assert "leasehold-keeper.service" in unit["After"].split()
    assert "leasehold-keeper.service" in unit["Wants"].split()
    assert not unit.keys() & {"Requires", "BindsTo", "PartOf"}


def test_the_daemon_gives_no_time_limit_that_its_own_settings_overrun():
    unit, settings = dict(directives("leasehold.service")), load_settings(database_url="postgresql://x")
    watchdog = float(unit["WatchdogSec"].removesuffix("s"))
    stop = 60 * float(unit["TimeoutStopSec"].removesuffix("min"))
    assert max(settings.poll, settings.renewal).total_seconds() * 2 < watchdog
    assert settings.drain.total_seconds() + settings.grace.total_seconds() + 20 < stop


def test_the_keeper_lets_agents_use_their_tools():
    unit = directives("leasehold-keeper.service")
    keys = {key for key, _ in unit}
    assert ("Delegate", "yes") in unit
    assert ("OOMPolicy", "continue") in unit
    assert not keys & {"ProtectControlGroups", "MemoryDenyWriteExecute"}
    filters = [value for key, value in unit if key == "SystemCallFilter"]
    assert filters == ["@system-service"], "a filter without @setuid breaks make"


def test_no_unit_owns_the_shared_state_directory():
    """Two units with different users and one StateDirectory= chown it back and forth under running agents."""
    for service in SERVICES:
        assert ("StateDirectory", "leasehold") not in directives(service)
        assert ("ReadWritePaths", "/var/lib/leasehold") in directives(service)


def test_both_units_mean_the_same_state_and_socket():
    daemon = dict(value.split("=", 1) for key, value in directives("leasehold.service") if key == "Environment")
    keeper = dict(directives("leasehold-keeper.service"))["ExecStart"]
    assert f"--state-dir {daemon['LEASEHOLD_STATE_DIR']} " in keeper
    assert f"--socket {daemon['LEASEHOLD_KEEPER_SOCKET']} " in keeper


def test_the_keeper_imports_nothing_that_agents_can_write():
    unit = dict(directives("leasehold-keeper.service"))
    assert unit["ExecStart"].split()[1] == "-I"
    assert unit["WorkingDirectory"].startswith("/var/lib/leasehold-agents"), "the agents' own home, hence -I"


def test_agents_get_nothing_from_the_daemons_environment_file():
    assert not {"EnvironmentFile", "LoadCredential"} & dict(directives("leasehold-keeper.service")).keys()


def test_the_daemons_environment_in_its_unit_is_of_real_settings(clean_environment):
    for key, value in directives("leasehold.service"):
        if key == "Environment":
            clean_environment.setenv(*value.split("=", 1))
    assert str(load_settings(database_url="postgresql://x").socket) == "/run/leasehold/keeper.sock"


@pytest.fixture
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LEASEHOLD_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def example_variables():
    lines = (UNITS / "leasehold.env.example").read_text().splitlines()
    return dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?LEASEHOLD_\w+=", line))


def test_every_line_of_the_example_environment_is_a_setting_at_its_default(clean_environment, tmp_path):
    plain = load_settings(database_url="postgresql://x")
    given = example_variables()
    config = given.pop("LEASEHOLD_CONFIG")
    assert config == "/etc/leasehold/leasehold.toml"
    for name, value in given.items():
        clean_environment.setenv(name, value)
    read = load_settings()
    ours = {"database_url", "state_dir", "keeper_socket"}
    assert read.model_dump(exclude=ours) == plain.model_dump(exclude=ours)


def test_the_example_environment_knows_every_setting():
    named = {name.removeprefix("LEASEHOLD_").lower() for name in example_variables()} - {"config"}
    assert named == set(Settings.model_fields)


def test_every_line_of_the_example_toml_is_a_setting_at_its_default(clean_environment, tmp_path):
    plain = load_settings(database_url="postgresql://x")
    clean_environment.setenv("LEASEHOLD_CONFIG", str(UNITS / "leasehold.toml.example"))
    assert load_settings(database_url="postgresql://x") == plain
    assert set(tomllib.loads((UNITS / "leasehold.toml.example").read_text())) <= set(Settings.model_fields)


def rows(name):
    return [line.split() for line in (UNITS / name).read_text().splitlines() if line and not line.startswith("#")]


def test_the_users_of_the_units_are_made_by_sysusers():
    made = {row[1] for row in rows("leasehold.sysusers.conf") if row[0] == "u"}
    assert made == {dict(directives(service))["User"] for service in SERVICES}
    assert {row[1] for row in rows("leasehold.sysusers.conf") if row[0] == "g"} == {"leasehold"}


def test_the_state_directory_is_shared_by_group_and_protected_from_each_other():
    made = {row[1]: row[2:5] for row in rows("leasehold.tmpfiles.conf")}
    assert made["/var/lib/leasehold"] == ["3770", "root", "leasehold"]
    assert made["/var/lib/leasehold/runs"] == ["2750", "leasehold-agents", "leasehold"]


@pytest.fixture
def root(tmp_path):
    """An empty machine."""
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-sysusers --root needs root")
def test_sysusers_and_tmpfiles_make_what_the_units_need_on_an_empty_machine(root):
    users = run("systemd-sysusers", f"--root={root}", str(UNITS / "leasehold.sysusers.conf"))
    assert users.returncode == 0, users.stderr
    passwd = {line.split(":")[0]: line.split(":")[2:4] for line in (root / "etc/passwd").read_text().splitlines()}
    assert set(passwd) == {"leasehold", "leasehold-agents"}
    assert passwd["leasehold"][1] == passwd["leasehold-agents"][1], "one group"
    made = run("systemd-tmpfiles", "--create", f"--root={root}", str(UNITS / "leasehold.tmpfiles.conf"))
    assert (made.returncode, made.stderr) == (0, "")
    state = (root / "var/lib/leasehold").stat()
    assert (oct(state.st_mode & 0o7777), state.st_uid) == ("0o3770", 0)
    runs = (root / "var/lib/leasehold/runs").stat()
    assert [str(runs.st_uid), str(runs.st_gid)] == passwd["leasehold-agents"]


def test_the_operators_page_names_every_file_and_exit_code():
    page = (UNITS / "README.md").read_text()
    for file in UNITS.iterdir():
        assert file.name == "README.md" or file.name.removesuffix(".example") in page, f"{file.name} is not explained"
    for code in ("57", "78"):
        assert f"| {code} |" in page
