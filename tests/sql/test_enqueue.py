"""enqueue(): one request, one job, however often and from however many places it is sent."""

import asyncio
import collections

import asyncpg
import pytest

ENQUEUE = "select * from leasehold.enqueue('fixer', $1, idempotency_key => $2)"


@pytest.mark.rule("S1", "A22")
async def test_enqueue_returns_the_job_and_what_became_of_it(sql, fixer, look):
    row = await sql.fetchrow(
        "select * from leasehold.enqueue(agent => 'fixer', prompt => 'p', project => 'x', queue => 'slow', kind => 'review',"
        " title => 't', payload => '{\"a\": 1}', priority => 5, max_attempts => 3, labels => '{\"l\": 1}')"
    )
    assert row["disposition"] == "accepted"
    job = await look(row["job_id"])
    assert [job[c] for c in ("project", "queue", "kind", "title", "payload", "priority", "max_attempts", "labels")] == [
        "x", "slow", "review", "t", '{"a": 1}', 5, 3, '{"l": 1}',
    ]  # fmt: skip


@pytest.mark.rule("S67", "A22", "A80", "AW14", "PW22", "OW19")
async def test_the_same_request_finds_the_same_job(sql, fixer, story):
    first = await sql.fetchrow(ENQUEUE, "p", "k")
    again = await sql.fetchrow(ENQUEUE, "p", "k")
    assert (again["job_id"], again["disposition"]) == (first["job_id"], "existing")
    assert await story(first["job_id"]) == ["queued"]


async def test_leaving_out_is_the_same_as_the_default_and_names_are_normalised(sql, fixer):
    await sql.fetchrow(ENQUEUE, "p", "k")
    again = await sql.fetchrow(
        "select * from leasehold.enqueue(' FIXER ', 'p', queue => ' default ', priority => 0, payload => '{}',"
        " max_attempts => 1, labels => '{}', kind => '', idempotency_key => 'k')"
    )
    assert again["disposition"] == "existing"


@pytest.mark.rule("A80", "AW13", "X5")
@pytest.mark.parametrize(
    "other",
    [
        "prompt => 'other'", "priority => 1", "payload => '{\"a\": 1}'", "queue => 'q'", "kind => 'k'", "project => 'p'", "title => 't'",
        "run_at => '2031-01-01'", "concurrency_key => 'c'", "max_attempts => 2", "labels => '{\"a\": 1}'",
    ],
)  # fmt: skip
async def test_another_request_under_the_same_key_is_refused(sql, fixer, refused, other):
    known = await sql.fetchval(
        "select job_id from leasehold.enqueue(agent => 'fixer', prompt => 'p', idempotency_key => 'k')"
    )
    prompt = "" if other.startswith("prompt") else "prompt => 'p', "
    async with refused("LH031", f'idempotency key "k" was used for another request (job {known})') as refusal:
        await sql.execute(f"select leasehold.enqueue(agent => 'fixer', {prompt}{other}, idempotency_key => 'k')")
    assert refusal.error.detail == f"job_id={known}"


async def test_times_are_compared_as_instants_whatever_the_session_shows(sql, fixer):
    same = "select disposition from leasehold.enqueue('fixer', 'p', run_at => '2031-01-01 12:00+00', idempotency_key => 'k')"
    assert await sql.fetchval(same) == "accepted"
    await sql.execute("set timezone = 'Asia/Tokyo'")
    assert await sql.fetchval(same) == "existing"


@pytest.mark.rule("X4")
async def test_a_plain_insert_counts_as_a_request(sql, fixer, job, refused):
    born = await job(prompt="p", idempotency_key="k")
    assert await sql.fetchval(ENQUEUE.replace("*", "job_id"), "p", "k") == born
    async with refused("LH031"):
        await sql.execute(ENQUEUE, "q", "k")


@pytest.mark.rule("AW12", "X4")
async def test_it_still_holds_after_the_job_has_ended(sql, worker, refused):
    job = await sql.fetchval(ENQUEUE.replace("*", "job_id"), "p", "k")
    await worker.finish(await worker.claim_one())
    assert tuple(await sql.fetchrow(ENQUEUE, "p", "k")) == (job, "existing")
    async with refused("LH031"):
        await sql.execute(ENQUEUE, "q", "k")


async def test_a_job_behind_its_concurrency_key_is_born_deferred(sql, fixer):
    ask = "select disposition from leasehold.enqueue('fixer', 'p', concurrency_key => 'k')"
    assert [await sql.fetchval(ask), await sql.fetchval(ask)] == ["accepted", "deferred"]


@pytest.mark.rule("A80")
async def test_the_same_key_of_two_tenants_is_two_jobs(sql, fixer):
    for tenant in ("acme", "globex"):
        row = await sql.fetchrow("select * from leasehold.enqueue('fixer', $1, $1, idempotency_key => 'k')", tenant)
        assert row["disposition"] == "accepted"


async def test_enqueue_checks_like_an_insert(sql, fixer, refused):
    async with refused("LH003"):
        await sql.execute("select leasehold.enqueue('fixer', null)")
    async with refused("LH001"):
        await sql.execute("select leasehold.enqueue('fixr', 'p')")


@pytest.mark.rule("AW14", "PW22", "G22", "GW8", "X4")
@pytest.mark.race
async def test_racing_callers_make_one_job_of_one_request(sql, fixer, connect, sane):
    callers, heard = [await connect() for _ in range(16)], collections.Counter()

    async def call(connection, prompt, key, isolation):
        for _ in range(20):
            try:
                async with connection.transaction(isolation=isolation):
                    row = await connection.fetchrow(ENQUEUE, prompt, key)
                    await asyncio.sleep(0.002)
                    return prompt, row["job_id"], row["disposition"]
            except asyncpg.SerializationError:
                heard["40001"] += 1
            except asyncpg.PostgresError as error:
                return prompt, None, error.sqlstate
        raise AssertionError("never settled")

    for turn in range(12):
        isolation = "repeatable_read" if turn % 4 == 3 else "read_committed"
        prompts = ["same"] * 16 if turn % 2 else ["same", "other"] * 8
        answers = await asyncio.gather(
            *(call(c, p, f"k{turn}", isolation) for c, p in zip(callers, prompts, strict=True))
        )
        heard.update(answer[2] for answer in answers)
        assert len({job for _, job, _ in answers if job}) == 1
        assert len({prompt for prompt, job, _ in answers if job}) == 1
        assert sum(answer[2] == "accepted" for answer in answers) == 1
        assert {answer[2] for answer in answers} <= {"accepted", "existing", "LH031"}
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 12
    await sane()
