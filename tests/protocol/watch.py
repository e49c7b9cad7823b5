"""An observer outside of the system: it samples /proc and says which trees live, and whether they may."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

from support.host import alive, environ, pids

ENDED = "select id from leasehold.runs where ended_at is not null"
PAUSE = 0.05
SETTLED = 15.0
"""Seconds in which a new process has become what it is going to be."""


class Watch:
    """Invariants 1 (one tree of a job) and 4 (no tree of a run that has ended), sampled without a break."""

    def __init__(self, sql, hosts):
        self._sql, self._hosts = sql, hosts
        self._strangers = dict.fromkeys(pids(), 0.0)
        self._done = asyncio.Event()
        self.wrong = []

    def trees(self):
        """Living trees as {(keeper's identity, run): (job, pids)}."""
        found = {}
        for pid in self._suspects():
            marks = dict(word.partition(b"=")[::2] for word in environ(pid))
            if marks.get(b"LEASEHOLD_KEEPER_ID", b"").decode() in self._keepers() and alive(pid):
                self._strangers.pop(pid, None)
                tree = marks[b"LEASEHOLD_KEEPER_ID"].decode(), int(marks[b"LEASEHOLD_RUN_ID"])
                found.setdefault(tree, (int(marks.get(b"LEASEHOLD_JOB_ID", 0)), []))[1].append(pid)
        return found

    def _suspects(self):
        """Processes that are new; one that has been here for a while without our marker is a stranger."""
        now = time.monotonic()
        for pid in pids():
            if now - self._strangers.setdefault(pid, now) < SETTLED:
                yield pid

    def _keepers(self):
        files = [host.directory / "keeper.id" for host in self._hosts]
        return {file.read_text().strip() for file in files if file.exists()}

    def tree(self, host, run):
        """Who lives of this run on this host."""
        keeper = (host.directory / "keeper.id").read_text().strip()
        return self.trees().get((keeper, run), (0, []))[1]

    async def look(self):
        ended = {row["id"] for row in await self._sql.fetch(ENDED)}  # before the look: no tree of these may live then
        trees = self.trees()
        for (_, run), (_, members) in trees.items():
            if run in ended:
                self.wrong.append(f"I4: run {run} has ended, {members} live")
        jobs = [job for job, members in trees.values() if any(alive(pid) for pid in members)]
        if len(jobs) > len(set(jobs)):
            self.wrong.append(f"I1: two trees of a job: {trees}")

    async def until_told(self):
        while not self.wrong and not self._done.is_set():
            await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), PAUSE)

    def tell(self):
        self._done.set()


@asynccontextmanager
async def watched(sql, *hosts):
    """The invariants hold all the while; needs a connection of its own."""
    watch = Watch(sql, hosts)
    task = asyncio.create_task(watch.until_told())
    try:
        yield watch
    finally:
        watch.tell()
        await task
    await watch.look()
    assert not watch.wrong, watch.wrong
