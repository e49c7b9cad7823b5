"""Agents that are spoken to, as their worker sees them: what they say, what they are given."""

import json

PERMISSION = [
    {"id": "proceed_once", "name": "Allow", "kind": "allow_once"},
    {"id": "proceed_always", "name": "Always", "kind": "allow_always"},
    {"id": "cancel", "name": "No", "kind": "reject_once"},
]
COLOUR = {"id": "colour", "question": "Which colour?", "options": [{"label": "Red"}, {"label": "Blue"}]}
WORDS = {"id": "words", "question": "Why?", "free_text": True}
PARTS = {
    "id": "parts",
    "question": "Which?",
    "options": [{"label": "A"}, {"label": "B"}, {"label": "C"}],
    "multiple": True,
}


async def hears(sql, name="talker", adapter="codex", **columns):
    """An agent that can be spoken to."""
    columns = {"name": name, "adapter": adapter, "command": ["true"]} | columns
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    await sql.execute(f"insert into leasehold.agents ({', '.join(columns)}) values ({places})", *columns.values())
    return name


async def said(sql, run, *words):
    """append_events of (kind, data, message?); answers the refused run ids."""
    rows = [(kind, data, (*more, None)[0]) for kind, data, *more in words]
    return [
        row[0]
        for row in await sql.fetch(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
            [run["run_id"]] * len(rows),
            [run["run_token"]] * len(rows),
            [None] * len(rows),
            [kind for kind, _, _ in rows],
            ["info"] * len(rows),
            [None] * len(rows),
            [message for _, _, message in rows],
            [json.dumps(data) for _, data, _ in rows],
        )
    ]


def permission(name="p1", tool="bash", **more):
    return (
        "permission",
        {"id": name, "tool": tool, "input": {"command": "rm -r build"}, "options": PERMISSION} | more,
        "May I?",
    )


def question(*questions, name="q1"):
    return ("question", {"id": name, "questions": list(questions) or [COLOUR]}, "Tell me")


async def inputs(worker, *runs, again=False, sql=None):
    """(kind, id, text) or (kind, id, data) of what waits for these runs."""
    rows = await (sql or worker.sql).fetch(
        "select * from leasehold.read_inputs($1, $2, $3, $4)", *worker.me, [run["run_id"] for run in runs], again
    )
    return [
        (row["kind"], row["id"], json.loads(row["data"]) if row["kind"] == "answer" else row["text"]) for row in rows
    ]


async def take(worker, run, *what, sql=None):
    """The keeper has these (kind, id, ...)."""
    await (sql or worker.sql).execute(
        "select leasehold.take_inputs($1, $2, $3, $4, $5)",
        *worker.me, [run["run_id"]] * len(what), [one[0] for one in what], [one[1] for one in what],
    )  # fmt: skip


async def steer(sql, job, text="also the docs", key=None, kind="steer"):
    return await sql.fetchval(f"select leasehold.{kind}($1, $2, $3)", job, text, key)


async def turn(sql, number):
    return await sql.fetchrow("select * from leasehold.turns where id = $1", number)


async def answer(sql, interaction, answer=None, message=None, answers=None):
    return await sql.fetchval(
        "select leasehold.answer($1, $2, $3, $4)",
        interaction, answer, message, None if answers is None else json.dumps(answers),
    )  # fmt: skip


async def asked(sql, run=None):
    """The newest interaction."""
    return await sql.fetchrow(
        "select * from leasehold.interactions where $1::bigint is null or run_id = $1 order by id desc limit 1",
        run and run["run_id"],
    )


async def kinds(sql, job, *like):
    """Kinds of the job's events that begin so."""
    rows = await sql.fetch("select kind from leasehold.events where job_id = $1 order by seq", job)
    return [row["kind"] for row in rows if row["kind"].startswith(like)]
