"""Lists: whoever pages through meets every row once, whoever polls loses none, and nobody sees what is not theirs."""

import asyncio

import pytest


@pytest.fixture
def pages(sql):
    """All pages of a list, as the ids in them, and the last cursor."""

    async def all_of(call, what="id", most=200):
        found, cursor = [], None
        for _ in range(most):
            rows = await sql.fetch(f"select * from leasehold.{call.format(after='$1::text')}", cursor)
            found.append([row[what] for row in rows])
            if not rows:
                return found[:-1], cursor
            cursor = rows[-1]["cursor"]
        raise AssertionError("it does not end")

    return all_of


@pytest.fixture
async def crowd(sql, fixer, clock, job):
    """Twelve jobs, six priorities, three queues, two at each moment."""
    jobs = []
    for n in range(12):
        jobs.append(await job(prompt=f"job {n}", priority=n * 7 % 6, queue=f"q{n % 3}", thread=f"t{n % 2}"))
        if n % 2:
            await clock.forward(microseconds=1)
    return jobs


@pytest.mark.rule("S110", "A84", "P84", "G39", "O19", "O20", "O21", "X21")
@pytest.mark.parametrize("sort", ["newest", "oldest", "priority", "started"])
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_the_pages_are_the_whole_list_in_its_order(sql, crowd, worker, pages, sort, size):
    await worker.claim(5)
    order, where = {
        "newest": ("id desc", "true"),
        "oldest": ("id", "true"),
        "priority": ("priority desc, created_at, id", "true"),
        "started": ("started_at, id", "started_at is not null"),
    }[sort]
    expected = [row["id"] for row in await sql.fetch(f"select id from leasehold.jobs where {where} order by {order}")]
    found, _ = await pages(f"list_jobs(sort => '{sort}', rows_max => {size}, after => {{after}})")
    assert [one for page in found for one in page] == expected
    assert all(len(page) == size for page in found[:-1])


@pytest.mark.rule("X21", "AW18", "GW6")
async def test_filters_come_before_the_limit(sql, crowd, pages, worker):
    for filters, where in (
        ("queue => 'q1'", "queue = 'q1'"),
        ("thread => 't1', queue => 'q2'", "thread = 't1' and queue = 'q2'"),
        ("status => 'queued', agent => ' FIXER '", "status = 'queued'"),
        ("agent => 'nobody'", "false"),
    ):
        expected = [
            row["id"] for row in await sql.fetch(f"select id from leasehold.jobs where {where} order by id desc")
        ]
        found, _ = await pages(f"list_jobs({filters}, rows_max => 1, after => {{after}})")
        assert found == [[one] for one in expected]
    await sql.execute("select leasehold.cancel(id) from leasehold.jobs where queue = 'q0'")
    assert sum(map(len, (await pages("list_jobs('ended', after => {after})"))[0])) == 4
    assert sum(map(len, (await pages("list_jobs('cancelled', after => {after})"))[0])) == 4
    assert sum(map(len, (await pages("list_jobs('live', after => {after})"))[0])) == 8


@pytest.mark.rule("X21", "AW16", "AW15", "AW39")
async def test_an_empty_page_lets_the_caller_keep_the_cursor_and_what_comes_lies_behind_it(sql, crowd, pages, job):
    found, cursor = await pages("list_jobs(sort => 'oldest', rows_max => 5, after => {after})")
    assert sum(map(len, found)) == 12
    new = await job()
    rows = await sql.fetch("select id from leasehold.list_jobs(sort => 'oldest', after => $1)", cursor)
    assert [row["id"] for row in rows] == [new]


@pytest.mark.rule("X21", "AW17")
@pytest.mark.parametrize(
    "cursor", ["", "0", "newest-", "newest-1-2", "oldest-1", "newest-x", "NEWEST-1", "newest-99999999999999999999"]
)
async def test_what_is_not_a_cursor_of_this_list_is_an_error(sql, fixer, refused, cursor):
    async with refused("LH090"):
        await sql.fetch("select * from leasehold.list_jobs(after => $1)", cursor)
    for call in ("list_threads(after => $1)", "list_thread_events('t', after => $1)", "thread_changes($1)"):
        async with refused("LH090"):
            await sql.fetch(f"select * from leasehold.{call}", cursor)


@pytest.mark.rule("X21", "AW17")
async def test_what_looks_like_a_cursor_and_names_no_place_is_an_error_too(sql, fixer, refused):
    far = "-" + "9" * 18
    for call, cursor in (
        ("list_jobs(sort => 'started', after => $1)", f"started-1-{far}"),
        ("list_jobs(sort => 'priority', after => $1)", f"priority-1-{far}-5"),
        ("list_threads(after => $1)", f"th0-{far}-0-61"),
        ("list_threads(after => $1)", "th0-0-0-ff"),
        ("list_threads(after => $1)", "th0-0-0-00"),
        ("list_threads('active', after => $1)", "th2-0-0-61"),
        ("list_thread_events('t', after => $1)", f"te{far}-1-1"),
    ):
        async with refused("LH090"):
            await sql.fetch(f"select * from leasehold.{call}", cursor)


@pytest.mark.rule("S110", "SW30", "A68", "AW21", "P84", "PW42", "G40", "OW17")
@pytest.mark.parametrize(("wanted", "gets"), [(None, 50), (0, 1), (-5, 1), (7, 7), (2_000_000_000, 100)])
async def test_limits_are_brought_into_their_range(sql, fixer, wanted, gets):
    await sql.execute(
        "insert into leasehold.jobs (agent, prompt, thread) select 'fixer', 'x', 't' || n from generate_series(1, 120) n"
    )
    for call in ("list_jobs(rows_max => $1)", "list_threads('all', rows_max => $1)"):
        assert len(await sql.fetch(f"select from leasehold.{call}", wanted)) == gets
    await sql.execute("update leasehold.heads set seq = 1201 where job_id = 1")
    await sql.execute(
        "insert into leasehold.events (job_id, seq, tenant, kind) select 1, n, 'default', 'message' from generate_series(2, 1201) n"
    )
    many = len(await sql.fetch("select from leasehold.list_events(1, 0, $1)", wanted))
    assert many == {50: 200, 100: 1000}.get(gets, gets)


@pytest.mark.rule("SW29", "A56", "AW21", "P84", "G40", "O17", "X20")
async def test_every_event_of_a_job_is_reached_and_the_job_must_exist(sql, worker, job, refused, login):
    born = await job(tenant="acme")
    run = await worker.claim_job(born)
    await worker.say(*((run, n, f"word {n}") for n in range(500)))
    seen, after = [], 0
    while rows := await sql.fetch("select seq from leasehold.list_events($1, $2, 200)", born, after):
        seen += [row["seq"] for row in rows]
        after = seen[-1]
    assert seen == list(range(1, 503))
    async with refused("LH023"):
        await sql.fetch("select * from leasehold.list_events(4711)")
    stranger = await login("leasehold_reader", "globex")
    async with refused("LH023"):
        await stranger.fetch("select * from leasehold.list_events($1)", born)
    async with refused("LH090"):
        await sql.fetch("select * from leasehold.list_events($1, -1)", born)


@pytest.mark.rule("O18", "X21")
async def test_the_events_of_a_thread_newest_first(sql, worker, clock, job, pages):
    first, second = await job(thread="t"), await job(thread="t")
    await job(thread="u")
    await clock.forward(seconds=1)
    await worker.finish(await worker.claim_job(first))
    await clock.forward(seconds=1)
    await sql.execute("select leasehold.cancel($1)", second)
    found, _ = await pages("list_thread_events('t', rows_max => 2, after => {after})", "kind")
    assert found == [["cancelled", "succeeded"], ["started", "queued"], ["queued"]]


@pytest.mark.rule("A18", "A19", "A20", "A65", "A66", "A67", "AW15", "G38", "GW7", "X21")
@pytest.mark.parametrize("size", [1, 4, 100])
async def test_threads_come_active_first_then_unread_then_the_rest(sql, worker, clock, job, pages, size):
    for n in range(9):
        born = await job(thread=f"t{n}")
        if n % 3:
            await worker.finish(await worker.claim_job(born))
        if n % 3 == 2:
            await sql.execute(
                "select leasehold.mark_thread_read($1, 'ann', (select version from leasehold.threads where thread = $1))",
                f"t{n}",
            )
        if n % 2:
            await clock.forward(seconds=1)
    call = f"reader => 'ann', rows_max => {size}, after => {{after}})"
    whole, _ = await pages(f"list_threads('all', {call}", "thread")
    assert [one for page in whole for one in page] == ["t6", "t3", "t0", "t7", "t4", "t1", "t8", "t5", "t2"]
    for state, expected in (
        ("open", ["t6", "t3", "t0", "t7", "t4", "t1"]),
        ("active", ["t6", "t3", "t0"]),
        ("running", ["t6", "t3", "t0"]),
        ("queued", []),
        ("unread", ["t7", "t4", "t1"]),
        ("ended", ["t7", "t4", "t1", "t8", "t5", "t2"]),
        ("succeeded", ["t7", "t4", "t1", "t8", "t5", "t2"]),
        ("idle", []),
    ):
        found, _ = await pages(f"list_threads('{state}', {call}", "thread")
        assert [one for page in found for one in page] == expected, state
    row = await sql.fetchrow("select * from leasehold.list_threads()")
    assert (row["path"], row["active"], row["unread"]) == ("default/t6", True, None)


@pytest.mark.rule("A21", "A24", "A64", "A69", "A85", "AW19", "G31")
async def test_what_happened_after_the_version_that_was_read_is_unread(sql, worker, job, refused):
    born = await job(thread="t")
    seen = await sql.fetchval("select version from leasehold.threads")
    await worker.finish(await worker.claim_job(born))
    unread = "select unread from leasehold.list_threads('all', 'ann')"
    mark = "select leasehold.mark_thread_read('t', 'ann', $1)"
    assert await sql.fetchval(unread) is True
    assert await sql.fetchval(mark, seen) is True, "there is more since"
    assert await sql.fetchval(unread) is True
    now = await sql.fetchval("select version from leasehold.threads")
    assert await sql.fetchval(mark, now) is False
    assert await sql.fetchval(mark, seen) is False, "a late mark of what was read before takes nothing back"
    assert await sql.fetchval(unread) is False
    for wrong in (now + 1, -1, None):
        async with refused("LH094"):
            await sql.fetchval(mark, wrong)
    async with refused("LH093"):
        await sql.fetchval("select leasehold.mark_thread_read('nowhere', 'ann', 1)")


@pytest.mark.rule("A63", "A64")
async def test_an_active_thread_is_not_unread(sql, fixer, job):
    await job(thread="t")
    row = await sql.fetchrow("select active, unread from leasehold.list_threads('open', 'ann')")
    assert (row["active"], row["unread"]) == (True, False)


@pytest.mark.rule("AW20")
async def test_without_a_reader_nothing_is_unread_rather_than_everything(sql, worker, job, refused):
    await worker.finish(await worker.claim_job(await job(thread="t")))
    assert await sql.fetch("select from leasehold.list_threads()") == []
    assert await sql.fetchval("select unread from leasehold.list_threads('all')") is None
    async with refused("LH092"):
        await sql.fetch("select * from leasehold.list_threads('unread')")


@pytest.mark.rule("S37", "AW19")
async def test_a_reader_belongs_to_the_login_that_named_it(login, worker, job, sql, refused):
    one, other = await login("leasehold_reader", "acme"), await login("leasehold_reader", "acme")
    stranger = await login("leasehold_reader", "globex")
    await worker.finish(await worker.claim_job(await job(tenant="acme", thread="t")))
    version = await one.fetchval("select version from leasehold.threads")
    await one.execute("select leasehold.mark_thread_read('t', 'ann', $1)", version)
    unread = "select unread from leasehold.list_threads('all', 'ann')"
    assert [await one.fetchval(unread), await other.fetchval(unread)] == [False, True]
    assert [await who.fetchval("select count(*) from leasehold.read_cursors") for who in (one, other)] == [1, 0]
    assert await stranger.fetch("select * from leasehold.list_threads('all')") == []
    assert await stranger.fetch("select * from leasehold.threads") == []
    async with refused("LH093"):
        await stranger.execute("select leasehold.mark_thread_read('t', 'ann', 1)")
    for call in ("list_threads", "list_jobs"):
        async with refused("LH030"):
            await stranger.execute(f"select * from leasehold.{call}(tenant => 'acme')")
    for write in (
        "update leasehold.threads set title = 'x'",
        "delete from leasehold.read_cursors",
        "select leasehold.set_thread('t', 'x')",
    ):
        async with refused("42501", hint=False):
            await one.execute(write)


@pytest.mark.rule("X20", "X21", "GW4", "GW5")
async def test_changes_of_threads_never_skip_a_late_commit(sql, connect, fixer, job):
    slow, reader = await connect(), await connect()
    asking = "select thread, status, cursor from leasehold.thread_changes($1)"
    await job(thread="first")
    open_ = slow.transaction()
    await open_.start()
    await job(slow, thread="slow")
    await job(thread="quick")
    rows = await reader.fetch(asking, None)
    assert [row["thread"] for row in rows] == ["first"], "the page ends below the oldest open transaction"
    cursor = rows[-1]["cursor"]
    assert await reader.fetch(asking, cursor) == []
    await open_.commit()
    rows = await reader.fetch(asking, cursor)
    assert sorted(row["thread"] for row in rows) == ["quick", "slow"]
    await sql.execute("select leasehold.cancel(id) from leasehold.jobs where thread = 'first'")
    rows = await reader.fetch(asking, rows[-1]["cursor"])
    assert [(row["thread"], row["status"]) for row in rows] == [("first", "cancelled")]


@pytest.mark.race
@pytest.mark.rule("A81", "GW5", "X20")
async def test_a_poller_ends_with_what_is_there(sql, connect, fixer):
    """Many writers, one poller: in the end it has the last version of every thread."""
    done, known, cursor = asyncio.Event(), {}, None

    async def writer(number):
        connection = await connect()
        for turn in range(15):
            async with connection.transaction():
                for thread in range(3):
                    await connection.execute(
                        "insert into leasehold.jobs (agent, prompt, thread) values ('fixer', 'x', $1)",
                        f"t{(number + turn * thread) % 7}",
                    )
                await asyncio.sleep(0.003 * (number % 3))

    async def poll(reader):
        nonlocal cursor
        while True:
            last = done.is_set()
            rows = await reader.fetch("select * from leasehold.thread_changes($1, 5)", cursor)
            for row in rows:
                known[row["thread"]] = row["version"]
                cursor = row["cursor"]
            if last and not rows:
                return

    polling = asyncio.create_task(poll(await connect()))
    await asyncio.gather(*(writer(number) for number in range(6)))
    blocked = "select pg_snapshot_xmin(pg_current_snapshot()) > (select max(xid) from leasehold.threads)"
    while not await sql.fetchval(blocked):
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.wait_for(polling, 20)
    assert known == dict(await sql.fetch("select thread, version from leasehold.threads"))


async def test_a_restore_into_another_cluster_begins_anew(sql, fixer, job, refused):
    await job(thread="t")
    cursor = await sql.fetchval("select cursor from leasehold.thread_changes()")
    await sql.execute("select leasehold.after_restore()")
    async with refused("LH033"):
        await sql.fetch("select * from leasehold.thread_changes($1)", cursor)
