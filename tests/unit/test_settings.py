"""Settings: every form of a value, who wins over whom, and mistakes that are named."""

from datetime import timedelta

import pytest
from leasehold.errors import BadSettings
from leasehold.settings import Settings, load_settings, redact_dsn

DSN = "postgresql://leasehold:s3cret@db.example.org/leasehold"


@pytest.fixture(autouse=True)
def _bare(bare):
    return


def refused(**given):
    with pytest.raises(BadSettings) as error:
        load_settings(**{"database_url": DSN, **given})
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), (" 90 s ", 90), ("2m", 120), ("1h30m", 5400), ("1h 30m", 5400), ("1.5h", 5400),
        ("1d", 86400), ("250ms", 0.25), ("2M", 120), ("PT2M", 120), ("P1DT12H", 129600), (45, 45), (0.5, 0.5),
        ("00:01:30", 90),
    ],
)  # fmt: skip
def test_a_duration_reads_as_people_write_it(text, seconds):
    assert load_settings(database_url=DSN, poll=text).poll == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5s",
        "0",
        "0s",
        "5 parsecs",
        "1h-30m",
        "nan",
        "inf",
        "9" * 14,
        "9" * 400,
        "9" * 12 + "d",
        True,
        1e300,
    ],
)
def test_a_duration_that_is_none_is_refused(text):
    assert refused(poll=text).startswith("poll: ")


def test_a_duration_that_is_none_is_refused_in_words_that_help():
    assert refused(poll="soon") == "poll: this is no duration; write 90, 90s, 2m, 1h30m or PT2M"


@pytest.mark.parametrize(
    ("text", "names"),
    [("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("a", ("a",)), ("", None), ("*", None), (",", None)],
)
def test_queues_are_names_with_commas_and_all_when_empty(bare, text, names):
    bare.setenv("LEASEHOLD_QUEUES", text)
    assert load_settings(database_url=DSN).queues == names


@pytest.mark.rule("A1")
def test_environment_wins_over_toml_and_toml_over_credentials(bare, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    bare.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    (credentials / "database_url").write_text("postgresql://credential\n")
    assert load_settings().database_url == "postgresql://credential"

    toml = tmp_path / "leasehold.toml"
    toml.write_text('database_url = "postgresql://toml"\nmax_runs = 3\n')
    bare.setenv("LEASEHOLD_CONFIG", str(toml))
    assert (load_settings().database_url, load_settings().max_runs) == ("postgresql://toml", 3)

    bare.setenv("LEASEHOLD_DATABASE_URL", "postgresql://environment")
    assert (load_settings().database_url, load_settings().max_runs) == ("postgresql://environment", 3)
    assert load_settings(database_url="postgresql://argument").database_url == "postgresql://argument"


def test_other_credentials_of_the_unit_are_none_of_our_business(bare, tmp_path):
    for name in ("database_url", "tls_key", "DATABASE_PASSWORD"):
        (tmp_path / name).write_text("postgresql://credential")
    bare.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_settings().database_url == "postgresql://credential"


@pytest.mark.rule("A3")
def test_no_address_is_said_in_plain_words():
    with pytest.raises(BadSettings, match="database_url is not set") as error:
        load_settings()
    assert "LEASEHOLD_" in error.value.hint


def test_an_unknown_variable_is_refused_with_the_nearest_name(bare):
    bare.setenv("LEASEHOLD_MAX_RUN", "3")
    assert refused() == "there is no setting LEASEHOLD_MAX_RUN; did you mean LEASEHOLD_MAX_RUNS?"


def test_an_unknown_key_of_the_toml_is_refused_with_the_nearest_name(bare, tmp_path):
    (tmp_path / "x.toml").write_text("renewel = 5\n")
    bare.setenv("LEASEHOLD_CONFIG", str(tmp_path / "x.toml"))
    assert refused() == "there is no setting renewel; did you mean renewal?"


def test_what_a_run_finds_in_its_own_environment_is_no_mistake(bare):
    """An agent may call `leasehold enqueue`."""
    for name in ("JOB_ID", "RUN_ID", "ATTEMPT", "TENANT", "KEEPER_ID"):
        bare.setenv(f"LEASEHOLD_{name}", "1")
    bare.setenv("LEASEHOLD_TEST_DSN", DSN)
    load_settings(database_url=DSN)


@pytest.mark.parametrize("text", [None, "max_runs = = 3", b"\xff\xfe"])
def test_a_named_toml_that_cannot_be_read_is_refused(bare, tmp_path, text):
    path = tmp_path / "named.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    bare.setenv("LEASEHOLD_CONFIG", str(path))
    assert "named.toml" in refused()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lease": "40s", "renewal": "15s", "margin": "20s"}, "lease must be longer than margin"),
        ({"grace": "20s", "margin": "20s"}, "grace must be shorter than margin"),
        ({"state_dir": "relative/dir"}, "state_dir must be absolute"),
        ({"max_runs": 0}, "max_runs: "),
        ({"max_runs": "many"}, "max_runs: "),
        ({"instance": "../other"}, "instance: "),
        ({"instance": ""}, "instance: "),
        ({"stop_mode": "explode"}, "stop_mode: "),
        ({"log_level": "loud"}, "log_level: "),
        ({"database_url": ""}, "database_url: "),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(given, words):
    assert words in refused(**given)


def test_every_mistake_is_told_at_once():
    assert len(refused(max_runs=0, poll="soon", log_level="loud").splitlines()) == 3


def test_a_refusal_never_repeats_the_password(bare):
    bare.setenv("LEASEHOLD_INSTANCE", "/")
    assert "s3cret" not in refused()


@pytest.mark.parametrize("name", ["poll", "renewal"])
def test_loops_slower_than_systemds_watchdog_are_refused(bare, name):
    bare.setenv("WATCHDOG_USEC", "90000000")
    load_settings(database_url=DSN, poll="40s")
    assert "WatchdogSec" in refused(**{name: "80s", "lease": "10m"})


def test_the_state_directory_is_systemds_else_the_users(bare, tmp_path):
    bare.setenv("XDG_STATE_HOME", str(tmp_path))
    bare.setattr("os.geteuid", lambda: 1000)
    assert load_settings(database_url=DSN).state_dir == tmp_path / "leasehold"
    assert load_settings(database_url=DSN).socket == tmp_path / "leasehold" / "keeper.sock"
    bare.setenv("STATE_DIRECTORY", "/var/lib/leasehold:/var/lib/other")
    assert str(load_settings(database_url=DSN).state_dir) == "/var/lib/leasehold"


def test_auto_detaches_under_systemd_and_drains_elsewhere(bare):
    assert load_settings(database_url=DSN).leave == "drain"
    bare.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert load_settings(database_url=DSN).leave == "detach"
    assert load_settings(database_url=DSN, stop_mode="interrupt").leave == "interrupt"


def test_effective_settings_are_shown_whole_and_without_the_password():
    shown = load_settings(database_url=DSN).redacted()
    assert set(shown) == set(Settings.model_fields)
    assert "s3cret" not in str(shown)
    assert shown["database_url"] == "postgresql://leasehold:***@db.example.org/leasehold"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:s3cret@h/d", "postgresql://u:s3cret@[::1]:5432/d?sslmode=require", "postgresql://:s3cret@h/d",
        "postgresql://u@h/d?password=s3cret", "postgresql:///d?host=/run&password=s3cret&user=u",
        "host=h password=s3cret user=u", "password=s3cret", "host=h password='s3cret s3cret' user=u",
        "postgresql://u:s3cret%40x@h/d", "cannot reach postgresql://u:s3cret@h/d: refused",
        "postgresql://u:s3@s3cret@h/d", "postgresql://u:s3cret/s3cret@h/d", "PASSWORD=s3cret", "password = s3cret",
    ],
)  # fmt: skip
def test_a_password_is_not_shown_wherever_it_stands(dsn):
    assert "s3cret" not in redact_dsn(dsn)


@pytest.mark.parametrize("text", ["postgresql://u@h:5432/d?host=/run", "see https://example.org/a:b", "user@host", ""])
def test_what_is_no_password_is_left_as_it_is(text):
    assert redact_dsn(text) == text


def test_settings_cannot_be_changed_and_every_one_is_explained():
    settings = load_settings(database_url=DSN)
    with pytest.raises(Exception, match="frozen"):
        settings.max_runs = 3
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("text", ["127.0.0.1:9464", "[::1]:9464", "localhost:0", " 127.0.0.1:9464 "])
def test_an_address_for_metrics_is_a_host_and_a_port(text):
    assert load_settings(database_url=DSN, metrics_address=text).metrics_address == text.strip()


@pytest.mark.parametrize("text", [None, "", " "])
def test_without_an_address_there_are_no_metrics(text):
    assert load_settings(database_url=DSN, metrics_address=text).metrics_address is None


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "127.0.0.1", "127.0.0.1:", "a:99999", "a:-1", "::1:9464", "a b:1", 9464]
)
def test_an_address_for_metrics_that_is_none_is_refused_with_an_example(text):
    assert refused(metrics_address=text) == "metrics_address: write host:port, for example 127.0.0.1:9464 or [::1]:9464"
