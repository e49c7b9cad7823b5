"""Which files a run has changed: under paths that stay inside, once for each, never more than there is room for."""

import json
from secrets import token_hex

import pytest


@pytest.fixture
def record(sql, worker, run):
    async def one(*changes):
        return await sql.fetchval(
            "select leasehold.record_changes($1, $2, $3, $4, $5)",
            *worker.me,
            run["run_id"],
            run["run_token"],
            json.dumps(changes),
        )

    return one


CHANGES = "select * from leasehold.workspace_changes order by id"


@pytest.mark.rule("S8", "S23", "S90")
async def test_changes_are_rows_and_said_again_they_are_what_they_are_now(sql, record, run):
    assert (
        await record(
            {
                "path": "./src//a.py",
                "change_type": "added",
                "added": 3,
                "deleted": 0,
                "diff": "+x",
                "source": "command",
            },
            {"path": "b", "change_type": "renamed", "old_path": "a"},
            {"path": "c", "change_type": "deleted"},
        )
        == 3
    )
    rows = await sql.fetch(CHANGES)
    assert [(row["path"], row["source"], row["change_type"], row["old_path"], row["added"], row["diff"]) for row in rows] == [
        ("src/a.py", "command", "added", None, 3, "+x"), ("b", "agent", "renamed", "a", None, None), ("c", "agent", "deleted", None, None, None),
    ]  # fmt: skip
    assert (
        await record(
            {"path": "c", "change_type": "modified", "diff": "1"}, {"path": "c", "change_type": "modified", "diff": "2"}
        )
        == 1
    )
    [row] = await sql.fetch("select * from leasehold.workspace_changes where path = 'c'")
    assert (row["change_type"], row["diff"]) == ("modified", "2")
    assert await record() == 0


OUTSIDE = [
    "", "  ", ".", "./", "/etc/passwd", "..", "a/../b", "../x", "a\\b", "c:/x", "C:x", ".git", "./.git", "././.git/config", ".git/hooks/post-checkout",
    "sub/.git", "sub/.GIT/config", ".Git", "GIT~1/config", ".git /x", ".git./x", ".git::$INDEX_ALLOCATION", ".g\u200cit/config", "x" * 5000,
]  # fmt: skip
INSIDE = {
    "a": "a", "./a": "a", "././x": "x", "a//b/": "a/b", "a/./b": "a/b", ".gitignore": ".gitignore", ".github/x.yml": ".github/x.yml",
    "...": "...", " a": " a", "digit/x": "digit/x", "a.git/x": "a.git/x", "Grüße/\U0001f600": "Grüße/\U0001f600", "a\nb": "a\nb",
}  # fmt: skip


@pytest.mark.rule("S114", "SW20")
@pytest.mark.parametrize("path", OUTSIDE, ids=[path[:20].encode("unicode_escape").decode() for path in OUTSIDE])
async def test_a_path_that_leads_out_or_into_the_repositorys_own_folder_is_refused(sql, refused, path):
    async with refused("LH111", "is no path of a workspace"):
        await sql.fetchval("select leasehold.check_workspace_path($1)", path)


@pytest.mark.rule("S114", "SW20")
async def test_any_other_path_is_taken_without_its_detours(sql, refused):
    for path, kept in INSIDE.items():
        assert await sql.fetchval("select leasehold.check_workspace_path($1)", path) == kept
        assert await sql.fetchval("select leasehold.check_workspace_path($1)", kept) == kept
    async with refused("LH111", "NULL is no path"):
        await sql.fetchval("select leasehold.check_workspace_path(null)")


async def test_a_path_as_long_as_systems_take_is_recorded(sql, record):
    path = "/".join(token_hex(60) for _ in range(33))
    for _ in range(2):
        assert await record({"path": path, "change_type": "added"}) == 1
    assert [row["path"] for row in await sql.fetch(CHANGES)] == [path]


@pytest.mark.rule("SW21")
async def test_no_change_is_recorded_under_such_a_path_and_the_others_are(sql, record, story, run):
    good = {"path": "a", "change_type": "added"}
    bad = [
        {"path": "../a", "change_type": "added"}, {"path": "x/.git/config", "change_type": "modified"}, {"path": "a"}, 7, None,
        {"path": "a", "change_type": "odd"}, {"path": "a", "change_type": "added", "source": "odd"},
        {"path": "a", "change_type": "renamed"}, {"path": "a", "change_type": "renamed", "old_path": "/b"},
    ]  # fmt: skip
    assert await record(*bad, good) == 1
    assert [row["path"] for row in await sql.fetch(CHANGES)] == ["a"]
    assert (await story(run["job_id"]))[-1] == "changes_refused"
    assert (
        await sql.fetchval("select message from leasehold.events where kind = 'changes_refused'")
        == "9 changes are none: ../a: it leads upwards"
    )


@pytest.mark.rule("SW36")
async def test_diffs_and_changes_have_so_much_room(sql, record, story, run):
    await sql.execute("update leasehold.agents set artifact_limit = 100")
    await record(*[{"path": str(n), "change_type": "modified", "diff": "x" * 60} for n in range(2)])
    assert [(row["diff"] is None, row["truncated"]) for row in await sql.fetch(CHANGES)] == [
        (False, False),
        (True, True),
    ]
    assert await record(*[{"path": f"n{n}", "change_type": "added"} for n in range(6000)]) == 4998
    assert (await story(run["job_id"]))[-1] == "changes_truncated"


@pytest.mark.rule("S41", "S45", "X9")
async def test_only_the_runs_own_worker_records_and_only_the_tenant_reads(sql, record, worker, run, refused, login):
    await record({"path": "a", "change_type": "added"})
    other = await login("leasehold_producer", "globex")
    assert await other.fetchval("select count(*) from leasehold.workspace_changes") == 0
    async with refused("42501", hint=False):
        await other.execute("insert into leasehold.workspace_changes (path) values ('x')")
    async with refused("LH016"):
        await sql.fetchval(
            "select leasehold.record_changes($1, $2, $3, $4, '{}')", *worker.me, run["run_id"], run["run_token"]
        )
    await worker.finish(run)
    async with refused("LH010"):
        await record({"path": "b", "change_type": "added"})
