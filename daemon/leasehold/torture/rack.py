"""One job for each case, watched to its end and judged. If it fails, the doctor has no answer."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from anyio import current_time, sleep

from leasehold.db.client import Client
from leasehold.torture.cases import Case, Missed, Seen
from leasehold.torture.observer import Observer
from leasehold.torture.report import NOT_CAUGHT, NOT_CLAIMED, OK, Finding

PATIENCE = 45.0
"""Seconds for all cases together."""
SMALL = 64 * 1024
"""Bytes of stored output that are worth comparing one by one."""
LIVE = "from leasehold.events where job_id = any($1) and phase = 'ready'"
FINISHED = "select id from leasehold.jobs where id = any($1) and finished_at is not null"
STORED = """\
select coalesce(sum(octet_length(bytes)), 0) as stored,
       case when sum(octet_length(bytes)) <= $2 then encode(sha256(string_agg(bytes, '' order by byte_offset)), 'hex') else '' end as digest
  from leasehold.output where run_id = $1 and stream = 'stdout'"""


class Rack:
    """Puts the jobs, cancels those that ask for it, and looks at /proc at the end of each."""

    def __init__(self, client: Client, observer: Observer, marks: Path, rung: str) -> None:
        self._client = client
        self._observer = observer
        self._marks = marks
        self._rung = rung

    def mark(self, case: Case) -> str:
        """What every process of a case carries in its argv; also the file that tells it that its family was seen."""
        return str(self._marks / case.agent)

    async def put(self, cases: Sequence[Case]) -> dict[int, Case]:
        """Describe agents and insert jobs, in plain SQL."""
        jobs: dict[int, Case] = {}
        for case in cases:
            command = [sys.executable, "-m", "leasehold.torture", case.kind, self.mark(case)]
            columns = {"name": case.agent, "command": command, **case.columns}
            places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
            insert = f"insert into leasehold.agents ({', '.join(columns)}) values ({places})"  # noqa: S608 names are ours
            await self._client.rows(insert, *columns.values())
        for case in cases:
            insert = "insert into leasehold.jobs (agent, prompt, queue) values ($1, $2, $3) returning id"
            rows = await self._client.rows(insert, case.agent, case.prompt, case.queue)
            jobs[rows[0]["id"]] = case
            self._observer.await_family(self.mark(case), case.family)
        return jobs

    async def watch(self, jobs: dict[int, Case]) -> dict[int, Finding]:
        """What does not end in time was not caught."""
        found: dict[int, Finding] = {}
        quiet = {job for job, case in jobs.items() if case.cancel}
        until = current_time() + PATIENCE
        while len(found) < len(jobs):
            late = current_time() > until  # what ended in time is judged, however busy the host is
            for row in await self._client.rows(f"select distinct job_id {LIVE}", list(quiet)):
                await self._client.cancel(row["job_id"], "torture")
                quiet.discard(row["job_id"])
            found |= await self._judge_finished({job: case for job, case in jobs.items() if job not in found})
            if late:
                break
            await sleep(0.05)
        for job, case in jobs.items():
            if job not in found:
                found[job] = await self._finding(job, case, f"still live after {PATIENCE:.0f} s", None, NOT_CAUGHT)
        return found

    async def _judge_finished(self, jobs: dict[int, Case]) -> dict[int, Finding]:
        rows = await self._client.rows(FINISHED, list(jobs))
        if rows:
            self._observer.look()  # after the verdict nothing may live
        left = self._observer.now
        return {row["id"]: await self._judge(row["id"], jobs[row["id"]], left) for row in rows}

    async def _judge(self, job: int, case: Case, living: Counter[str]) -> Finding:
        left = living[self.mark(case)]
        seen = await self._seen(job, case)
        seconds = _seconds(seen)
        missed = f"{left} of its processes outlived its verdict"
        if left and self._rung in case.escapes:
            return await self._finding(job, case, f"{missed}; {self._rung} does not claim it", seconds, NOT_CLAIMED)
        if left:
            return await self._finding(job, case, missed, seconds, NOT_CAUGHT)
        try:
            return await self._finding(job, case, case.check(seen), seconds, OK)
        except Missed as finding:
            return await self._finding(job, case, str(finding), seconds, NOT_CAUGHT)

    async def _finding(self, job: int, case: Case, caught_by: str, seconds: float | None, verdict: str) -> Finding:
        story = await self._client.why(job) if verdict == NOT_CAUGHT else []
        return Finding(case.tried, case.expected, caught_by, seconds, verdict, story)

    async def _seen(self, job: int, case: Case) -> Seen:
        [found] = await self._client.rows("select * from leasehold.jobs where id = $1", job)
        runs = await self._client.rows("select * from leasehold.runs where job_id = $1 order by attempt desc", job)
        [output] = await self._client.rows(STORED, runs[0]["id"], SMALL)
        events = await self._client.events(job, 0)
        return Seen(
            run=runs[0], job=found, kinds=tuple(event["kind"] for event in events),
            phases={event["phase"]: event["data"] for event in events if event["phase"]},
            stored=int(output["stored"]), digest=output["digest"], most=self._observer.most[self.mark(case)], rung=self._rung,
        )  # fmt: skip


def _seconds(seen: Seen) -> float:
    """From the moment when its end was due (cancelled, leader gone, else started) until nothing of it was left."""
    ended: float = seen.run["ended_at"].timestamp()
    if "leaving" in seen.phases:
        due = float(seen.phases["leaving"]["at"])
    else:
        due = (seen.job["cancel_requested_at"] or seen.run["started_at"] or seen.run["claimed_at"]).timestamp()
    return round(ended - due, 2)
