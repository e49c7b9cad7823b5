"""What Codex asks a human: permissions and questions, and how an answer is said to it. Pure; if it fails, one run fails.

What is kept of a request is what its answer needs; the rest is in the event.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.models import Event

Kept = dict[str, Any]
INPUT_LIMIT = 4096
"""Characters of anything that a permission would do, which go beside the question."""
DECISIONS = {
    "accept": ("Allow", "allow_once"),
    "acceptForSession": ("Allow for this session", "allow_always"),
    "acceptWithExecpolicyAmendment": ("Allow, and commands like it from now on", "allow_always"),
    "applyNetworkPolicyAmendment": ("Allow this host from now on", "allow_always"),
    "decline": ("Deny", "reject_once"),
    "cancel": ("Deny, and end the turn", "reject_once"),
}
USUAL = ("accept", "acceptForSession", "decline", "cancel")
"""What there is to decide if it does not say."""
QUESTION = "item/tool/requestUserInput"
ELICITATION = "mcpServer/elicitation/request"
PERMISSIONS = "item/permissions/requestApproval"
TOOLS = {
    "item/commandExecution/requestApproval": "command_execution", "item/fileChange/requestApproval": "file_change",
    PERMISSIONS: "permissions", ELICITATION: "mcp_tool_call",
}  # fmt: skip
FEWER = {PERMISSIONS: ("accept", "acceptForSession", "decline"), ELICITATION: ("accept", "decline", "cancel")}


def understood(method: str, params: Mapping[str, Any]) -> bool:
    """Is there a human who can be asked this? A form or a page of an MCP server is for nobody here."""
    if method == ELICITATION:
        schema = params.get("requestedSchema")
        return params.get("mode") == "form" and isinstance(schema, dict) and not schema.get("properties")
    return method == QUESTION or method in TOOLS


def ask(ident: str, method: str, params: Mapping[str, Any], files: str | None) -> tuple[Event, Kept]:
    """The event, and what is kept for the answer. `files`: those that a change of files is about."""
    if method == QUESTION:
        questions = [_question(each) for each in params["questions"]]
        words = "\n".join(each["question"] for each in questions)
        return Event("question", words, {"id": ident, "questions": questions}), {}
    decisions = _decisions(params.get("availableDecisions") or FEWER.get(method, USUAL))
    options = [{"id": name, "name": DECISIONS[name][0], "kind": DECISIONS[name][1]} for name in decisions]
    data = {
        "id": ident,
        "tool": TOOLS[method],
        "input": {**_would(params), **({"files": files} if files else {})},
        "options": options,
    }
    kept: Kept = {"decisions": decisions}
    if method == PERMISSIONS:
        kept["permissions"] = params.get("permissions") or {}
    return Event("permission", _words(method, params, files), data), kept


def reply(method: str, kept: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """What is said to it, of what was said by whoever was asked."""
    if method == QUESTION:
        answers = data.get("answers")
        given = answers if isinstance(answers, dict) else {}
        return {"answers": {ident: {"answers": _list(each)} for ident, each in given.items()}}
    option = data.get("option")
    usual = "accept" if data.get("decision") == "allow" else "decline"
    chosen = str(option) if option in kept["decisions"] else usual
    if method == PERMISSIONS:
        well = DECISIONS[chosen][1].startswith("allow")
        scope = "turn" if chosen == "accept" or not well else "session"
        return {"permissions": kept.get("permissions", {}) if well else {}, "scope": scope}
    if method == ELICITATION:
        action = "accept" if chosen.startswith("accept") else chosen
        return {"action": action, "content": {} if action == "accept" else None}
    return {"decision": kept["decisions"].get(chosen, chosen)}


def _question(said: Mapping[str, Any]) -> dict[str, Any]:
    options = said.get("options") or []
    return {
        "id": str(said["id"]),
        "header": said.get("header"),
        "question": str(said["question"]),
        "options": [{"label": str(each["label"]), "description": each.get("description")} for each in options],
        "multiple": False,
        "free_text": bool(said.get("isOther")) or not options,
        "secret": bool(said.get("isSecret")),
    }


def _decisions(available: object) -> dict[str, Any]:
    """By their names, as they have to be said. It takes `decline` whether it names it or not, and then the turn goes on."""
    named: dict[str, Any] = {}
    for each in available if isinstance(available, list | tuple) else USUAL:
        name = each if isinstance(each, str) else next(iter(each), None) if isinstance(each, dict) else None
        if name in DECISIONS:
            named[str(name)] = each
    named.setdefault("decline", "decline")
    return {name: named[name] for name in DECISIONS if name in named}


def _would(params: Mapping[str, Any]) -> dict[str, Any]:
    """What it would do, abridged."""
    names = (
        "command",
        "cwd",
        "reason",
        "grantRoot",
        "permissions",
        "networkApprovalContext",
        "additionalPermissions",
        "serverName",
    )
    return {name: _short(params[name]) for name in names if params.get(name) is not None}


def _short(value: Any) -> Any:
    return f"{value[:INPUT_LIMIT]}…" if isinstance(value, str) and len(value) > INPUT_LIMIT else value


def _words(method: str, params: Mapping[str, Any], files: str | None) -> str:
    what = params.get("command") or params.get("message") or files or params.get("grantRoot")
    reason = params.get("reason")
    parts = [str(_short(part)) for part in (reason, what) if part]
    return ": ".join(parts) or f"It asks for permission: {TOOLS[method]}"


def _list(value: object) -> Sequence[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
