"""The command line as a script sees it: output, exit codes, errors with a code and a hint."""

import json

import asyncpg
import pytest
from support.keeper import KeeperProcess


@pytest.mark.rule("S111")
async def test_a_job_is_enqueued_shown_cancelled_and_retried(leasehold, sql, agent):
    await agent("any", "true")
    code, out, _ = await leasehold(
        "enqueue", "any", "do it", "--payload", '{"n": 1}', "--idempotency-key", "k", "--json"
    )
    assert code == 0 and json.loads(out) == {"job_id": 1, "disposition": "accepted"}
    assert (await leasehold("enqueue", "any", "do it", "--payload", '{"n": 1}', "--idempotency-key", "k"))[
        1
    ] == "job 1 existing\n"
    assert await sql.fetchval("select payload ->> 'n' from leasehold.jobs") == "1"
    assert "queued" in (await leasehold("status"))[1]
    assert json.loads((await leasehold("status", "1", "--json"))[1])["job"]["status"] == "queued"
    assert json.loads((await leasehold("cancel", "1", "--json"))[1]) == {"job_id": 1, "answer": "cancelled"}
    assert (await leasehold("retry", "1"))[1] == "job 1 queued\n"
    kinds = [json.loads(line)["kind"] for line in (await leasehold("tail", "1", "--json"))[1].splitlines()]
    assert kinds == ["queued", "cancelled", "retried"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["enqueue", "nobody", "x"], "LH001"),
        (["cancel", "42"], "LH023"),
        (["retry", "42"], "LH023"),
    ],
)
async def test_what_the_database_refuses_has_its_code_and_hint_and_exits_1(leasehold, words, expected):
    code, out, err = await leasehold(*words)
    assert code == 1 and out == ""
    assert expected in err and "hint: " in err and "Traceback" not in err


@pytest.mark.rule("A3", "O11", "X29")
@pytest.mark.parametrize(
    ("words", "settings", "expected"),
    [
        (["enqueue"], {}, 2),
        (["status", "not-a-number"], {}, 2),
        (["no-such-command"], {}, 2),
        (["status", "42"], {}, 1),
        (["status"], {"database_url": "postgresql://postgres@/nowhere?host=/no/such/directory"}, 1),
        (["status"], {"no_such_setting": "1"}, 78),
        (["daemon"], {"lease": "1s"}, 78),
        (["daemon"], {"database_url": ""}, 78),
    ],
)
async def test_exit_codes_are_what_the_readme_says(leasehold, words, settings, expected):
    code, _, err = await leasehold(*words, **settings)
    assert code == expected, err
    assert err and "Traceback" not in err


@pytest.mark.rule("G6")
async def test_a_schema_that_is_missing_exits_78_and_a_breaking_newer_one_57(leasehold, empty_dsn, sql):
    code, _, err = await leasehold("daemon", database_url=empty_dsn)
    assert code == 78 and "leasehold migrate" in err
    await sql.execute(
        "insert into leasehold.migrations (name, checksum, breaking) values ('migrations/9999_later', 'x', true)"
    )
    code, _, err = await leasehold("daemon")
    assert code == 57 and "9999_later" in err


async def test_migrate_brings_an_empty_database_up_to_date_once(leasehold, empty_dsn):
    code, out, _ = await leasehold("migrate", "--json", database_url=empty_dsn)
    assert code == 0 and "migrations/0001_schema_clock_roles" in json.loads(out)["applied"]
    assert (await leasehold("migrate", database_url=empty_dsn))[1] == "the schema is up to date\n"
    connection = await asyncpg.connect(empty_dsn)
    assert await connection.fetchval("select count(*) from leasehold.jobs") == 0
    await connection.close()


@pytest.mark.rule("A4", "G6")
async def test_doctor_shows_settings_without_the_password(leasehold):
    code, out, _ = await leasehold("doctor", "--json")
    said = json.loads(out)
    assert code == 0 and all(check["ok"] for check in said["checks"])
    assert {check["check"] for check in said["checks"]} == {"database", "schema", "keeper"}
    code, out, err = await leasehold("doctor", database_url="postgresql://u:s3cret@127.0.0.1:1/x")
    assert code == 1 and "s3cret" not in out + err and "***" in out


async def test_doctor_says_which_rung_holds_here_and_what_it_cannot_catch(leasehold, tmp_path):
    said = json.loads((await leasehold("doctor", "--json"))[1])
    assert not list(tmp_path.iterdir()), "it changes nothing"
    before = said["containment"]
    keeper = KeeperProcess(tmp_path, "auto")
    keeper.start()
    try:
        about = keeper.call(hello=False).ask("about")["containment"]
        code, out, _ = await leasehold("doctor")
        asked = json.loads((await leasehold("doctor", "--json"))[1])["containment"]
    finally:
        keeper.close()
    assert code == 0 and before == asked == about, "a keeper that is there, or the one that the daemon would start"
    assert f"containment {about['rung']}" in out and about["cannot_catch"]
    assert [sentence for sentence in about["cannot_catch"] if f"  - {sentence}\n" not in out] == []


async def test_doctor_under_systemd_misses_a_keeper_and_guesses_nothing(leasehold, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody")
    code, out, _ = await leasehold("doctor", "--json")
    said = {check["check"]: check for check in json.loads(out)["checks"]}
    assert code == 1 and not said["keeper"]["ok"] and json.loads(out)["containment"] == {}


async def test_why_tells_the_story_of_a_job_and_its_last_words(leasehold, host, agent, insert, ends):
    await agent("broken", "echo working; echo 'no such \\033[31mfile' >&2; exit 3")
    async with host.daemon():
        job = await insert("broken", "mend it")
        await ends(job, "failed")
    code, out, _ = await leasehold("why", str(job))
    assert code == 0 and out.isascii() is False and "\033" not in out
    words = ['asks agent "broken": "mend it"', "It failed at", "exit_code, exited with code 3", "read the end of its stderr",
             "It used up one attempt.", "The end of its stderr", "no such", f"leasehold.retry({job})"]  # fmt: skip
    assert [out.index(word) for word in words] == sorted(out.index(word) for word in words)
    said = json.loads((await leasehold("why", str(job), "--json"))[1])
    assert said["job_id"] == job and len(said["story"]) == len(out.splitlines())
    code, out, err = await leasehold("why", "4711")
    assert code == 1 and out == "" and "LH023" in err


async def test_schedules_are_listed_with_what_comes_next_and_what_is_wrong(leasehold, sql, agent, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    await agent("any", "true")
    await sql.execute("""insert into leasehold.schedules (name, agent, prompt, cron, every, timezone, enabled)
        values ('nightly', 'any', 'x', '0 3 * * *', null, 'Europe/Berlin', true), ('watch', 'any', 'x', null, '90 min', 'UTC', true),
               ('quiet', 'any', 'x', null, '1 hour', 'UTC', false)""")
    await sql.execute("update leasehold.schedules set error = 'out of days' where name = 'nightly'")
    code, out, _ = await leasehold("schedules")
    assert code == 0
    nightly, watch, quiet = out.splitlines()[1:]
    assert all(word in nightly for word in ("nightly", "0 3 * * * Europe/Berlin", "unknown", "out of days"))
    assert "every 01:30:00" in watch and "off" in quiet
    said = json.loads((await leasehold("schedules", "--json"))[1])["schedules"]
    assert [row["name"] for row in said] == ["nightly", "watch", "quiet"] and said[1]["next_at"]


@pytest.mark.rule("P82", "O17")
async def test_tail_follows_a_job_to_its_end_with_its_output(leasehold, host, agent, insert):
    await agent("slow", """echo one; sleep 0.5; echo '{"type": "message", "text": "hello"}'; sleep 0.5; echo two >&2""")
    async with host.daemon():
        job = await insert("slow")
        code, out, _ = await leasehold("tail", str(job), "--follow")
    assert code == 0
    words = ["queued", "started", "spawned", "one", "hello", "two", "succeeded"]
    assert [out.index(word) for word in words] == sorted(out.index(word) for word in words)


async def test_usage_is_summed_as_asked(leasehold, sql, agent):
    assert (await leasehold("usage"))[:2] == (0, "nothing was used\n")
    await sql.execute("""
        insert into leasehold.usage
        select n, 1, n, 'acme', 'a' || n % 2, 'x', 's', 'p', 'm', 10, 1, 0, case when n < 4 then 0.001 end,
               timestamptz '2030-01-01 12:00Z' + n * interval '1 day'
          from generate_series(1, 4) n""")
    _, out, _ = await leasehold("usage", "--json")
    assert [(row["agent"], row["cost_usd"], row["unpriced"]) for row in json.loads(out)] == [
        ("a1", "0.002", 0),
        ("a0", "0.001", 1),
    ]
    _, out, _ = await leasehold("usage", "--by", "day", "--by", "tenant", "--since", "2030-01-03", "--json")
    assert [row["day"] for row in json.loads(out)] == ["2030-01-03", "2030-01-04", "2030-01-05"]
    assert "unpriced" in (await leasehold("usage", "--by", "month"))[1]
    await sql.execute(
        "insert into leasehold.budgets (scope, name, period, amount_usd) values ('agent', 'a0', 'total', 5)"
    )
    _, out, _ = await leasehold("usage", "--budgets", "--json")
    assert json.loads(out)[0]["left_usd"] == "4.999"
    assert (await leasehold("usage", "--by", "nonsense"))[0] == 2
