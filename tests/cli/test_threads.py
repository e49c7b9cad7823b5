"""`leasehold threads`: what there is, and what goes on in one of them."""

import json

import pytest
from sql.people import as_user


@pytest.fixture
async def two(sql, agent, insert):
    await agent("any", "true")
    jobs = [
        await insert("any", "Mend the roof", thread="roof"),
        await insert("any", 'Say "hi"\n\x1b[31m', thread="\x1b[31mdoor"),
    ]
    await sql.execute("select leasehold.cancel($1, 'not now')", jobs[0])
    return jobs


async def test_threads_are_listed_by_pages(leasehold, two):
    code, out, _ = await leasehold("threads", "list", "--limit", "1", "--json")
    page = json.loads(out)
    assert code == 0 and [row["status"] for row in page["threads"]] == ["queued"]
    rest = json.loads((await leasehold("threads", "list", "--after", page["cursor"], "--json"))[1])
    assert [row["thread"] for row in rest["threads"]] == ["roof"]
    end = json.loads((await leasehold("threads", "list", "--after", rest["cursor"], "--json"))[1])
    assert end == {"threads": [], "cursor": rest["cursor"]}, "an empty page gives the cursor back"
    out = (await leasehold("threads", "list", "unread", "--reader", "ann"))[1]
    assert "roof" in out and "unread" in out and "Mend the roof" in out and "door" not in out
    out = (await leasehold("threads", "list"))[1]
    assert "\x1b" not in out and "�[31mdoor" in out


async def test_one_thread_is_shown_with_its_summary_and_jobs(leasehold, two):
    code, out, _ = await leasehold("threads", "show", "roof")
    assert code == 0
    words = ["cancelled", "Mend the roof", "## Recent Subagents", f"- {two[0]} (any): cancelled - not now", "attempts"]
    assert [out.index(word) for word in words] == sorted(out.index(word) for word in words)
    said = json.loads((await leasehold("threads", "show", "roof", "--json"))[1])
    assert said["active_summary"].startswith("## Recent Subagents\n") and [job["id"] for job in said["jobs"]] == two[:1]
    out = (await leasehold("threads", "show", "\x1b[31mdoor"))[1]
    assert "\x1b" not in out and '"Say \\"hi\\"' in out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["list", "done"], 1, "LH091"),
        (["list", "--after", "x"], 1, "LH090"),
        (["show", "nowhere"], 1, "there is no thread 'nowhere'"),
        (["list", "--limit", "0"], 2, "--limit"),
    ],
)
async def test_what_is_wrong_is_said(leasehold, words, code, says):
    ended, out, err = await leasehold("threads", *words)
    assert (ended, out) == (code, "") and says in err and "Traceback" not in err


async def test_other_peoples_words_drive_no_terminal_and_a_pipe_gets_them_whole(leasehold, sql, agent):
    await agent("fixer", "true")
    thread, evil = "t" * 150, "see\x1b[2J\x1b]0;owned\x07 \u202e\nme"
    job = await sql.fetchval(
        "insert into leasehold.jobs (agent, prompt, title, thread) values ('fixer', 'x', $1, $2) returning id",
        evil,
        thread,
    )
    await sql.execute(
        "insert into leasehold.usage values (1, 1, 1, 'default', 'fixer', 'x', 's', 'p', $1, 1, 1, 0, 0.00000001, now())",
        evil,
    )
    for words in (
        ("threads", "list"),
        ("threads", "show", thread),
        ("status",),
        ("status", str(job)),
        ("usage", "--by", "model"),
    ):
        code, out, _ = await leasehold(*words)
        assert code == 0 and not {"\x1b", "\x07", "\u202e"} & {*out}, words
        assert "see\ufffd[2J" in out, words
    assert thread in (await leasehold("threads", "list"))[1]
    assert "0.00000001" in (await leasehold("usage"))[1]
    assert json.loads((await leasehold("usage", "--json"))[1])[0]["cost_usd"] == "0.00000001"


async def test_who_may_not_is_told_what_it_takes(leasehold, sql, dsn):
    await sql.execute("create role lh_cli_reader login password 'x' in role leasehold_reader")
    try:
        code, _, err = await leasehold("pause", "all", "--database-url", as_user(dsn, "lh_cli_reader", "x"))
        assert code == 1 and "42501" in err and "another role" in err
    finally:
        await sql.execute("drop role lh_cli_reader")
