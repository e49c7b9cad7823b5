"""What may change between two looks, whatever happened in between: verdicts stand, facts stay, statuses go where they may."""

from sql.machine.seen import DONE, limited


class History:
    """The closed tables, read once, and the rules of change that rest on them."""

    def __init__(self, transitions, reasons):
        self.transitions = {(row["entity"], row["from_status"], row["to_status"], row["actor"]) for row in transitions}
        self.reasons = {(row["outcome"], row["reason"]): row for row in reasons}

    def check(self, before, after, actors):
        gone = before.jobs.keys() - after.jobs.keys()
        assert not gone or actors & {"delete", "sweep"}, f"jobs {gone} are gone"
        assert actors & {"finish", "cancel", "expire", "reap", "adopt"} or all(
            before.jobs[n].status in DONE for n in gone
        )
        before = before.without(gone)
        rules = (
            self.statuses,
            self.verdicts,
            self.facts,
            self.workers,
            self.limits,
            self.holds,
            self.budgets,
            self.told,
            self.talked,
            self.cancelled,
        )
        for rule in rules:
            rule(before, after, actors)

    def reaches(self, entity, from_, to, actors):
        """Whether these actors, each as often as it likes, can bring a status from here to there."""
        reached = {from_}
        while True:
            more = {b for e, a, b, actor in self.transitions if e == entity and a in reached and actor in actors}
            if more <= reached:
                return to in reached
            reached |= more

    def statuses(self, before, after, actors):
        for entity, was, now in (
            *(("job", before.jobs.get(n), row) for n, row in after.jobs.items()),
            *(("run", before.runs.get(n), row) for n, row in after.runs.items()),
        ):
            from_ = was.status if was else ""
            if from_ != now.status:
                by = {*actors, "insert"} if was is None else actors
                assert self.reaches(entity, from_, now.status, by), (
                    f"{entity} {now.id} went from {from_!r} to {now.status!r} by {actors}"
                )

    def verdicts(self, before, after, actors):
        for n, was in before.runs.items():
            now = after.runs[n]
            assert (was.token, was.job, was.attempt) == (now.token, now.job, now.attempt)
            if not was.live:
                assert not now.live and was.verdict == now.verdict, (
                    f"run {n} had ended: {was.verdict}, now {now.verdict}"
                )
                assert (
                    was.worker == now.worker and was.checkpoint == now.checkpoint and was.unkillable == now.unkillable
                )
            taken = was.live and was.unkillable and not now.live and "finish" not in actors
            assert not taken or now.reason in ("unkillable", "host_reboot"), f"run {n} may live, and is {now.verdict}"
            assert was.late in (None, now.late), f"run {n}: late outcome {was.late} became {now.late}"
        for n, now in after.runs.items():
            assert now.live or (now.outcome, now.reason) in self.reasons, f"run {n} ended as {now.outcome}/{now.reason}"
            assert now.late is None or now.outcome == "lost"

    def facts(self, before, after, actors):
        for n, event in before.events.items():
            assert after.events.get(n) == event, f"event {n} was {event}, is {after.events.get(n)}"
        for n, chunk in before.output.items():
            ran = before.runs[int(n.split("/")[0])]
            same = after.output.get(n, chunk) == chunk or (ran.live and "trim" in actors)
            assert same, f"output {n} was {chunk}, is {after.output.get(n)}"
            assert n in after.output or ran.live, f"output {n} of an ended run is gone"

        def mute(run):
            return run in before.runs and not before.runs[run].live

        for n in after.output.keys() - before.output.keys():
            run = before.runs.get(int(n.split("/")[0]))
            assert run is None or run.live or (run.outcome, run.late) == ("lost", None), (
                f"output {n} came after the end"
            )
        given = {turn.run for n, turn in before.turns.items() if not over(turn) and over(after.turns[n])}
        for n in after.events.keys() - before.events.keys():
            kind, run, _ = after.events[n]
            told = kind == "late_outcome" or (kind == "turn_ended" and run in given)  # of the run, not by it
            assert told or run is None or not mute(run) or "late" in actors, f"event {n} from an ended run"

    def workers(self, before, after, actors):
        for n, was in before.workers.items():
            now = after.workers[n]
            assert was.token == now.token and was.renewals <= now.renewals
            assert self.reaches("worker", was.state, now.state, actors), f"worker {n} was {was.state}, is {now.state}"
            assert was.state == "alive" or was.renewals == now.renewals, f"worker {n} is {was.state} and renewed"

    def limits(self, before, after, actors):
        """A run is opened only within the limits, be they those of before or those of after."""
        for run in opened(before, after):
            for kind, name in limited(run):
                limits = [look.get(name) for look in (getattr(before, kind), getattr(after, kind))]
                if None in limits:
                    continue  # it had no limit before, or has none now
                mosts = [limit.most for limit in limits]
                if None not in mosts:
                    live = after.running(kind, name)
                    assert live <= max(mosts), f"{live} live runs of {name}, {max(mosts)} are allowed"
                stopped = all(limit.get("paused") for limit in limits)
                assert not stopped, f"run {run.id} was opened, and {kind} {name} is paused"
            if None not in (before.all, after.all):
                assert len(after.counted()) <= max(before.all, after.all), f"{len(after.live())} live runs in all"

    def holds(self, before, after, actors):
        """What a hold covers does not start; after its end one for each stagger, and each is counted."""
        for name, hold in before.holds.items():
            now = after.holds.get(name)
            if now is None or now.until != hold.until or "hold" in actors:
                continue
            started = sum(before.covers(hold, run) for run in opened(before, after))
            assert started <= hold.free, f"{started} runs started under {hold}"
            if hold.staggers and hold.free:
                assert now.released == hold.released + started, f"{started} runs started, {hold} became {now}"

    def budgets(self, before, after, actors):
        """What was used is charged, once, to its tenant and its agent; with a new period the count begins anew."""
        fresh = [row for n, row in after.usage.items() if n not in before.usage]
        for name, now in after.budgets.items():
            was = before.budgets.get(name)
            if was is None or "budget" in actors:
                continue
            spent = sum(row.cost or 0 for row in fresh if row[now.scope] == now.name)
            right = spent + (was.spent if now.since == was.since else 0)
            assert now.spent == right, f"{spent} were spent: the budget {was} is {now}"

    def told(self, before, after, actors):
        """Nothing is added to what a run was told when it began; what a job knows it does not forget."""
        for n, was in before.jobs.items():
            now = after.jobs[n]
            heard = any(turn.job == n and m not in before.turns for m, turn in after.turns.items())
            if was.status in ("running", "waiting", *DONE) and now.status == was.status and not heard:
                assert now.context == was.context, f"job {n} was told {now.context} when it could not hear"
            assert was.context.items() <= now.context.items(), f"job {n} knew {was.context}, now {now.context}"

    def talked(self, before, after, actors):
        """The first end of a turn stands, and the first answer; what is over is not opened again; no word is gone."""
        for n, was in before.turns.items():
            now = after.turns[n]
            assert not over(was) or was == now, f"turn {n} was {was}, is {now}"
        for n, was in before.asked.items():
            now = after.asked[n]
            same = was.status in (now.status, "pending")
            assert same and was.answer in (None, now.answer), f"interaction {n} was {was}, is {now}"

    def cancelled(self, before, after, actors):
        """What was to be cancelled and lost its run is cancelled; what had ended runs again only by retry."""
        for n, was in before.jobs.items():
            now, retried = after.jobs[n], "retry" in actors
            ended = [run for run in after.runs.values() if run.job == n and not run.live and before.runs[run.id].live] if (
                was.cancelling and not retried) else []  # fmt: skip
            for run in ended:
                allowed = {"succeeded": "succeeded"}.get(
                    run.outcome, "failed" if run.reason == "unkillable" else "cancelled"
                )
                assert now.status == allowed, (
                    f"job {n} was to be cancelled, its run ended {run.outcome}, it is {now.status}"
                )
            if was.status in DONE and not retried:
                assert sum(run.job == n for run in after.runs.values()) == sum(
                    run.job == n for run in before.runs.values()
                )


def opened(before, after):
    return [run for n, run in after.runs.items() if n not in before.runs and run.live]


def over(turn):
    return turn.state in ("ended", "cancelled")
