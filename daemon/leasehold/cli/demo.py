"""demo: the whole product in under a minute, on this machine, with nothing but what the package brings."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    IncompleteRead,
    create_task_group,
    fail_after,
    sleep,
)
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.syntax import Syntax

from leasehold import log
from leasehold.cli.console import out, short, table
from leasehold.db.client import Client, open_client
from leasehold.db.embedded import open_postgres
from leasehold.db.schema import bring_up_to_date
from leasehold.runs.lock import only_one
from leasehold.stack import open_daemon_process, open_keeper_process, until_ready

OURS = (
    "postgres",
    "runs",
    "sockets",
    "keeper.id",
    "keeper.lock",
    "keeper.sock",
    "keeper.log",
    "daemon.lock",
    "postgres.log",
)
"""What a demo leaves in its state directory, and the next one clears away; nothing else is touched."""
PATIENCE = 60
"""Seconds for all jobs to end."""

AGENTS = """\
INSERT INTO leasehold.agents (name, command, workspace, retry_backoff) VALUES
  ('reporter', ARRAY['sh', '-c', $$
     echo "I am in $(pwd) and was asked to: $(cat)"
     files=$(find . -type f -not -path '*/.*' | wc -l)
     lines=$(find . -type f -not -path '*/.*' -size -200k -exec cat {{}} + | wc -l)
     printf '{{"type": "artifact", "name": "largest files"}}\\n'
     find . -type f -not -path '*/.*' -size -2000k -exec wc -c {{}} + | sort -rn | sed -n '2,4p'
     printf '{{"type": "result", "value": "%s files, %s lines"}}\\n' $files $lines $$], {checkout}, '1 second'),
  ('flaky', ARRAY['sh', '-c', $$
     echo "this is attempt $LEASEHOLD_ATTEMPT"
     test $LEASEHOLD_ATTEMPT -ge 3 && echo "third time lucky" $$], NULL, '1 second'),
  ('stubborn', ARRAY['sh', '-c', $$
     trap 'echo "TERM? I shall not" ' TERM
     sleep 600 & setsid sleep 600 &
     echo "settling in for ten minutes, with two children"
     while true; do sleep 1; done $$], NULL, '1 second');
UPDATE leasehold.agents SET stop_grace = '2 seconds' WHERE name = 'stubborn';"""

JOBS = """\
INSERT INTO leasehold.jobs (agent, prompt, max_attempts) VALUES
  ('reporter', 'Report on this checkout', 1),
  ('flaky',    'Fail twice, then succeed', 3),
  ('stubborn', 'Never end', 1);"""

CANCEL = """\
SELECT leasehold.cancel(id, 'that is enough') FROM leasehold.jobs WHERE agent = 'stubborn';"""

SUMMARY = """\
SELECT j.id AS job, j.agent, j.status AS outcome, count(r.id) AS attempts, j.finished_at - j.created_at AS duration,
       coalesce(j.result #>> '{}', (SELECT convert_from(o.bytes, 'UTF8') FROM leasehold.output o JOIN leasehold.runs u ON u.id = o.run_id
         WHERE u.job_id = j.id ORDER BY u.attempt DESC, o.byte_offset DESC LIMIT 1)) AS wrote
  FROM leasehold.jobs j LEFT JOIN leasehold.runs r ON r.job_id = j.id GROUP BY j.id ORDER BY j.id;"""

EXPECTED = {"reporter": "succeeded", "flaky": "succeeded", "stubborn": "cancelled"}


async def run_demo(state_dir: Path, checkout: Path) -> int:
    """Exit code 0 when every job ended as it should. Raises InstanceTaken: another demo is at work in this directory."""
    with only_one(
        state_dir / "demo.lock",
        f"another demo runs in {state_dir}",
        "Let it end, or give this one another --state-dir.",
    ):
        _clear(state_dir)
        return await _run(state_dir, checkout)


async def _run(state_dir: Path, checkout: Path) -> int:
    with out.status("starting PostgreSQL") as status:
        async with open_postgres(state_dir / "postgres", durable=False) as dsn:
            status.update("creating the schema")
            await bring_up_to_date(dsn)
            status.update("starting keeper and daemon")
            async with open_keeper_process(state_dir), _daemon(state_dir, dsn) as daemon, open_client(dsn) as client:
                await until_ready(client, 1, daemon)
                status.stop()
                await _show(client, checkout)
                rows = await client.rows(SUMMARY)
    out.rule("outcomes")
    columns = ("job", "agent", "outcome", "attempts", "duration", "wrote")
    out.print(table(columns, [[_cell(row[name]) for name in columns] for row in rows]))
    out.print(f"\nEverything it wrote is in {state_dir}. Nothing of it runs any more.", style="dim")
    return 0 if {row["agent"]: row["outcome"] for row in rows} == EXPECTED else 1


async def _show(client: Client, checkout: Path) -> None:
    out.rule("an administrator describes agents, in SQL")
    await _say(client, AGENTS.format(checkout="'" + str(checkout).replace("'", "''") + "'"))
    out.rule("anybody inserts jobs, in SQL; the daemon hears it")
    await _say(client, JOBS)
    spoken = "select from leasehold.output o join leasehold.jobs j on j.id = o.job_id where j.agent = 'stubborn'"
    live = "select from leasehold.jobs where status in ('queued', 'deferred', 'running', 'waiting')"
    with fail_after(PATIENCE):
        while not await client.rows(spoken):
            await sleep(0.1)
        await sleep(0.5)  # only for the eye: let its lines be read before it is cancelled
        out.rule("and cancels a running one, in SQL")
        await _say(client, CANCEL)
        while await client.rows(live):
            await sleep(0.1)


async def _say(client: Client, statement: str) -> None:
    """Print SQL, then run exactly that."""
    out.print(Syntax(statement, "sql", background_color="default", word_wrap=True), soft_wrap=False)
    for part in statement.split(";\n"):
        await client.rows(part)


@asynccontextmanager
async def _daemon(state_dir: Path, dsn: str) -> AsyncIterator[Process]:
    """A real daemon as a real process; its JSON log is shown as lines for eyes while the block runs."""
    async with (
        create_task_group() as group,
        open_daemon_process(state_dir, dsn, stdout=PIPE, instance="demo") as process,
    ):
        group.start_soon(_echo, process)
        yield process


async def _echo(process: Process) -> None:
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    while process.returncode is None or lines.buffer:
        try:
            line = await lines.receive_until(b"\n", 1 << 20)
        except (EndOfStream, IncompleteRead, ClosedResourceError, BrokenResourceError):
            return
        try:
            print(log.render(json.loads(line), colours=out.is_terminal), flush=True)
        except ValueError:
            print(line.decode(errors="replace"), flush=True)


def _cell(value: object) -> str:
    return value.strip().splitlines()[-1] if isinstance(value, str) and value.strip() else short(value)


def _clear(state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    for name in OURS:
        path = state_dir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
