"""The log: a closed list of names, one JSON object a line, no password, and a form for eyes."""

import ast
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import leasehold
import pytest
import structlog
from leasehold import log as logs
from leasehold.log import EVENTS, configure, render

SOURCE = Path(leasehold.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def said_in_source():
    """(event, file:line) of every log call of the daemon; the keeper has a log of its own."""
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "keeper"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if ast.unparse(node.func.value) in ("log", "structlog.get_logger()", "self._log"):
                where = f"{path.relative_to(SOURCE)}:{node.lineno}"
                yield from ((name, where) for name in names(node.args[0]))


def names(first):
    """A name, or one of two: anything else is no name and shows up as None."""
    if isinstance(first, ast.IfExp):
        return names(first.body) + names(first.orelse)
    return [first.value if isinstance(first, ast.Constant) else None]


def test_every_line_has_a_name_of_the_closed_list():
    found = list(said_in_source())
    assert len(found) > 20, "the search itself must find something"
    assert [(name, where) for name, where in found if name not in EVENTS] == []


def test_every_name_of_the_closed_list_is_said_somewhere():
    assert set(EVENTS) - {name for name, _ in said_in_source()} == set()


def test_every_name_is_explained_in_a_sentence():
    assert all(text.endswith(".") and text[0].isupper() for text in EVENTS.values())


@pytest.fixture
def lines(capsys):
    """What was printed since, as JSON objects. The test itself configures: its stdout is another than the fixture's."""
    yield lambda: [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    logging.basicConfig(handlers=[], force=True)


@pytest.fixture
def log():
    return structlog.get_logger()


@pytest.mark.rule("X30")
def test_a_line_is_one_json_object_that_begins_with_when_and_what(lines, log):
    configure("json", "info")
    log.info("run_claimed", job_id=42, run_id=7, note="two\nlines", what="Grüße \U0001f600")
    (line,) = lines()
    assert list(line)[:3] == ["ts", "level", "event"]
    assert line["ts"].endswith("Z")
    assert line | {"level": "info", "event": "run_claimed", "job_id": 42, "note": "two\nlines"} == line


def test_whatever_is_said_stays_one_line_of_json(lines, log):
    configure("json", "info")
    for odd in ("\x00\x1b[31m", "\ud800", b"\xff\xfe", {1: {2}}, float("nan"), Path("/x"), ValueError("x"), object()):
        log.info("run_claimed", odd=odd)
    assert len(lines()) == 8


def test_less_important_lines_are_left_out(lines, log):
    configure("json", "info")
    log.debug("claim_decided")
    assert lines() == []


def test_a_run_is_named_in_every_line_within_its_context(lines, log):
    configure("json", "info")
    with structlog.contextvars.bound_contextvars(job_id=1, run_id=2, attempt=3, agent="a", tenant="t", worker=4):
        log.info("run_spawned")
    log.info("daemon_ready")
    inside, outside = lines()
    assert {"job_id", "run_id", "attempt", "agent", "tenant", "worker"} <= inside.keys()
    assert not {"job_id", "run_id"} & outside.keys()


@pytest.mark.rule("X30")
@pytest.mark.parametrize(
    "value",
    [
        "postgresql://u:s3cret@h/d", "cannot reach postgresql://u:s3cret@h/d", "host=h password=s3cret",
        ConnectionError("postgresql://u:s3cret@h/d"), ["postgresql://u:s3cret@h/d"],
        {"a": {"b": ("password=s3cret",)}},
    ],
)  # fmt: skip
def test_a_password_does_not_reach_the_log_in_whatever_it_comes(lines, log, capsys, value):
    configure("json", "info")
    log.warning("database_away", error=value)
    assert "s3cret" not in capsys.readouterr().out


def test_a_password_in_a_traceback_does_not_reach_the_log(lines, log, capsys):
    configure("json", "info")
    try:
        raise ConnectionError("cannot reach postgresql://u:s3cret@h/d")
    except ConnectionError:
        log.exception("run_crashed")
    printed = capsys.readouterr().out
    assert "s3cret" not in printed and "ConnectionError" in printed


def test_libraries_speak_in_the_same_form(lines):
    configure("json", "info")
    logging.getLogger("some.library").warning("odd: %s", "postgresql://u:s3cret@h/d")
    logging.getLogger("some.library").info("chatter")
    (line,) = lines()
    assert (line["event"], line["logger"]) == ("library", "some.library")
    assert "s3cret" not in line["message"]


def test_a_line_for_eyes_says_when_what_who_and_the_rest():
    line = {
        "ts": "2026-01-02T03:04:05.678Z", "level": "warning", "event": "run_lost", "job_id": 42, "run_id": 7,
        "attempt": 1, "agent": "fixer", "tenant": "default", "worker": 3, "why": "two words", "none": None,
    }  # fmt: skip
    text = render(line, colours=False)
    assert text.split() == ["03:04:05", "▲", "run_lost", "42/7/1/fixer", 'why="two', 'words"']


def test_a_line_for_eyes_has_colours_only_on_a_terminal():
    line = {"ts": "2026-01-02T03:04:05Z", "level": "error", "event": "lease_lost", "note": "a\nb"}
    assert "\x1b[" in render(line, colours=True)
    plain = render(line, colours=False)
    assert "\x1b" not in plain and "\n" not in plain


def test_a_line_for_eyes_is_not_driven_by_what_an_agent_says():
    line = {"ts": "", "level": "info", "event": "run_settled", "message": "\x1b[2Jgone"}
    assert "\x1b[2J" not in render(line, colours=False)


def test_auto_is_json_when_nobody_looks(capsys):
    configure("auto", "info")
    structlog.get_logger().info("daemon_ready")
    assert json.loads(capsys.readouterr().out)["event"] == "daemon_ready"
    structlog.reset_defaults()


SPEAK = """
import os, sys, structlog
from leasehold.log import configure
configure("json", "info")
{before}
structlog.get_logger().info("daemon_ready", note="ü")
sys.stderr.write("alive")
"""


def speak(before="", **given):
    """A process of its own that logs one line to a stdout of its own."""
    words = [sys.executable, "-c", SPEAK.format(before=before)]
    return subprocess.run(words, stderr=subprocess.PIPE, timeout=20, check=False, **given)


def test_a_log_that_nobody_reads_any_more_hurts_nobody():
    """`leasehold daemon | head`: the agents' leases do not hang on a pipe."""
    said = speak("r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)")
    assert (said.returncode, said.stderr) == (0, b"alive")


def test_a_log_on_a_full_disk_hurts_nobody():
    with Path("/dev/full").open("wb") as full:
        assert speak(stdout=full).stderr.startswith(b"alive")


def test_a_line_is_utf8_whatever_the_locale_says():
    said = speak(stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert json.loads(said.stdout)["note"] == "ü"


def test_a_name_has_its_glyph_and_colour_at_every_level():
    assert logs.GLYPHS.keys() == logs.COLOURS.keys() == LEVELS - {"exception"}
