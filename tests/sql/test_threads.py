"""Threads follow their jobs on every path, keep what they know, and never stand in anybody's way."""

import asyncio

import asyncpg
import pytest

PROJECTED = """
    select t.thread, t.status, t.active, said.*
      from leasehold.threads t
     cross join lateral (
       select coalesce(case when bool_or(j.status = 'running') then 'running'
                            when bool_or(j.status = 'waiting') then 'waiting'
                            when bool_or(j.status in ('queued', 'deferred')) then 'queued' end,
                       (array_agg(j.status order by j.finished_at desc, j.id desc) filter (where j.finished_at is not null))[1]) as status,
              coalesce(bool_or(j.finished_at is null), false) as active
         from leasehold.jobs j
        where (j.tenant, j.thread) = (t.tenant, t.thread)) said
     where (t.status, t.active) is distinct from (said.status, said.active)"""
"""Threads whose status is not what their jobs say."""


@pytest.fixture
def thread(sql):
    """One thread as a row, after a look at all of them."""

    async def one(name="t"):
        assert await sql.fetch(PROJECTED) == []
        return await sql.fetchrow("select * from leasehold.threads where thread = $1", name)

    return one


@pytest.mark.rule("S12", "S79", "SW39", "A34", "A92", "X22")
async def test_a_thread_is_born_with_its_first_job_and_follows_it(sql, worker, job, thread):
    born = await job(thread="t", prompt="Look  at\nthe roof")
    row = await thread()
    assert (row["status"], row["active"], row["title"], row["resolved_at"]) == (
        "queued",
        True,
        "Look at the roof",
        None,
    )
    run = await worker.claim_job(born)
    assert (await thread())["status"] == "running"
    await worker.finish(run, result='{"summary": "It leaks"}')
    row = await thread()
    assert (row["status"], row["active"], row["last_job"], row["summary"]) == ("succeeded", False, born, "It leaks")


@pytest.mark.rule("S12", "S79", "S80", "SW8", "SW9", "SW10", "SW11", "A81", "A92", "X22")
@pytest.mark.parametrize(
    "path", ["failed", "timed_out", "blocked", "cancelled", "stopped", "expired", "lost", "retried"]
)
async def test_every_way_to_end_is_seen_in_the_thread_and_in_the_events(
    sql, worker, clock, job, thread, hire, story, path
):
    if path == "expired":
        await sql.execute("update leasehold.agents set queue_timeout = '1 minute'")
    born, before = await job(thread="t", max_losses=1), (await thread())["version"]
    ended = path
    if path in ("cancelled", "expired"):
        await clock.forward(minutes=1)
    if path == "cancelled":
        await sql.execute("select leasehold.cancel($1)", born)
    elif path == "expired":
        await worker.expire()
        ended = "timed_out"
    elif path == "lost":
        run, dead = None, await hire(instance="beta")
        run = await dead.claim_job(born)
        await clock.forward(minutes=10)
        watcher = await hire(instance="gamma")
        await watcher.reap()
        ended = "failed"
    else:
        run = await worker.claim_job(born)
        if path == "stopped":
            await sql.execute("select leasehold.cancel($1)", born)
            assert (await thread())["status"] == "running", "cancelled means that its processes are gone"
            await worker.finish(run, "cancelled", "cancelled")
            ended = "cancelled"
        elif path == "retried":
            await worker.fail(run)
            await sql.execute("select leasehold.retry($1)", born)
            row = await thread()
            assert (row["status"], row["active"], row["resolved_at"]) == ("queued", True, None)
            await worker.finish(await worker.claim_job(born))
            ended = "succeeded"
        else:
            reason = {"failed": "refusal", "timed_out": "total", "blocked": "budget"}[path]
            await worker.finish(run, path, reason)
    row = await thread()
    finished = await sql.fetchval("select finished_at from leasehold.jobs where id = $1", born)
    assert (row["status"], row["active"], row["resolved_at"]) == (ended, False, finished)
    assert row["version"] > before
    assert (await story(born))[-1] == ended, "and there is an event of it"


@pytest.mark.rule("X22")
async def test_a_job_that_goes_back_to_the_queue_takes_its_thread_along(worker, job, thread):
    born = await job(thread="t")
    await worker.finish(await worker.claim_job(born), "interrupted", "stopped")
    assert (await thread())["status"] == "queued"


@pytest.mark.rule("AW8")
async def test_of_several_jobs_running_comes_before_waiting_before_queued_before_the_last_end(
    sql, worker, clock, job, thread
):
    first = await job(thread="t", prompt="first")
    run = await worker.claim_job(first)
    second = await job(thread="t", prompt="second")
    held = await worker.claim_job(second)
    await sql.execute("alter table leasehold.jobs disable trigger guard")
    await sql.execute("update leasehold.jobs set status = 'waiting' where id = $1", second)
    third = await job(thread="t", prompt="third", concurrency_key="k")
    fourth = await job(thread="t", prompt="fourth", concurrency_key="k")
    assert (await thread())["status"] == "running"
    await worker.finish(run)
    assert (await thread())["status"] == "waiting"
    await sql.execute("update leasehold.jobs set status = 'running' where id = $1", second)
    await worker.finish(held)
    assert (await thread())["status"] == "queued"
    await sql.execute("select leasehold.cancel($1)", third)
    assert (await thread())["status"] == "queued", "the fourth was promoted"
    await clock.forward(seconds=1)
    await sql.execute("select leasehold.cancel($1)", fourth)
    row = await thread()
    assert (row["status"], row["last_job"], row["title"]) == ("cancelled", fourth, "first")


@pytest.mark.rule("X22")
async def test_a_live_job_that_is_deleted_leaves_its_thread_and_an_ended_one_leaves_its_word(sql, worker, job, thread):
    first = await job(thread="t")
    await worker.finish(await worker.claim_job(first), result='"done"')
    await sql.execute("delete from leasehold.jobs where id = $1", first)
    row = await sql.fetchrow("select * from leasehold.threads")
    assert (row["status"], row["summary"]) == ("succeeded", "done"), "what was cleaned away did happen"
    second = await job(thread="t")
    assert (await thread())["status"] == "queued"
    await sql.execute("delete from leasehold.jobs where id = $1", second)
    row = await sql.fetchrow("select * from leasehold.threads")
    assert (row["status"], row["active"], row["summary"]) == ("idle", False, "done")


@pytest.mark.rule("S80", "SW12")
async def test_a_summary_is_never_erased(worker, clock, job, thread, sql):
    first = await job(thread="t")
    await worker.finish(await worker.claim_job(first), result='{"summary": " all is well "}')
    await clock.forward(seconds=1)
    for ending in ({"outcome": "succeeded"}, {"outcome": "failed", "reason": "refusal"}):
        await worker.finish(await worker.claim_job(await job(thread="t")), **ending)
        assert (await thread())["summary"] == "all is well"
    await sql.execute("select leasehold.set_thread('t', summary => null)")
    assert (await thread())["summary"] == "all is well"
    await sql.execute("select leasehold.set_thread('t', summary => 'mine')")
    await job(thread="t")
    assert (await thread())["summary"] == "mine", "until another job has something to say"


@pytest.mark.rule("A72", "AW22")
async def test_a_title_is_made_once_and_nothing_but_a_person_changes_it(sql, fixer, job, thread):
    await job(thread="a", title="  The   roof ", prompt="x")
    await job(thread="b", prompt="  word\n\n" * 100)
    await job(thread="c", title="t" * 300, prompt="x")
    await job(thread="a", title="another", prompt="y")
    assert (await thread("a"))["title"] == "The roof"
    assert (await thread("b"))["title"] == " ".join(["word"] * 24)
    assert (await thread("c"))["title"] == "t" * 200
    await sql.execute("select leasehold.set_thread('a', title => ' Our roof ')")
    await sql.execute("select leasehold.set_thread('a', title => null)")
    await sql.execute("select leasehold.set_thread('a', title => '  ')")
    await job(thread="a", title="another", prompt="y")
    assert (await thread("a"))["title"] == "Our roof"


async def test_a_thread_made_by_hand_waits_for_its_jobs(sql, fixer, job):
    await sql.execute("select leasehold.set_thread('t', 'Later')")
    assert await sql.fetchval("select status from leasehold.threads") == "idle"
    await job(thread="t")
    row = await sql.fetchrow("select * from leasehold.threads")
    assert (row["status"], row["title"]) == ("queued", "Later")


async def test_what_is_rolled_back_moves_nothing(sql, fixer, job, thread):
    await job(thread="t")
    before = await thread()
    async with sql.transaction():
        try:
            async with sql.transaction():
                await job(thread="t")
                raise ZeroDivisionError
        except ZeroDivisionError:
            await job(thread="u")
    assert await thread() == before
    assert (await thread("u"))["status"] == "queued"
    assert await sql.fetchval("select count(*) from leasehold.thread_moves") == 0


async def test_an_open_transaction_of_a_producer_holds_no_thread(sql, worker, connect, job, thread, login):
    first = await job(thread="t")
    other = await connect()
    async with other.transaction():
        await job(other, thread="t", prompt="second")
        await other.execute("select leasehold.set_thread('t', 'x')")
        run = await asyncio.wait_for(worker.claim_job(first), 5)
        await asyncio.wait_for(worker.finish(run), 5)
        assert (await sql.fetchval("select status from leasehold.threads")) == "succeeded"
        assert await sql.fetchval("select count(*) from leasehold.thread_moves") == 0
    row = await thread()
    assert (row["status"], row["title"]) == ("queued", "x")


async def test_a_thread_that_somebody_holds_all_the_same_is_written_later(sql, worker, connect, job, thread):
    first = await job(thread="t")
    other = await connect()
    holding = other.transaction()
    await holding.start()
    await other.execute("set constraints all immediate")
    await job(other, thread="t", prompt="second")
    run = await asyncio.wait_for(worker.claim_job(first), 5)
    assert await sql.fetchval("select status from leasehold.threads") == "queued", (
        "held, and the claim did not wait for ever"
    )
    await holding.rollback()
    await worker.expire()
    assert (await thread())["status"] == "running"
    await worker.finish(run)
    assert await sql.fetchval("select count(*) from leasehold.thread_moves") == 0


async def test_constraints_made_immediate_still_see_every_move(sql, fixer, job, thread):
    async with sql.transaction():
        await sql.execute("set constraints all immediate")
        born = await job(thread="t")
        assert (await thread())["status"] == "queued"
        await sql.execute("select leasehold.cancel($1)", born)
        assert (await thread())["status"] == "cancelled"


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_old_snapshot_does_not_write_an_old_status(sql, worker, connect, job, thread, isolation):
    first, other = await job(thread="t"), await connect()
    async with other.transaction(isolation=isolation):
        await other.fetchval("select count(*) from leasehold.jobs")
        run = await worker.claim_job(first)
        await job(other, thread="t", prompt="second")
    await worker.expire()
    assert (await thread())["status"] == "running"
    await worker.finish(run)
    assert (await thread())["status"] == "queued"


async def test_jobs_without_a_thread_move_nothing(sql, worker, job):
    await worker.finish(await worker.claim_job(await job()))
    assert await sql.fetchval("select count(*) from leasehold.threads") == 0
    assert not await sql.fetchval("select is_called from leasehold.thread_versions")


@pytest.mark.race
async def test_many_at_the_same_threads_meet_no_deadlock_and_leave_the_truth(sql, connect, hire, fixer, eventually):
    """Batches over several threads in any order, claims, ends, cancels: nobody waits for another in a circle."""
    await sql.execute("set leasehold.now = ''")
    done = asyncio.Event()

    async def producer(number):
        connection = await connect()
        for turn in range(20):
            async with connection.transaction():
                for step in range(4):
                    await connection.execute(
                        "insert into leasehold.jobs (agent, prompt, thread, concurrency_key) select 'fixer', 'x', 't' || (n * $1 % 5), $2"
                        " from generate_series(1, 3) n",
                        number + 2,
                        "k" if (turn + step) % 3 == 0 else None,
                    )

    async def runner(number):
        connection, worker = await connect(), None
        worker = await hire(connection, instance=f"w{number}")
        while True:
            finished = done.is_set()
            runs = await worker.claim(10)
            for run in runs:
                await worker.finish(run)
            if finished and not runs:
                return
            await worker.expire()

    async def canceller():
        connection = await connect()
        while not done.is_set():
            for row in await connection.fetch(
                "select id from leasehold.jobs where status = 'queued' order by random() limit 3"
            ):
                try:
                    await connection.execute("select leasehold.cancel($1)", row["id"])
                except asyncpg.PostgresError as error:
                    assert error.sqlstate == "LH021", error
            await asyncio.sleep(0.01)

    runners = [asyncio.create_task(runner(number)) for number in range(3)]
    killer = asyncio.create_task(canceller())
    await asyncio.gather(*(producer(number) for number in range(5)))
    done.set()
    await asyncio.wait_for(asyncio.gather(killer, *runners), 60)
    await (await hire(instance="last")).expire()
    assert await sql.fetch(PROJECTED) == []
    assert await sql.fetchval("select count(*) from leasehold.thread_moves") == 0
    assert await sql.fetchval("select count(*) from leasehold.jobs where finished_at is null") == 0
    assert await sql.fetchval("select deadlocks from pg_stat_database where datname = current_database()") == 0


@pytest.mark.rule("S70")
async def test_a_job_of_a_thread_without_a_prompt_does_what_was_asked_there_last(sql, fixer, job, look, refused):
    async with refused("LH003"):
        await job(thread="t", prompt=None)
    async with sql.transaction():
        await sql.execute("select leasehold.set_thread('t', 'The roof')")
        first = await job(thread="t", prompt=" ", idempotency_key="k")
        second = await job(thread="t", prompt=None)
    assert [(await look(each))["prompt"] for each in (first, second)] == ["Work on thread: The roof"] * 2
    await sql.execute("select leasehold.set_thread('t', summary => 'It leaks')")
    assert (await look(await job(thread="t", prompt=None)))["prompt"] == "It leaks"
    await job(thread="t", prompt="Mend it")
    assert (await look(await job(thread="t", prompt=None)))["prompt"] == "Mend it"
    again = await sql.fetchrow("select * from leasehold.enqueue('fixer', ' ', thread => 't', idempotency_key => 'k')")
    assert (again["job_id"], again["disposition"]) == (first, "existing")


@pytest.mark.rule("S70")
async def test_what_was_said_to_an_agent_of_the_thread_was_asked_there_too(sql, worker, job, look):
    await sql.execute("insert into leasehold.agents (name, adapter, command) values ('talker', 'codex', '{codex}')")
    run = await worker.claim_job(made := await job(agent="talker", thread="t", prompt="Mend it"))
    await worker.start(run)
    await sql.execute("select leasehold.steer($1, 'and paint it')", made)
    assert (await look(await job(thread="t", prompt=None)))["prompt"] == "and paint it"
