"""The real programs through the whole system: a row inserted, daemon, keeper, CLI, tool call, repository, outcome, events."""

import json
import subprocess

from agents.rows import JOB, PROOF, kinds


async def test_a_row_becomes_a_changed_file_and_a_second_job_of_its_session_goes_on(
    host, sql, real, insert, ends, repository, model
):
    name = await real()
    async with host.daemon():
        first = await insert(name, PROOF, session_key="proof")
        await ends(first, "succeeded", within=60)
        assert (repository / "proof.txt").read_text() == "hello\n"
        status = subprocess.run(
            ["git", "-C", repository, "status", "--short"], capture_output=True, text=True, check=True
        )
        assert status.stdout == "?? proof.txt\n"
        second = await insert(name, "run: cat proof.txt\nsay: It says hello.", session_key="proof")
        await ends(second, "succeeded", within=60)
    for job, words in ((first, "The proof is written."), (second, "It says hello.")):
        (done,) = await sql.fetch(JOB, job)
        assert json.loads(done["result"])["text"] == words
        heard = [kind for kind in await kinds(sql, job) if kind in ("session", "tool_call", "message", "result")]
        assert heard == ["session", "tool_call", "tool_call", "message", "result"]
        run = await sql.fetchrow(
            "select input_tokens, output_tokens, cached_tokens from leasehold.runs where job_id = $1", job
        )
        assert (run["output_tokens"], run["cached_tokens"]) == (100, 800)
    sessions = await sql.fetch("select session_before, session_after from leasehold.runs order by id")
    assert sessions[0]["session_after"] == sessions[1]["session_before"] == sessions[1]["session_after"]
    assert "The proof is written." in json.dumps(model.requests[-1][1]), "the model was told what had been said before"
