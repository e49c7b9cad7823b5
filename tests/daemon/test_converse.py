"""Conversations under a real keeper with a real agent: whoever dies or is away in between, each thing is said once."""

import json
import os
import random
import signal
import time
from dataclasses import replace

import anyio
import pytest
from leasehold.models import Control
from leasehold.runs import converse
from support.chat.dialect import Chat
from support.chat.life import Notes, a_life, a_run
from support.keeper import KeeperProcess

pytestmark = pytest.mark.race


@pytest.fixture
def keeper(tmp_path):
    process = KeeperProcess(tmp_path / "state", "subreaper")
    process.start()
    yield process
    process.close()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "heard"


def heard(log):
    return [json.loads(line)["key"] for line in log.read_text().splitlines()] if log.exists() else []


def answer(number, to, decision="allow"):
    return Control("answer", number, None, {"request": to, "decision": decision})


async def test_a_prompt_goes_in_an_answer_comes_out_and_it_leaves_when_its_stdin_is_closed(keeper, log):
    notes = Notes()
    async with a_life(keeper, a_run("say:3 poll:a poll:b say:2"), notes, log) as life:
        ending = await life.end()
    assert ending.exit_code == 0
    assert heard(log) == ["init", "start", "reply:a", "reply:b"]
    words = [event.message for event in notes.events.values() if event.kind == "message"]
    assert words == ["0", "1", "2", "0", "1"]
    assert life.adapter.done and not life.adapter.owed


async def test_a_control_is_heard_and_then_taken(keeper, log):
    notes = Notes()
    async with a_life(keeper, a_run("until:docs ask:x"), notes, log) as life:
        life.want(Control("steer", 4, "no"))
        life.want(Control("steer", 5, "docs"))
        await life.until(lambda: life.adapter.waiting)
        life.want(answer(7, "x"))
        await life.end()
    assert heard(log) == ["init", "start", "turn:4", "turn:5", "answer:7"]
    assert notes.taken == ["turn:4", "turn:5", "answer:7"]


async def test_what_is_wanted_before_the_session_is_open_waits_for_it(keeper, log):
    notes = Notes()
    notes.controls.append(Control("steer", 1, "early"))
    async with a_life(keeper, a_run("until:early"), notes, log) as life:
        await life.end()
    assert heard(log)[0] == "init" and sorted(heard(log)) == ["init", "start", "turn:1"]


async def test_a_control_that_comes_too_late_is_not_taken(keeper, log):
    notes = Notes()
    async with a_life(keeper, a_run("say:1"), notes, log) as life:
        await life.until(lambda: life.adapter.done)
        life.want(Control("steer", 1, "late"))
        await life.end()
    assert notes.taken == [] and heard(log) == ["init", "start"]


@pytest.mark.parametrize("seed", range(4))
async def test_a_daemon_that_dies_at_any_moment_says_everything_once(keeper, log, seed):
    chance = random.Random(seed)
    notes, run = Notes(), a_run("say:5 poll:a ask:b say:5 until:go poll:c ask:d say:5")
    wanted = [answer(1, "b"), Control("steer", 2, "go"), answer(3, "d", "deny")]
    lives = 0
    while not notes.controls or keeper_run(keeper)["exit"] is None:
        lives += 1
        async with a_life(keeper, run, notes, log) as life:
            with anyio.move_on_after(chance.uniform(0.0, 0.25) if lives < 60 else 20):
                if lives % 3 == 0 and len(notes.controls) < len(wanted):
                    life.want(wanted[len(notes.controls)])
                await life.keeper.exited(run.id)
                await life.recorder.end()
    async with a_life(keeper, run, notes, log) as life:
        ending = await life.end()
    assert ending.exit_code == 0, lives
    assert sorted(heard(log)) == sorted(["init", "start", "reply:a", "answer:1", "turn:2", "reply:c", "answer:3"])
    assert sorted(notes.taken) == ["answer:1", "answer:3", "turn:2"]
    said = [event.message for _, event in sorted(notes.events.items()) if event.kind in ("message", "progress")]
    words = ["0", "1", "2", "3", "4"]
    assert said == [*words, "a: polled", "b: allow", *words, "c: polled", "d: deny", *words]


def keeper_run(keeper):
    caller = keeper.call()
    try:
        return caller.run(1) or {"exit": None}
    finally:
        caller.close()


async def test_a_daemon_that_dies_between_telling_and_noting_it_notes_it_in_its_next_life(keeper, log):
    notes, run = Notes(), a_run("until:go say:1")
    async with a_life(keeper, run, notes, log) as life:
        await life.until(lambda: life.adapter.ready)
        notes.away = True
        life.want(Control("steer", 9, "go"))
        await anyio.sleep(0.1)
        assert notes.taken == [] and "turn:9" not in heard(log), "nobody has told it while the database was away"
        notes.away = False
        await life.until(lambda: "turn:9" in heard(log))
    notes.taken.clear()
    async with a_life(keeper, run, notes, log) as life:
        await life.end()
    assert notes.taken == ["turn:9"] and heard(log).count("turn:9") == 1


async def test_an_agent_that_seems_done_is_not_let_go_before_it_is_known_what_an_earlier_life_was_asked(keeper, log):
    notes = Notes()
    notes.away = True
    async with a_life(keeper, a_run("say:1"), notes, log) as life:
        await life.until(lambda: life.adapter.over)
        await anyio.sleep(0.3)
        assert next(run for run in await life.keeper.kept() if run.run_id == 1).exit is None
        notes.away = False
        assert (await life.end()).exit_code == 0


async def test_a_run_that_ended_while_nobody_was_there_tells_what_it_had(keeper, log):
    notes, run = Notes(), a_run("until:go")
    async with a_life(keeper, run, notes, log) as life:
        life.want(Control("steer", 9, "go"))
        await life.until(lambda: "turn:9" in heard(log))
        await life.keeper.exited(run.id)
        notes.controls.append(Control("steer", 10, "never heard"))
    notes.taken.clear()
    async with a_life(keeper, run, notes, log) as life:
        life.talk._open = False  # there is nobody to be told
        await life.end()
    assert notes.taken == ["turn:9"]


async def test_while_it_waits_for_a_human_its_place_is_free_if_its_row_says_so(keeper, log):
    for policy, free in (("release", 1), ("keep", 0)):
        notes, run = Notes(), a_run("ask:x say:1", while_waiting=policy)
        run = a_run("ask:x say:1", while_waiting=policy, key=type(run.key)(1 + free, run.key.token))
        async with a_life(keeper, run, notes, log) as life:
            assert life.roster.free == 0
            await life.until(lambda life=life: life.adapter.waiting)
            await life.until(lambda life=life, free=free: life.roster.free == free)
            assert await life.freed.wait(at_most=0.1) is bool(free)
            assert life.talk.still()
            life.want(answer(7, "x"))
            await life.until(lambda life=life: life.roster.free == 0 and not life.talk.still())
            assert (await life.end()).exit_code == 0


class Alone(Chat):
    """Notices when somebody looks while it hears."""

    hearing = disturbed = False

    def receive(self, line):
        self.hearing = True
        time.sleep(0)  # lets another thread go on
        try:
            return super().receive(line)
        finally:
            self.hearing = False

    def _look(self):
        Alone.disturbed |= self.hearing

    @property
    def owed(self):
        self._look()
        return super().owed

    def taken(self, key):
        self._look()
        super().taken(key)

    def send(self, control):
        self._look()
        super().send(control)


async def test_nobody_touches_an_adapter_that_hears_in_a_thread(keeper, log):
    notes, parts = Notes(), 8
    script = " ".join(f"burst:600 poll:{number}" for number in range(parts))
    async with a_life(keeper, a_run(f"{script} until:end"), notes, log, dialect=Alone) as life:
        for number in range(40):
            life.want(Control("steer", number, "more"))
            await anyio.sleep(0.01)
        life.want(Control("steer", 99, "end"))
        assert (await life.end()).exit_code == 0
    assert not Alone.disturbed
    assert [key for key in heard(log) if key.startswith("reply")] == [f"reply:{number}" for number in range(parts)]
    assert len(heard(log)) == len(set(heard(log))) == 2 + parts + 41


async def test_an_agent_that_does_not_read_for_a_while_hears_all_of_it(keeper, log):
    notes = Notes()
    text = "x" * (3 << 20)
    async with a_life(keeper, a_run("say:1 deaf:1.5 until:last"), notes, log) as life:
        await life.until(lambda: any(event.kind == "message" for event in notes.events.values()))
        for number in range(12):
            life.want(Control("steer", number, text))
        life.want(Control("steer", 99, "last"))
        await life.end()
    assert heard(log)[2:] == [*(f"turn:{number}" for number in range(12)), "turn:99"]
    assert len(notes.taken) == 13


async def test_a_keeper_that_hangs_delays_and_loses_nothing(keeper, log):
    notes = Notes()
    async with a_life(keeper, a_run("until:go poll:a"), notes, log) as life:
        await life.until(lambda: life.adapter.ready)
        keeper.processes[-1].send_signal(signal.SIGSTOP)
        life.want(Control("steer", 1, "go"))
        await anyio.sleep(0.5)
        keeper.processes[-1].send_signal(signal.SIGCONT)
        await life.end()
    assert heard(log) == ["init", "start", "turn:1", "reply:a"] and notes.taken == ["turn:1"]


async def test_an_agent_that_closes_its_stdin_is_left_in_peace(keeper, log):
    notes = Notes()
    async with a_life(keeper, a_run("say:1 wait:30"), notes, log) as life:
        await life.until(lambda: notes.events)
        pid = next(run.pid for run in await life.keeper.kept() if run.run_id == 1)
        os.kill(pid, signal.SIGKILL)
        life.want(Control("steer", 1, "who is there?"))
        ending = await life.end()
    assert ending.signal == signal.SIGKILL and life.held.why is None


async def test_a_run_of_an_earlier_release_that_has_no_such_stdin_goes_on_by_itself(keeper, log):
    notes, run = Notes(), a_run("anything")
    caller = keeper.call()
    caller.sh(
        1,
        'echo \'{"session": 1}\'; sleep 0.4; echo \'{"done": "start"}\'',
        stdin={"text": "prompt"},
        token=str(run.key.token),
    )
    async with a_life(keeper, run, notes, log) as life:
        ending = await life.end()
    assert ending.exit_code == 0 and life.adapter.done and life.held.why is None


async def test_what_nobody_was_asked_is_not_waited_for(keeper, log, monkeypatch):
    monkeypatch.setattr(converse, "VAIN", 0.3)
    notes = Notes()
    async with a_life(keeper, replace(a_run("ask:x"), events_limit=0), notes, log) as life:
        await life.until(lambda: life.adapter.waiting and life.talk._asked)
        assert not [event for event in notes.events.values() if event.kind in ("question", "permission")]
        assert not life.talk.still(), "its clocks go on"
        await life.until(lambda: life.held.why == "unasked")
        life.want(answer(7, "x"))
        await life.end()
