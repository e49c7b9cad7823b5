"""The real programs with a configuration of their own for each conversation: they go on in it, and know nothing of another."""

import json

import pytest
from agents.programs import CODEX_CONFIG
from agents.rows import PROOF


@pytest.fixture
def private(program, agent, model, repository, tmp_path):
    """A row as README shows it: a key in env, the configuration in the row."""

    async def make():
        env = program.configure(tmp_path / "unused", model.url("ok"))
        for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR"):
            env.pop(name, None)
        files = {} if program.adapter == "claude" else {"config.toml": CODEX_CONFIG.format(url=model.url("ok"))}
        return await agent(
            program.adapter, "", adapter=program.adapter, command=[str(program.path), *program.options], env=json.dumps(env),
            workspace=str(repository), private_config=True, config_files=json.dumps(files),
        )  # fmt: skip

    return make


async def test_a_conversation_goes_on_in_its_own_configuration_and_ends_with_a_reset(
    host, sql, private, insert, ends, eventually, repository, model
):
    name = await private()
    async with host.daemon(sweep="1s"):
        for prompt in (PROOF, "run: cat proof.txt\nsay: It says hello."):
            await ends(await insert(name, prompt, session_key="proof"), "succeeded", within=60)
        runs = await sql.fetch("select session_before, session_after from leasehold.runs order by id")
        assert runs[0]["session_after"] == runs[1]["session_before"] == runs[1]["session_after"]
        assert "The proof is written." in json.dumps(model.requests[-1][1]), "it was told what had been said before"
        [path] = await sql.fetchrow("select path from leasehold.sessions")
        assert list((host.directory / path).iterdir())
        await ends(await insert(name, "say: Hello.", session_key="other"), "succeeded", within=60)
        assert "The proof is written." not in json.dumps(model.requests[-1][1])
        await sql.execute("select leasehold.reset_session($1)", name)
        await eventually(sql, "select count(*) from leasehold.removals where done_at is null", expected=0)
        assert not list((host.directory / "sessions").iterdir())
        again = await insert(name, "say: Hello again.", session_key="proof")
        await ends(again, "succeeded", within=60)
        assert await sql.fetchval("select session_before from leasehold.runs where job_id = $1", again) is None
