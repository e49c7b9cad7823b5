"""`leasehold steer`, `interactions`, `answer`: a word with an agent at work, from a terminal."""

import json

import pytest
from sql.people import register
from sql.talks import COLOUR, WORDS, asked, hears, permission, question, said


@pytest.fixture
async def run(sql, insert):
    """A run of an agent that can be spoken to, and its job."""
    await hears(sql)
    job = await insert("talker", "Mend the roof")
    worker = await register(sql)
    [run] = await worker.claim()
    assert run["job_id"] == job
    return run


async def test_an_agent_at_work_is_steered_prompted_and_interrupted(leasehold, run):
    job = str(run["job_id"])
    code, out, _ = await leasehold("steer", job, "also the docs", "--idempotency-key", "k")
    assert (code, out) == (0, "turn 1 pending\n")
    turn = json.loads((await leasehold("steer", job, "also the docs", "--idempotency-key", "k", "--json"))[1])
    assert (turn["id"], turn["state"], turn["deliverable"]) == (1, "pending", True)
    assert (await leasehold("prompt", job, "then the tests"))[1] == "turn 2 pending\n"
    assert (await leasehold("interrupt", job, "--reason", "wrong way"))[1] == "turn 3 pending\n"
    code, out, _ = await leasehold("turns", job, "--after", "1", "--json")
    assert [(row["seq"], row["kind"], row["text"]) for row in json.loads(out)] == [
        (2, "prompt", "then the tests"), (3, "interrupt", "wrong way"),
    ]  # fmt: skip
    assert "then the tests" in (await leasehold("turns", job))[1]


async def test_a_turn_that_waits_says_why(leasehold, sql, agent, insert):
    await agent("plain", "true")
    job = await insert("plain", "x")
    code, out, _ = await leasehold("steer", str(job), "also the docs")
    assert code == 0 and 'agent "plain" cannot be steered' in out


async def test_what_agents_ask_is_listed_and_answered(leasehold, sql, run):
    await said(sql, run, permission())
    await said(sql, run, question(COLOUR, WORDS))
    rows = json.loads((await leasehold("interactions", "--json"))[1])
    assert [(row["kind"], row["status"]) for row in rows] == [("permission", "pending"), ("question", "pending")]
    out = (await leasehold("interactions", "--job", str(run["job_id"])))[1]
    assert "proceed_once, proceed_always, cancel" in out and "colour: Red, Blue; words: any words" in out
    assert (await leasehold("answer", str(rows[0]["id"]), "allow"))[:2] == (
        0,
        f"interaction {rows[0]['id']} answered\n",
    )
    code, out, _ = await leasehold(
        "answer", str(rows[1]["id"]), "--answers", '{"colour": "red", "words": "why not"}', "--message", "go", "--json"
    )
    assert (code, json.loads(out)) == (0, {"interaction": rows[1]["id"], "answer": "answered"})
    assert json.loads((await asked(sql))["response"])["answers"] == {"colour": ["Red"], "words": ["why not"]}
    assert json.loads((await leasehold("interactions", "--json"))[1]) == []
    assert len(json.loads((await leasehold("interactions", "--all", "--json"))[1])) == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["steer", "99", "x"], 1, "LH023"),
        (["answer", "99", "x"], 1, "LH105"),
        (["answer", "99", "--answers", "[]"], 2, "must be a JSON object"),
    ],
)
async def test_what_is_wrong_is_said(leasehold, words, code, says):
    ended, out, err = await leasehold(*words)
    assert (ended, out) == (code, "") and says in err and "Traceback" not in err


async def test_other_peoples_words_drive_no_terminal(leasehold, sql, run):
    await said(sql, run, ("permission", {"id": "p", "tool": "\x1b[31mbash"}, "\x1b[2J?"))
    out = (await leasehold("interactions"))[1]
    assert "\x1b" not in out and "[2J?" in out
