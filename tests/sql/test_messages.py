"""Conversations in words: what users and agents say is a row each, grows in place, counts once, and is followed without skipping."""

import asyncio
import json
import random

import pytest

MESSAGES = "select role, content, status from leasehold.messages where job_id = $1 order by id"


@pytest.fixture
def words(sql):
    """(role, content, status) of a job's messages."""

    async def one(job):
        return [tuple(row) for row in await sql.fetch(MESSAGES, job)]

    return one


def delta(run, mark, text, name="m"):
    return run, mark, "delta", text, {"id": name, "role": "agent"}


def whole(run, mark, text, name="m", **more):
    return run, mark, "message", text, {"id": name, "role": "agent"} | more


@pytest.mark.rule("S6", "S22", "S88", "SW24", "S64")
async def test_the_prompt_is_the_first_message_from_the_first_start_on(sql, worker, job, words, tell):
    born = await job(prompt="Make it so", thread="t", max_attempts=2)
    assert await words(born) == [], "an insert pays nothing for it"
    for _ in range(2):
        run = await worker.claim_one()
        assert (await worker.read([run]))[0]["prompt"] == "Make it so", "whatever was said last"
        await worker.start(run)
        await worker.start(run)
        await tell(whole(run, 1, "Do something else"))
        await worker.fail(run)
        await sql.execute("update leasehold.jobs set run_at = leasehold.clock(), due = true where id = $1", born)
    said = ("assistant", "Do something else", "completed")
    assert await words(born) == [("user", "Make it so", "completed"), said, said]
    assert await sql.fetchval("select array_agg(distinct thread) from leasehold.messages") == ["t"]


async def test_a_prompt_that_another_ask_has_joined_counts_all_of_its_bytes(sql, worker, job):
    key = {"concurrency_key": "k", "conflict_policy": "coalesce"}
    born = await job(prompt="Make it so", **key)
    await sql.execute("select leasehold.steer($1, 'also the docs')", born)
    more = "select leasehold.enqueue('fixer', 'Make it more so', concurrency_key => 'k', conflict_policy => 'coalesce')"
    await sql.execute(more)
    await worker.start(await worker.claim_job(born))
    row = await sql.fetchrow("select content, bytes, truncated from leasehold.messages where source = 'prompt'")
    assert "Make it more so" in row["content"]
    assert (row["bytes"], row["truncated"]) == (len(row["content"]), False)


@pytest.mark.rule("S6", "S89", "SW31")
async def test_pieces_grow_one_message_in_place_and_the_whole_closes_it(sql, tell, run, words, story, sane):
    await tell(delta(run, 1, "He"), delta(run, 2, "llo"))
    [first] = await sql.fetch("select * from leasehold.messages")
    assert (first["content"], first["status"], first["role"], first["thread"]) == (
        "Hello",
        "streaming",
        "assistant",
        "t",
    )
    await tell(delta(run, 3, " wor"), delta(run, 4, "x", "other"), delta(run, 5, "ld"))
    assert await words(run["job_id"]) == [("assistant", "Hello world", "streaming"), ("assistant", "x", "streaming")]
    await tell(whole(run, 6, "Hello, world!"))
    assert (await words(run["job_id"]))[0] == ("assistant", "Hello, world!", "completed")
    await tell(delta(run, 7, "more"))
    assert (await words(run["job_id"]))[0] == ("assistant", "Hello, world!", "completed"), "the whole is the truth"
    assert await story(run["job_id"]) == ["queued", "started", "message"], "pieces are no events"
    assert (
        await sql.fetchval("select content from leasehold.thread_messages where id = $1", first["id"])
        == "Hello, world!"
    )
    await sane()


async def test_pieces_and_their_whole_in_one_batch(tell, run, words):
    await tell(delta(run, 1, "a"), delta(run, 2, "b"), whole(run, 3, "ab."), delta(run, 4, "c", "n"))
    assert await words(run["job_id"]) == [("assistant", "ab.", "completed"), ("assistant", "c", "streaming")]


@pytest.mark.rule("X13")
async def test_a_mark_makes_each_piece_count_once(sql, tell, worker, run, words):
    batch = [
        delta(run, 1, "a"),
        delta(run, 4, "b"),
        (run, 5, "message", "alone", None),
        (run, 6, "progress", "p", None),
    ]
    for _ in range(3):  # the answer got lost
        await tell(*batch)
    await tell(*batch[1:], delta(run, 7, "c"), delta(run, 8, "d"))
    await tell(delta(run, 2, "no"), delta(run, 8, "no"), delta(run, 9, "e"))
    assert await words(run["job_id"]) == [("assistant", "abcde", "streaming"), ("assistant", "alone", "completed")]
    assert (await worker.read([run]))[0]["events_mark"] == 9
    assert await sql.fetchval("select count(*) from leasehold.events where kind in ('message', 'progress')") == 2


async def test_words_without_a_name_are_a_message_each_and_words_of_the_user_are_not_said_twice(tell, run, words):
    await tell((run, 1, "message", "a", None), (run, 2, "message", "a", {}), (run, None, "message", "b", None))
    await tell((run, 3, "message", "the prompt", {"role": "user"}), (run, 4, "message", "s", {"role": "system"}))
    await tell(
        (run, 5, "message", None, {"id": "x"}), (run, 6, "message", "odd", ["id"]), (run, 7, "delta", "d", "odd")
    )
    assert [(role, text) for role, text, _ in await words(run["job_id"])] == [
        ("assistant", "a"), ("assistant", "a"), ("assistant", "b"), ("system", "s"), ("assistant", "odd"), ("assistant", "d"),
    ]  # fmt: skip


@pytest.mark.rule("S22", "SW36")
async def test_a_message_is_cut_at_its_limit_between_two_characters_and_goes_on_being_counted(sql, tell, run):
    part = "€" * 100_000
    for n in range(5):
        await tell(delta(run, n, part))
    row = await sql.fetchrow("select octet_length(content) as kept, truncated, bytes, content from leasehold.messages")
    assert (row["kept"], row["truncated"], row["bytes"]) == (1_048_575, True, 1_500_000)
    assert set(row["content"]) == {"€"}
    await tell(whole(run, 9, "short after all"))
    assert await sql.fetchval(
        "select (content, truncated, bytes) = ('short after all', false, 15) from leasehold.messages"
    )


@pytest.mark.rule("S124")
@pytest.mark.parametrize(
    ("outcome", "status"), [("succeeded", "completed"), ("failed", "failed"), ("interrupted", "failed")]
)
async def test_the_end_of_a_run_closes_what_streams(tell, worker, run, words, outcome, status):
    await tell(delta(run, 1, "half a sen"), whole(run, 2, "done", "n"))
    await worker.finish(run, outcome, {"failed": "refusal", "interrupted": "stopped"}.get(outcome))
    assert await words(run["job_id"]) == [("assistant", "half a sen", status), ("assistant", "done", "completed")]


async def test_a_run_that_is_not_live_says_nothing(tell, worker, job, run, words, hire):
    await worker.finish(run)
    assert [row[0] for row in await tell(delta(run, 1, "a"), whole(run, 2, "b"))] == [run["run_id"]]
    forged = dict(run) | {"run_token": worker.token}
    await tell(whole(forged, 3, "c"))
    assert await words(run["job_id"]) == []


async def test_an_agent_says_how_far_its_own_message_is(tell, run, words):
    await tell(whole(run, 1, "one", status="streaming"), whole(run, 2, "one two", status="streaming"))
    assert await words(run["job_id"]) == [("assistant", "one two", "streaming")]
    await tell(whole(run, 3, "one two", status="failed"))
    assert await words(run["job_id"]) == [("assistant", "one two", "failed")]


async def test_many_pieces_of_one_message_are_one_change(sql, tell, run):
    await tell(*[delta(run, n, "x") for n in range(400)])
    before = await sql.fetchval("select version from leasehold.messages")
    await tell(*[delta(run, n, "y") for n in range(400, 800)])
    assert await sql.fetchval("select version from leasehold.messages") == before + 1


@pytest.mark.rule("X20", "X21", "SW29")
async def test_messages_are_listed_from_a_mark_and_a_wrong_one_is_an_error(sql, tell, run, refused, login):
    await tell(*[(run, n, "message", f"m{n}", None) for n in range(5)])
    page = await sql.fetch("select * from leasehold.list_messages($1, rows_max => 3)", run["job_id"])
    rest = await sql.fetch("select * from leasehold.list_messages($1, $2)", run["job_id"], page[-1]["id"])
    assert [row["content"] for row in (*page, *rest)] == ["m0", "m1", "m2", "m3", "m4"]
    assert len(await sql.fetch("select * from leasehold.list_thread_messages('t', $1)", page[1]["id"])) == 3
    assert len(await sql.fetch("select * from leasehold.list_thread_messages('nobody')")) == 0
    async with refused("LH090"):
        await sql.fetch("select * from leasehold.list_messages($1, -1)", run["job_id"])
    async with refused("LH090"):
        await sql.fetch("select * from leasehold.message_changes('t1-2-3')")
    stranger = await login("leasehold_reader", "elsewhere")
    async with refused("LH023"):
        await stranger.fetch("select * from leasehold.list_messages($1)", run["job_id"])
    assert await stranger.fetch("select * from leasehold.message_changes()") == []
    await sql.execute("select leasehold.after_restore()")
    async with refused("LH033"):
        await sql.fetch("select * from leasehold.message_changes('m1-2-3')")


@pytest.mark.rule("X20", "S89")
@pytest.mark.race
async def test_a_reader_who_follows_sees_the_last_word_of_every_message(sql, hire, fixer, job, connect, tell):
    worker = await hire()
    for n in range(6):
        await job(thread="t" if n % 2 else "u")
    runs, over, seen = await worker.claim(), asyncio.Event(), {}

    async def writer(number):
        connection, chance = await connect(), random.Random(number)
        for mark in range(60):
            async with connection.transaction():
                batch = [delta(run, mark, f"{mark} ", str(chance.randrange(3))) for run in runs[number::3]]
                await tell(*batch, connection=connection)
                await asyncio.sleep(chance.choice([0] * 9 + [0.05]))

    async def reader():
        connection, cursor = await connect(), None
        while True:
            finishing = over.is_set()
            rows = await connection.fetch("select * from leasehold.message_changes($1, 50)", cursor)
            seen.update({row["id"]: row["content"] for row in rows})
            cursor = rows[-1]["cursor"] if rows else cursor
            if finishing and not rows:
                return
            await asyncio.sleep(0.002)

    reading = asyncio.create_task(reader())
    await asyncio.gather(*(writer(n) for n in range(3)))
    over.set()
    await asyncio.wait_for(reading, 20)
    stored = {row["id"]: row["content"] for row in await sql.fetch("select id, content from leasehold.messages")}
    assert seen == stored and len(stored) == 18
    assert sum(len(text.split()) for text in stored.values()) == 6 * 60
    some = await sql.fetch("select * from leasehold.message_changes(job => $1)", runs[0]["job_id"])
    assert {row["job_id"] for row in some} == {runs[0]["job_id"]} and len(some) == 3
    assert len(await sql.fetch("select * from leasehold.message_changes(thread => 'u')")) == 9


@pytest.mark.rule("X9")
async def test_a_tenant_reads_its_own_messages_and_nobody_writes_any(sql, tell, worker, job, login, refused):
    await job(tenant="acme", thread="t")
    run = await worker.claim_one()
    await tell(whole(run, 1, "secret"))
    acme, other = await login("leasehold_reader", "acme"), await login("leasehold_producer", "globex")
    for what in ("messages", "thread_messages"):
        assert await acme.fetchval(f"select count(*) from leasehold.{what}") == 1
        assert await other.fetchval(f"select count(*) from leasehold.{what}") == 0
    for statement in (
        "update leasehold.messages set content = 'x'",
        "delete from leasehold.messages",
        f"select leasehold.add_message({run['job_id']}, null, 'assistant', 'x')",
    ):
        async with refused("42501", hint=False):
            await other.execute(statement)


@pytest.mark.rule("S6", "S22", "S13")
async def test_role_and_status_are_closed_lists(sql, tell, run, refused):
    await tell(whole(run, 1, "x"))
    for column in ("role", "status", "source"):
        async with refused("23514", hint=False):
            await sql.execute(f"update leasehold.messages set {column} = 'odd'")


@pytest.mark.rule("A85", "G16")
async def test_a_reader_marks_what_it_has_read_of_a_job(sql, job, worker, refused, login):
    born = await job()
    mark = "select leasehold.mark_job_read($1, $2, $3)"
    assert await sql.fetchval(mark, born, "ann", 1) is False
    run = await worker.claim_one()
    assert await sql.fetchval(mark, born, "ann", 1) is True
    assert await sql.fetchval(mark, born, "ann", 2) is False
    assert await sql.fetchval(mark, born, "ann", 1) is False, "going back does nothing"
    assert await sql.fetchval(mark, born, "bob", 0) is True
    async with refused("LH114"):
        await sql.fetchval(mark, born, "ann", 3)
    stranger = await login("leasehold_reader", "elsewhere")
    async with refused("LH023"):
        await stranger.fetchval(mark, born, "ann", 1)
    await worker.finish(run)
    await sql.execute("select leasehold.delete_job($1)", born)
    assert await sql.fetchval("select count(*) from leasehold.job_marks") == 0


@pytest.mark.rule("S107")
@pytest.mark.parametrize("rule", ["messages", "artifacts", "workspace_changes", "jobs"])
async def test_they_go_with_their_job_or_sooner(sql, tell, worker, run, clock, hire, rule):
    await worker.start(run)
    await tell(whole(run, 1, "x"), (run, 2, "artifact", "a", {"content": "x"}))
    await sql.execute(
        "select leasehold.record_changes($1, $2, $3, $4, $5)",
        *worker.me, run["run_id"], run["run_token"], json.dumps([{"path": "a", "change_type": "added"}]),
    )  # fmt: skip
    await worker.finish(run)
    await sql.execute("update leasehold.retention set keep = case what when $1 then interval '1 day' end", rule)
    await clock.forward(days=2)
    after, sweeper = None, await hire(instance="beta")
    while row := await sql.fetchrow("select * from leasehold.sweep_retention($1, $2, $3)", *sweeper.me, after):
        after = row["what"]
    left = {
        what: await sql.fetchval(f"select count(*) from leasehold.{what}")
        for what in ("messages", "artifacts", "workspace_changes", "jobs")
    }
    assert (
        left == dict.fromkeys(left, 0)
        if rule == "jobs"
        else left == {"messages": 2, "artifacts": 1, "workspace_changes": 1, "jobs": 1} | {rule: 0}
    )
