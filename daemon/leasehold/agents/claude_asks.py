"""What Claude Code asks a human: its requests as events, a human's answer as its reply. Pure; if it fails, one run fails.

Its questions are a tool that asks for permission: whoever allows it puts the answers into its input.
"""

import json
from collections.abc import Mapping
from typing import Any

from leasehold.models import Event

QUESTION = "AskUserQuestion"
STRING, LIST = 2000, 50
"""What is longer is cut in the event."""
KEPT = 16 << 10
"""Characters of an input that are held until it is answered. Older versions want it back; what is longer is left out."""
OPTIONS = (
    {"id": "allow", "name": "Allow it", "kind": "allow_once"},
    {"id": "deny", "name": "Deny it; the agent goes on without", "kind": "reject_once"},
    {"id": "stop", "name": "Deny it, and end the turn", "kind": "reject_once"},
)
ALWAYS = {"id": "always", "name": "Allow it, and the like of it for the rest of this run", "kind": "allow_always"}
DENIED = "This was denied."


def asked(ident: str, request: Mapping[str, Any]) -> Event:
    """Its request as an event. Raises on what has not the shape it should have."""
    name, given = str(request["tool_name"]), dict(request["input"])
    if name == QUESTION:
        questions = [_question(str(number), each) for number, each in enumerate(given["questions"], 1)]
        return Event(
            "question", "\n".join(each["question"] for each in questions), {"id": ident, "questions": questions}
        )
    options = [OPTIONS[0], *([ALWAYS] if request.get("permission_suggestions") else []), *OPTIONS[1:]]
    data = {"id": ident, "tool": name, "input": abridged(given), "options": options}
    return Event("permission", f"{name}: {words_of(given) or request.get('description') or name}", data)


def words_of(given: Mapping[str, Any]) -> str | None:
    """What a tool is about to do, in a few words."""
    found = (given.get(name) for name in ("command", "file_path", "url", "query", "pattern", "description"))
    return next((each for each in found if isinstance(each, str) and each), None)


def answered(ask: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """What goes back to it."""
    option = answer.get("option") or answer.get("decision")
    if option in ("deny", "stop"):
        reply = {"behavior": "deny", "message": answer.get("message") or DENIED}
        return {**reply, "interrupt": True} if option == "stop" else reply
    given = ask["input"]
    if ask["tool"] == QUESTION:
        given = {**given, "answers": _answers(given["questions"], answer)}
    reply = {"behavior": "allow", **({} if given is None else {"updatedInput": given})}
    return {**reply, "updatedPermissions": ask["always"]} if option == "always" else reply


def kept(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The input that goes back with the answer, as it came. None: it is long; the program has it, and goes on with that."""
    given = dict(request["input"])
    return given if request["tool_name"] == QUESTION or len(json.dumps(given)) <= KEPT else None


def here(suggestion: Mapping[str, Any]) -> dict[str, Any]:
    """A rule it would like to have, for this process only: it would write some into the repository."""
    return {**suggestion, "destination": "session"}


def abridged(value: Any) -> Any:
    """The same, without what is long."""
    if isinstance(value, str):
        return value if len(value) <= STRING else f"{value[:STRING]}… ({len(value)} characters)"
    if isinstance(value, list):
        return [abridged(each) for each in value[:LIST]]
    if isinstance(value, dict):
        return {name: abridged(each) for name, each in list(value.items())[:LIST]}
    return value


def _question(number: str, said: Mapping[str, Any]) -> dict[str, Any]:
    options = [
        {"label": str(each["label"]), "description": each.get("description")} for each in said.get("options") or []
    ]
    return {
        "id": number, "header": said.get("header"), "question": str(said["question"]), "options": options,
        "multiple": bool(said.get("multiSelect")), "free_text": True, "secret": False,
    }  # fmt: skip


def _answers(questions: list[Mapping[str, Any]], answer: Mapping[str, Any]) -> dict[str, str]:
    """By the words of the question, several in one string: that is how its own window says it."""
    given = answer.get("answers") or {}
    said = {}
    for number, each in enumerate(questions, 1):
        words = given.get(str(number)) or ([answer["message"]] if answer.get("message") else [])
        if words:
            said[each["question"]] = words if isinstance(words, str) else ", ".join(map(str, words))
    return said
