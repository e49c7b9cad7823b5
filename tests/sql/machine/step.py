"""What every step has: how it is done, which refusals may answer it, what it must answer when nobody else acts."""

from dataclasses import dataclass

UNKNOWN = object()  # the answer is not foretold


@dataclass(frozen=True)
class Step:
    """One call of one client. Numbers in it mean the latest, the one before it, ..."""

    refusals = ()
    actors = ()  # who may change a status in it, in the words of leasehold.transitions

    def possible(self, world, seen):
        return True

    async def do(self, world, seen, hand):
        raise NotImplementedError

    def foretell(self, world, seen):
        """The answer, if nobody else acts between `seen` and this step."""
        return UNKNOWN

    def holds(self, world, seen):
        """What must be, right after it was done."""
        return True

    def is_mute(self, world, seen):
        """Whether it may change nothing, though it is answered."""
        return False

    def could_claim(self, world, seen):
        """What it should not leave lying."""
        return ()

    def learn(self, world, answer):
        """What its caller knows after the commit."""


def refusal_of_worker(worker, seen):
    return None if seen.may_work(worker) else "LH012"


def refusal_of_run(worker, run, seen):
    """Why a worker may not speak for a run."""
    row = seen.runs.get(run["run_id"])
    if row is None:
        return "LH013"
    if row.token != str(run["run_token"]):
        return "LH011"
    if row.live:
        return "LH011" if row.worker != worker.id else None
    return "LH010"
