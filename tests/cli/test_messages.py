"""`leasehold messages` and `leasehold artifacts`: what was said while it is being said, and what came of it."""

import json

import pytest

SPEAKS = r"""
printf '{"type": "delta", "id": "m", "text": "one\\ntw"}\n'
while [ ! -e "$GO" ]; do sleep 0.02; done
printf '{"type": "delta", "id": "m", "text": "o \\u001b[31m"}\n{"type": "message", "id": "m", "text": "one\\ntwo \\u001b[31m three"}\n'
printf '{"type": "artifact", "kind": "report", "title": "The report", "content": "all is \\u001b[31m well\\n"}\n'
"""


@pytest.mark.rule("S6", "S7", "S88", "S89", "S91")
async def test_a_conversation_grows_while_it_is_read_and_ends_with_its_job(
    leasehold, host, agent, insert, sql, eventually, tmp_path, ends
):
    go = tmp_path / "go"
    await agent("talker", SPEAKS, env=json.dumps({"GO": str(go)}))
    job = await insert("talker", "Tell me", thread="t")
    async with host.daemon():
        streaming = "select content from leasehold.messages where job_id = $1 and status = 'streaming'"
        await eventually(sql, streaming, job, expected="one\ntw")
        code, out, _ = await leasehold("messages", str(job))
        assert code == 0 and "Tell me" in out and out.endswith("one\ntw\n"), "whatever there is"
        go.touch()
        code, out, _ = await leasehold("messages", str(job), "--follow")
        assert code == 0 and out.count("one\n") == 1 and "two �[31m three" in out and "\x1b" not in out
        await ends(job, "succeeded")
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'delta'") == 0
    rows = [json.loads(line) for line in (await leasehold("messages", "--thread", "t", "--json"))[1].splitlines()]
    assert [(row["role"], row["status"]) for row in rows] == [("user", "completed"), ("assistant", "completed")]
    listed = json.loads((await leasehold("artifacts", str(job), "--json"))[1])["artifacts"]
    assert [(row["kind"], row["title"], row["bytes"]) for row in listed] == [("report", "The report", 18)]
    assert "The report" in (await leasehold("artifacts", str(job)))[1]
    assert (await leasehold("artifacts", str(job), "--show", str(listed[0]["id"])))[1] == "all is \x1b[31m well\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["messages"], 2, "--thread"),
        (["messages", "1", "--thread", "t"], 2, "--thread"),
        (["messages", "4711"], 1, "there is no job 4711"),
        (["artifacts", "4711", "--show", "1"], 1, "has no artifact 1"),
    ],
)
async def test_what_is_wrong_is_said(leasehold, words, code, says):
    ended, out, err = await leasehold(*words)
    assert (ended, out) == (code, "") and says in err and "Traceback" not in err
