"""The rows for Codex and Claude Code that README shows, pasted as they stand; only program, key and address are those of the test."""

import json
import re
from pathlib import Path

import pytest
from agents.programs import CLAUDE, CODEX

README = (Path(__file__).parents[2] / "README.md").read_text()
ROWS = re.findall(
    r"(INSERT INTO leasehold\.agents \(name, adapter, command, env, private_config.*?);\n", README, re.DOTALL
)


@pytest.mark.parametrize("real", [CODEX, CLAUDE], ids=["codex", "claude"])
async def test_the_rows_of_the_readme_work_with_the_real_programs(
    host, sql, insert, ends, model, real, tmp_path, present
):
    present(real)
    name = "claude" if real is CLAUDE else "codex"
    for row in ROWS:
        await sql.execute(row.replace("https://api.openai.com/v1", f"{model.url('ok')}/v1"))
    here = {
        "HOME": str(tmp_path),
        "ANTHROPIC_BASE_URL": model.url("ok"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    await sql.execute(
        "update leasehold.agents set command[1] = $2, env = env || $3::jsonb where name = $1",
        name,
        str(real.path),
        json.dumps(here),
    )
    async with host.daemon():
        first = await insert(name, "say: Hello.", session_key="talk")
        await ends(first, "succeeded", within=60)
        second = await insert(name, "say: Hello again.", session_key="talk")
        await ends(second, "succeeded", within=60)
    sessions = await sql.fetch("select session_before, session_after from leasehold.runs order by id")
    assert sessions[0]["session_after"] == sessions[1]["session_before"]
    assert list((host.directory / "sessions").iterdir())


def test_both_are_there():
    assert [re.search(r"\('(\w+)', '(\w+)'", row)[2] for row in ROWS] == ["codex", "claude"]
