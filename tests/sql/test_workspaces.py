"""Where runs work, as the database decides it: which place, whose it is, what it is called, and when it goes."""

import json

import asyncpg
import pytest

ORIGIN = "https://example.org/acme/app.git"


@pytest.fixture
async def repo_agent(sql):
    """An agent that works in a repository: `await repo_agent(keep_workspace="never")`."""

    async def make(name="fixer", **columns):
        columns = {"repository": ORIGIN, **columns}
        await sql.execute(
            f"insert into leasehold.agents (name, adapter, command, {', '.join(columns)})"
            f" values ($1, 'command', '{{true}}', {', '.join(f'${n}' for n in range(2, len(columns) + 2))})",
            name, *columns.values(),
        )  # fmt: skip
        return name

    return make


@pytest.fixture
async def me(clock, hire):
    return await hire()


async def take(worker, run):
    said = await worker.sql.fetchval(
        "select leasehold.take_workspace($1, $2, $3, $4)", *worker.me, run["run_id"], run["run_token"]
    )
    return json.loads(said)


async def report(worker, run, changes=None, diff=None, **facts):
    await worker.sql.execute(
        "select leasehold.report_workspace($1, $2, $3, $4, $5, $6, $7)",
        *worker.me, run["run_id"], run["run_token"], json.dumps(facts), json.dumps(changes) if changes is not None else None, diff,
    )  # fmt: skip


async def row(sql, workspace):
    return await sql.fetchrow("select * from leasehold.workspaces where id = $1", workspace)


async def removals(sql):
    return [
        each["path"]
        for each in await sql.fetch("select path from leasehold.removals where what = 'workspace' order by id")
    ]


@pytest.mark.rule("P50")
async def test_a_job_of_an_agent_with_a_repository_has_a_worktree_of_it(sql, repo_agent, me, job):
    await repo_agent()
    one = await job(prompt="Fix the bug!")
    run = await me.claim_one()
    [body] = await me.read([run])
    assert body["wants_workspace"]
    said = await take(me, run)
    assert said["kind"] == "repository" and said["source"] == "agent_repository" and said["repository"] == ORIGIN
    assert said["branch"] == f"leasehold/{one}/fix-the-bug" and said["base"] is None
    assert said["path"] == f"{said['home']}/trees/{said['workspace']}"
    kept = await row(sql, said["workspace"])
    assert (kept["status"], kept["run_id"], kept["job_id"]) == ("preparing", run["run_id"], one)
    assert await take(me, run) == said, "it is asked again after a lost answer"


@pytest.mark.rule("P50", "P51", "P16", "P49")
async def test_the_jobs_own_repository_counts_where_the_agent_leaves_room_for_it(sql, repo_agent, me, job):
    await repo_agent(repository="https://example.org/{repository}.git", workspace="/srv/plain")
    for columns, kind, address in (
        ({"repository": "acme/lib"}, "repository", "https://example.org/acme/lib.git"),
        ({}, "none", None),
        ({"repository": "acme/lib", "use_repository": False}, "none", None),
        ({"repository": "../../other"}, "refused", None),
        ({"repository": "a b"}, "refused", None),
    ):
        one = await job(**columns)
        said = await take(me, await me.claim_job(one))
        assert (said["kind"], said.get("repository")) == (kind, address)
        if kind == "repository":
            assert said["source"] == "job_repository"


async def test_a_token_in_the_address_is_the_agents_and_nobody_elses_to_read(sql, repo_agent, me, job):
    token, other = "ghp_0123456789abcdef", "ghp_fedcba9876543210"
    address = f"https://{token}@example.org/acme/app.git"
    await repo_agent(repository=address)
    said = await take(me, run := await me.claim_job(await job(session_key="talk")))
    assert said["repository"] == address
    shown = (await row(sql, said["workspace"]))["repository"]
    assert shown.startswith("https://***") and shown.endswith("@example.org/acme/app.git") and token not in shown
    assert await take(me, run) == said
    await me.finish(run)
    again = await take(me, run := await me.claim_job(await job(session_key="talk")))
    assert again["path"] == said["path"] and again["repository"] == address
    await me.finish(run)
    await sql.execute("update leasehold.agents set repository = $1", address.replace(token, other))
    third = await take(me, await me.claim_job(await job(session_key="talk")))
    assert third["home"] != said["home"], "who may log in with another token has no part in this one"


async def test_a_workspace_of_before_that_has_one_is_still_found(sql, repo_agent, me, job):
    address = "https://ghp_0123456789abcdef@example.org/acme/app.git"
    await repo_agent(repository=address)
    said = await take(me, run := await me.claim_job(await job(branch="shared")))
    await me.finish(run)
    await sql.execute("update leasehold.workspaces set repository = $1", address)
    again = await take(me, await me.claim_job(await job(branch="shared")))
    assert again["path"] == said["path"] and again["home"] == said["home"]


@pytest.mark.parametrize("login", ["somebody:tttttttt", "tttttttt tttttttt"])
async def test_an_address_that_is_refused_is_shown_without_it(repo_agent, me, job, login):
    await repo_agent(repository="{repository}")
    said = await take(me, await me.claim_job(await job(repository=f"https://{login}@example.org/x.git")))
    assert said["kind"] == "refused" and "@example.org/x.git" in said["message"] and "tttt" not in said["message"]


@pytest.mark.parametrize(
    "address", ["git@example.org:a/b.git", "ssh://git@example.org/x.git", "/srv/a@b.git", "https://example.org/a@b.git"]
)
async def test_an_address_without_one_is_shown_as_it_is(sql, repo_agent, me, job, address):
    await repo_agent(repository=address)
    said = await take(me, await me.claim_job(await job()))
    assert (await row(sql, said["workspace"]))["repository"] == address


@pytest.mark.rule("P50")
async def test_a_job_of_a_conversation_is_where_the_last_one_was(sql, fixer, me, job):
    first, second = await job(session_key="talk"), await job(session_key="talk")
    said = await take(me, run := await me.claim_job(first))
    assert said["kind"] == "session" and said["path"] == f"workspaces/conversations/{said['workspace']}"
    assert await me.claim() == [], "one after the other"
    await me.finish(run)
    assert (await take(me, await me.claim_job(second)))["path"] == said["path"]
    third = await job()
    assert not (await me.read([bare := await me.claim_job(third)]))[0]["wants_workspace"]
    assert (await take(me, bare))["kind"] == "none"


@pytest.mark.rule("SW23", "S21", "S81", "S122")
async def test_it_is_held_by_one_run_and_let_go_in_the_transaction_of_its_end(sql, repo_agent, me, job):
    await repo_agent()
    one, two = await job(branch="shared"), await job(branch="shared")
    said = await take(me, run := await me.claim_job(one))
    other = await me.claim_job(two)
    busy = await take(me, other)
    assert (
        busy["kind"] == "busy" and busy["message"] == f"workspace {said['workspace']} is in use by run {run['run_id']}"
    )
    await report(me, run, branch="shared", base="main", base_commit="a" * 40, head_commit="b" * 40, dirty=True)
    assert (await row(sql, said["workspace"]))["status"] == "in_use"
    await me.fail(run)
    kept = await row(sql, said["workspace"])
    assert (kept["status"], kept["run_id"], kept["dirty"], kept["head_commit"]) == ("free", None, True, "b" * 40)
    assert (await take(me, other))["workspace"] == said["workspace"]


async def test_another_agent_does_not_work_on_the_same_branch_at_the_same_time(sql, repo_agent, me, job):
    await repo_agent()
    await repo_agent("other")
    said = await take(me, run := await me.claim_job(await job(branch="shared")))
    other = await me.claim_job(await job(agent="other", branch="shared"))
    assert (await take(me, other))["kind"] == "busy"
    await me.finish(run)
    assert (await take(me, other))["workspace"] == said["workspace"]


@pytest.mark.rule("S84", "S122")
async def test_a_run_that_is_reaped_lets_go_and_one_that_cannot_be_killed_does_not(sql, repo_agent, me, job, clock):
    await repo_agent()
    said = await take(me, run := await me.claim_job(await job()))
    await me.unkillable(run)
    assert (await row(sql, said["workspace"]))["status"] == "quarantined"
    await me.finish(run)
    assert (await row(sql, said["workspace"]))["status"] == "free", "its processes went after all"
    stuck = await take(me, run := await me.claim_job(one := await job()))
    await me.unkillable(run)
    await sql.execute(
        "select leasehold.end_run('reap', r, 'lost', 'unkillable') from leasehold.runs r where id = $1", run["run_id"]
    )
    assert (await row(sql, stuck["workspace"]))["status"] == "quarantined"
    await sql.execute("select leasehold.retry($1)", one)
    busy = await take(me, await me.claim_job(one))
    assert busy["kind"] == "busy" and "quarantined" in busy["message"]
    assert await sql.fetchval("select leasehold.remove_workspace($1)", stuck["workspace"]) == "removed"
    assert await removals(sql) == [stuck["path"]]


@pytest.mark.rule("S84", "S122")
@pytest.mark.parametrize(
    ("keep", "outcome", "stays"),
    [
        ("always", "succeeded", True),
        ("on_failure", "failed", True),
        ("on_failure", "succeeded", False),
        ("never", "failed", False),
    ],
)
async def test_it_is_kept_or_removed_as_the_agents_row_says(sql, repo_agent, me, job, keep, outcome, stays):
    await repo_agent(keep_workspace=keep)
    said = await take(me, run := await me.claim_job(await job()))
    await (me.finish(run) if outcome == "succeeded" else me.fail(run))
    assert (await row(sql, said["workspace"]))["status"] == ("free" if stays else "removed")
    assert await removals(sql) == ([] if stays else [said["path"]])


@pytest.mark.rule("P50")
async def test_an_agent_with_a_conversation_of_its_own_stays_where_it_was_until_its_job_ends(sql, me, job, clock):
    await sql.execute("insert into leasehold.agents (name, adapter, command) values ('fixer', 'claude', '{claude}')")
    one = await job(max_attempts=2)
    said = await take(me, run := await me.claim_job(one))
    assert said["kind"] == "session"
    await me.fail(run)
    await clock.forward(seconds=30)
    again = await me.claim_job(one)
    assert await take(me, again) == said
    await me.finish(again)
    assert await removals(sql) == [said["path"]]


async def test_while_a_job_is_tried_again_its_worktree_stays_the_same(sql, repo_agent, me, job, clock):
    await repo_agent(keep_workspace="never")
    one = await job(max_attempts=2)
    first = await take(me, run := await me.claim_job(one))
    await me.fail(run)
    await clock.forward(seconds=30)
    again = await me.claim_job(one)
    assert await take(me, again) == first
    await me.fail(again)
    assert await removals(sql) == [first["path"]]
    await sql.execute("select leasehold.retry($1)", one)
    fresh = await take(me, await me.claim_job(one))
    assert fresh["path"] != first["path"] and fresh["branch"] == first["branch"] and fresh["gone"] == [first["path"]]


@pytest.mark.parametrize("branch", [None, "docs"])
async def test_what_was_not_heard_is_done_where_the_work_is(sql, repo_agent, me, job, look, branch):
    await repo_agent(keep_workspace="never")
    one = await job(branch=branch, base_branch="main", env_file_path=".env", materialize_env_file=False)
    first = await take(me, run := await me.claim_job(one))
    await sql.execute("select leasehold.steer($1, 'also the docs')", one)
    await me.finish(run)
    next_ = await look(await sql.fetchval("select follow_up_job from leasehold.turns where job_id = $1", one))
    names = ("branch", "base_branch", "use_repository", "env_file_path", "materialize_env_file")
    assert [next_[name] for name in names] == [branch, "main", True, ".env", False]
    second = await take(me, run := await me.claim_job(next_["id"]))
    assert (second["path"], second["branch"]) == (first["path"], first["branch"])
    await me.finish(run)
    assert await removals(sql) == ([first["path"]] if branch is None else [])


async def test_what_was_not_heard_by_an_agent_without_its_repository_is_done_without_it(sql, repo_agent, me, job):
    await repo_agent()
    one = await job(use_repository=False)
    run = await me.claim_job(one)
    await sql.execute("select leasehold.steer($1, 'also the docs')", one)
    await me.finish(run)
    next_ = await sql.fetchval("select follow_up_job from leasehold.turns where job_id = $1", one)
    assert (await take(me, await me.claim_job(next_)))["kind"] != "repository"


async def test_a_directory_of_a_conversation_stays_while_it_is_gone_on_with(sql, me, job):
    await sql.execute("insert into leasehold.agents (name, adapter, command) values ('talker', 'codex', '{codex}')")
    one = await job(agent="talker")
    first = await take(me, run := await me.claim_job(one))
    await sql.execute("select leasehold.steer($1, 'also the docs')", one)
    await me.finish(run)
    assert await removals(sql) == []
    two = await sql.fetchval("select max(id) from leasehold.jobs where session_key = $1", f"job:{one}")
    second = await take(me, run := await me.claim_job(two))
    assert second["path"] == first["path"]
    await me.finish(run)
    assert await removals(sql) == [first["path"]]


async def test_what_is_wanted_gone_beside_it_is_named_until_it_has_gone(sql, repo_agent, me, job):
    await repo_agent(keep_workspace="never")
    await repo_agent("other", repository="https://example.org/other.git", keep_workspace="never")
    first = await take(me, run := await me.claim_job(await job()))
    await me.finish(run)
    await take(me, run := await me.claim_job(await job(agent="other")))
    await me.finish(run)
    one = await me.claim_job(await job())
    assert (await take(me, one))["gone"] == [first["path"]]
    await sql.execute("update leasehold.removals set done_at = leasehold.clock()")
    assert (await take(me, one))["gone"] == []


async def test_retention_removes_what_nobody_uses_and_forgets_what_has_gone(sql, repo_agent, me, job, clock):
    await repo_agent()
    said = await take(me, run := await me.claim_job(await job(session_key="talk")))
    await me.finish(run)
    held = await take(me, await me.claim_job(await job()))
    sweep = "select * from leasehold.sweep_retention($1, $2, 'workers')"
    alive = "update leasehold.workers set lease_expires_at = leasehold.clock() + interval '1 minute'"
    await clock.forward(days=13)
    await sql.execute(alive)
    assert (await sql.fetchrow(sweep, *me.me))["removed"] == 0
    await clock.forward(days=2)
    await sql.execute(alive)
    answer = await sql.fetchrow(sweep, *me.me)
    assert (answer["what"], answer["removed"]) == ("workspaces", 1)
    assert (await row(sql, said["workspace"]))["status"] == "removed" and await removals(sql) == [said["path"]]
    assert (await row(sql, held["workspace"]))["status"] == "preparing"
    await clock.forward(days=15)
    await sql.execute(alive)
    await sql.fetchrow(sweep, *me.me)
    assert await row(sql, said["workspace"]) is None


async def test_a_job_that_is_deleted_takes_its_worktree_with_it(sql, repo_agent, me, job):
    await repo_agent()
    one = await job()
    said = await take(me, run := await me.claim_job(one))
    await me.finish(run)
    await sql.execute("select leasehold.delete_job($1)", one)
    kept = await row(sql, said["workspace"])
    assert (kept["status"], kept["job_id"], kept["last_run"]) == ("removed", None, None)
    assert await removals(sql) == [said["path"]]


async def test_only_who_may_removes_one_and_nobody_removes_one_in_use(sql, repo_agent, me, job, login, refused):
    await repo_agent()
    said = await take(me, run := await me.claim_job(await job()))
    async with refused("LH118", "is in use by run"):
        await sql.execute("select leasehold.remove_workspace($1)", said["workspace"])
    await me.finish(run)
    stranger = await login("leasehold_producer", "acme")
    assert await stranger.fetch("select * from leasehold.workspaces") == []
    with pytest.raises(asyncpg.PostgresError) as error:
        await stranger.execute("select leasehold.remove_workspace($1)", said["workspace"])
    assert error.value.sqlstate == "LH117"


async def test_an_older_life_and_an_ended_run_get_none(sql, repo_agent, me, job):
    await repo_agent()
    run = await me.claim_job(await job())
    await me.finish(run)
    for call in (take(me, run), report(me, run)):
        with pytest.raises(asyncpg.PostgresError) as error:
            await call
        assert error.value.sqlstate == "LH010"


@pytest.mark.rule("S55", "S56", "S57", "SW23")
@pytest.mark.parametrize(
    ("prefix", "prompt", "branch"),
    [
        ("leasehold", "Fix the *bug* in parser", "leasehold/42/fix-the-bug-in-parser"),
        ("//work//", "--- ", "work/42/task"),
        ("", "日本語のテスト", "42/task"),
        ("a/b", "x" * 35 + " yes", "a/b/42/" + "x" * 35),
        ("a", "ÀÉ and I", "a/42/and-i"),
    ],
)
async def test_a_branch_that_nobody_named_is_called_after_its_job(sql, prefix, prompt, branch):
    assert await sql.fetchval("select leasehold.work_branch($1, 42, $2)", prefix, prompt) == branch
    assert await sql.fetchval("select leasehold.branch_mistake($1)", branch) is None


GOOD = ["x", "feature/x", "a/b/c", "v1.2", "a@b", "ünïcode", "a" * 200]
BAD = ["-x", "a b", "a..b", "a//b", ".x", "a/.b", "a.", "x.lock", "x.lock/y", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@{1}",
       "@", "HEAD", "refs/heads/x", "a\tb", "a\x7fb", "a" * 201]  # fmt: skip


@pytest.mark.rule("SW22")
@pytest.mark.parametrize("name", BAD)
async def test_a_branch_that_git_would_not_have_is_refused_when_it_is_asked_for(
    sql, repo_agent, job, refused, clock, name
):
    await repo_agent()
    async with refused("LH116", "branch: "):
        await job(branch=name)


@pytest.mark.rule("S55")
async def test_a_branch_that_is_asked_for_is_taken_without_slashes_at_its_ends(sql, repo_agent, me, job, look):
    await repo_agent()
    for name in GOOD:
        assert (await look(await job(branch=f"//{name}/")))["branch"] == name
    assert (await look(await job(branch="///")))["branch"] is None


@pytest.mark.rule("SW22")
async def test_nobody_asks_to_work_on_the_base_branch(sql, repo_agent, job, refused, clock):
    await repo_agent(base_branch="main")
    async with refused("LH116", "it is the one that the work begins from"):
        await job(branch="main")
    async with refused("LH116", "it is the one that the work begins from"):
        await job(branch="release", base_branch="release")
    assert await job(branch="main", base_branch="release")


@pytest.mark.rule("S58", "S59")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc/x", "stay inside"), (".env/../x", "stay inside"), (".env.", "style"), (".envrc", "style"), ("apps/.env", "style"),
        (".env/a/b", "style"), ("x", "style"), (" .env.local ", None), (".env", None), (".env-prod", None), (".env/foo", None),
    ],
)  # fmt: skip
async def test_an_env_file_is_one_of_the_repositorys_own_kind(sql, repo_agent, job, look, refused, clock, path, says):
    await repo_agent()
    if says is None:
        assert (await look(await job(env_file_path=path)))["env_file_path"] == path.strip()
        await sql.execute("update leasehold.agents set env_file_path = $1", path)
        return
    async with refused("LH116", says):
        await job(env_file_path=path)
    async with refused("LH115", says):
        await sql.execute("update leasehold.agents set env_file_path = $1", path)


@pytest.mark.rule("S60", "S61", "P49")
async def test_the_jobs_word_on_the_env_file_goes_before_the_agents(sql, repo_agent, me, job):
    await repo_agent(env_file_path=".env", env_file_text="A=1\n")
    for columns, expected in (
        ({}, ".env"), ({"env_file_path": ".env.test"}, ".env.test"), ({"materialize_env_file": False}, None),
    ):  # fmt: skip
        said = await take(me, await me.claim_job(await job(**columns)))
        assert (said["env_file"] or {}).get("path") == expected
    await sql.execute("update leasehold.agents set materialize_env_file = false")
    assert (await take(me, await me.claim_job(await job())))["env_file"] is None
    said = await take(me, await me.claim_job(await job(materialize_env_file=True)))
    assert said["env_file"] == {"path": ".env", "text": "A=1\n"}


@pytest.mark.parametrize(
    "columns",
    [
        {"repository": "-x"}, {"repository": "ext::sh -c x"}, {"repository": "ext::x"}, {"repository": "relative/path"},
        {"repository": "https://me:secret@example.org/x"}, {"repository": "/srv/../etc"}, {"repository": "ftp://example.org/x"},
        {"base_branch": "-x"}, {"branch_prefix": "a..b"}, {"keep_workspace": "maybe"}, {"prepare_timeout": None},
        {"prepare": '{"a": 1}'}, {"prepare": '["npm ci"]'}, {"prepare": "[[]]"}, {"prepare": '[["npm", 3]]'}, {"prepare": '[[""]]'},
        {"workspace": "/srv/x"},
    ],
)  # fmt: skip
async def test_an_agents_row_that_could_only_fail_is_refused(sql, repo_agent, refused, clock, columns):
    async with refused("LH115"):
        await repo_agent(**columns)


@pytest.mark.parametrize(
    "address", ["/srv/git/app", "https://example.org/a/b.git", "ssh://git@example.org:22/a", "git@example.org:a/b.git", "file:///srv/x",
                "https://me@example.org/x", "{repository}", "git@example.org:{repository}.git"],
)  # fmt: skip
async def test_addresses_that_git_knows_are_taken(sql, repo_agent, address):
    await repo_agent(repository=address)


async def test_the_branch_is_part_of_what_an_idempotency_key_stands_for(sql, repo_agent, job, clock):
    await repo_agent()
    first = await sql.fetchval(
        "select request_hash from leasehold.jobs where id = $1", await job(idempotency_key="a", branch="x")
    )
    other = await sql.fetchval(
        "select request_hash from leasehold.jobs where id = $1", await job(idempotency_key="b", branch="y")
    )
    plain = await sql.fetchval("select request_hash from leasehold.jobs where id = $1", await job(idempotency_key="c"))
    again = await sql.fetchval(
        "select request_hash from leasehold.jobs where id = $1", await job(idempotency_key="d", use_repository=True)
    )
    assert len({first, other, plain}) == 3 and again == plain


async def test_what_an_env_file_says_is_for_administrators_and_workers(sql, repo_agent, login):
    await repo_agent(env_file_path=".env", env_file_text="SECRET=1")
    producer = await login("leasehold_producer")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await producer.fetch("select env_file_text from leasehold.agents")
