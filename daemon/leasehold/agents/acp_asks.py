"""What an ACP agent asks a human, as events, and a human's answers, as its protocol wants them. Pure.

Options are chosen by their kind: each agent has ids of its own.
"""

from typing import Any

from leasehold.agents.conversation import Said
from leasehold.models import Event

TEXT, ITEMS = 2000, 20
"""Characters of a string and items of a list that are shown of what a tool is given."""
CHOICES = {"allow": ("allow_once", "allow_always"), "deny": ("reject_once", "reject_always")}
CANCELLED: dict[str, Said] = {"permission": {"outcome": {"outcome": "cancelled"}}, "question": {"action": "cancel"}}
"""What is answered to whom nobody will answer any more."""


def abridged(said: Any, text: int = TEXT) -> Any:
    """The same, without what is long."""
    if isinstance(said, str):
        return said if len(said) <= text else f"{said[:text]}… ({len(said)} characters)"
    if isinstance(said, list):
        return [abridged(each, text) for each in said[:ITEMS]]
    if isinstance(said, dict):
        return {str(name): abridged(said[name], text) for name in list(said)[:ITEMS]}
    return said


def tool_name(call: Said) -> str:
    """What its tool is called: the agent's own name for it if it says one, else the protocol's kind of it."""
    meta = call.get("_meta")
    names = [each.get("toolName") for each in meta.values() if isinstance(each, dict)] if isinstance(meta, dict) else []
    candidates = (*names, call.get("name"), call.get("kind"), call.get("title"))
    return next((name for name in candidates if isinstance(name, str) and name), "tool")


def permission(said: Said, tool: str, name: str) -> tuple[Event, Said]:
    """`session/request_permission`: the event under this name, and what has to be known of it for the answer."""
    call = said["params"]["toolCall"]
    options = [
        {"id": str(each["optionId"]), "name": str(each.get("name") or each["optionId"]), "kind": str(each["kind"])}
        for each in said["params"]["options"]
    ]
    message = str(call.get("title") or tool)
    event = Event(
        "permission", message, {"id": name, "tool": tool, "input": abridged(call.get("rawInput")), "options": options}
    )
    ask = {
        "id": said["id"],
        "kind": "permission",
        "tool": tool,
        "open": True,
        "options": {o["id"]: o["kind"] for o in options},
    }
    return event, ask  # fmt: skip


def question(said: Said, name: str) -> tuple[Event, Said]:
    """`elicitation/create` with a form: each of its fields is a question."""
    params = said["params"]
    if params.get("mode") != "form":
        raise ValueError("only forms can be answered here")
    fields = params["requestedSchema"]["properties"]
    questions = [_asked(key, field) for key, field in fields.items()]
    event = Event("question", str(params["message"]), {"id": name, "questions": questions})
    known = {key: {"type": field.get("type"), "values": _values(field)} for key, field in fields.items()}
    return event, {"id": said["id"], "kind": "question", "open": True, "fields": known}


def reply(ask: Said, given: Any) -> Said:
    """The result that answers it. `given` is as in `interactions.response`."""
    if ask["kind"] == "question":
        if given.get("decision") == "deny":
            return {"action": "decline"}
        answers = given.get("answers") or {}
        content = {name: _value(field, answers[name]) for name, field in ask["fields"].items() if answers.get(name)}
        return {"action": "accept", "content": content}
    chosen = _option(ask["options"], given)
    return {"outcome": {"outcome": "selected", "optionId": chosen}} if chosen else CANCELLED["permission"]


def denies(ask: Said, given: Any) -> bool:
    """Is this the answer that it may not?"""
    kind = ask.get("options", {}).get(given.get("option"), "")
    return bool(ask["kind"] == "permission" and (given.get("decision") == "deny" or kind.startswith("reject")))


def _option(options: dict[str, str], given: Said) -> str | None:
    if given.get("option") in options:
        return str(given["option"])
    wanted = CHOICES.get(str(given.get("decision")), ())
    return next((ident for kind in wanted for ident, its in options.items() if its == kind), None)


def _asked(name: str, field: Said) -> Said:
    labels = [{"label": label, "description": ""} for label in _values(field)]
    multiple = field.get("type") == "array"
    if field.get("type") == "boolean":
        labels = [{"label": "yes", "description": ""}, {"label": "no", "description": ""}]
    return {
        "id": name, "header": str(field.get("title") or name), "question": str(field.get("description") or field.get("title") or name),
        "options": labels, "multiple": multiple, "free_text": not labels, "secret": False,
    }  # fmt: skip


def _values(field: Said) -> dict[str, str]:
    """What can be chosen: label to value."""
    place = field.get("items") or field
    named = place.get("oneOf") or place.get("anyOf") or []
    return {str(o.get("title") or o["const"]): o["const"] for o in named} or {
        str(v): v for v in place.get("enum") or ()
    }


def _value(field: Said, words: list[Any]) -> Any:
    """Labels or words as the type that the field has."""
    chosen = [field["values"].get(str(word), word) for word in words]
    match field["type"]:
        case "array":
            return chosen
        case "boolean":
            return str(chosen[0]).strip().lower() in {"yes", "true", "y", "1", "on"}
        case "integer" | "number" as kind:
            try:
                return int(chosen[0]) if kind == "integer" else float(chosen[0])
            except ValueError:
                return chosen[0]
    return str(chosen[0])
