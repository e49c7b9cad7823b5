"""Which adapters there are, what each can do with an agent at work, and that the row counts."""

import pytest
from leasehold.agents.registry import ADAPTERS
from sql.talks import hears, inputs, steer, turn

CAN = "select name, converses, steerable, interruptible from leasehold.adapters order by name"


@pytest.mark.rule("A79", "G13")
async def test_every_adapter_is_a_row_that_anybody_may_read(sql, login):
    reader = await login("leasehold_reader", "acme")
    rows = {row["name"]: tuple(row)[1:] for row in await reader.fetch(CAN)}
    assert sorted(rows) == sorted(ADAPTERS)
    assert rows["codex"] == rows["claude"] == (True, True, True)
    assert rows["acp"] == (True, False, True), "the protocol has no word for a steer"
    assert rows["command"] == rows["codex-exec"] == (False, False, False)


@pytest.mark.rule("G13")
async def test_what_the_rows_say_is_what_the_programs_of_this_release_can(sql):
    for row in await sql.fetch(CAN):
        assert row["converses"] == hasattr(ADAPTERS[row["name"]], "owed"), row["name"]


@pytest.mark.rule("A79")
async def test_an_agent_can_only_have_one_that_there_is(sql, clock, refused):
    names = [row["name"] for row in await sql.fetch(CAN)]
    for name in names:
        await hears(sql, f"of-{name}", name)
    async with refused("LH044") as seen:
        await hears(sql, "of-none", "none")
    assert all(f"'{name}'" in seen.error.hint for name in names)


@pytest.mark.rule("G37")
@pytest.mark.parametrize("steerable", [True, False])
async def test_the_row_of_an_adapter_counts_whatever_its_program_could(sql, clock, hire, job, steerable):
    await hears(sql)
    await sql.execute("update leasehold.adapters set steerable = $1 where name = 'codex'", steerable)
    worker = await hire()
    made = await job(agent="talker")
    run = await worker.claim_job(made)
    await worker.start(run)
    said = await steer(sql, made)
    assert [kind for kind, *_ in await inputs(worker, run)] == (["steer"] if steerable else [])
    await worker.finish(run)
    assert (await turn(sql, said))["outcome"] == "follow_up"
