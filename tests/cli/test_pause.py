"""pause, resume and retention at a terminal: the SQL functions and tables of these names."""

import json

import pytest


@pytest.mark.parametrize(("scope", "name"), [("queue", "nightly"), ("tenant", "acme"), ("host", "h1"), ("all", None)])
async def test_what_is_paused_is_held_until_it_is_resumed(leasehold, sql, scope, name):
    words = [scope, *([name] if name else [])]
    assert await leasehold("pause", *words, "--reason", "the model is down") == (0, f"{' '.join(words)} paused\n", "")
    holds = await sql.fetch("select scope, name, reason, message from leasehold.holds")
    assert [tuple(row) for row in holds] == [(scope, name or "", "paused", "the model is down")]
    assert await leasehold("resume", *words) == (0, f"{' '.join(words)} resumed\n", "")
    assert await sql.fetchval("select count(*) from leasehold.holds") == 0


async def test_an_agent_is_paused_and_resumed(leasehold, sql, agent):
    await agent("any", "true")
    code, out, _ = await leasehold("pause", "agent", "any", "--reason", "broken", "--json")
    assert (code, json.loads(out)) == (0, {"scope": "agent", "name": "any", "answer": "paused"})
    row = await sql.fetchrow("select status, status_reason from leasehold.agents")
    assert tuple(row) == ("paused", "broken")
    assert (await leasehold("resume", "agent", "any"))[0] == 0
    assert await sql.fetchval("select status from leasehold.agents") == "enabled"


@pytest.mark.parametrize(
    "words", [["pause", "queue"], ["pause", "all", "x"], ["resume", "agent"], ["pause", "everything"]]
)
async def test_half_a_sentence_is_wrong_usage(leasehold, words):
    code, out, err = await leasehold(*words)
    assert code == 2 and out == "" and "Traceback" not in err


async def test_an_agent_that_is_not_there(leasehold):
    code, _, err = await leasehold("pause", "agent", "nobody")
    assert code == 1 and "LH024" in err and "hint: " in err


async def test_retention_shows_what_is_kept_and_what_still_has_to_go(leasehold, sql):
    code, out, _ = await leasehold("retention")
    assert code == 0 and "90 days" in out and "as long as their job" in out and "directories" not in out
    await sql.execute("update leasehold.retention set keep = null, removed = 17 where what = 'jobs'")
    await sql.execute("""insert into leasehold.removals (host_id, keeper_id, what, path, attempts, error)
        values ('h', 'k', 'session', 'sessions/one', 3, 'it is stuck')""")
    _, out, _ = await leasehold("retention")
    assert "for ever" in out and "17" in out and "sessions/one" in out and "it is stuck" in out
    said = json.loads((await leasehold("retention", "--json"))[1])
    assert {rule["what"]: rule["keep"] for rule in said["rules"]}["output"] == "30 days"
    assert said["removals"][0]["path"] == "sessions/one"
