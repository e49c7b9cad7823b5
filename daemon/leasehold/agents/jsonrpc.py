"""JSON-RPC, one message in a line, as agents speak it on their stdio. Pure; if it fails, one run fails.

Some write a `jsonrpc` member into every message and some none: what is sent has it if it is asked for, what is read may have it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Id = int | str
NO_METHOD = -32601
"""The code for a method that nobody here knows."""


@dataclass(frozen=True, slots=True)
class Message:
    """One, as it was received. An answer has no method; of its `result` and `error` one is None."""

    kind: Literal["request", "notification", "answer"]
    id: Id | None = None
    method: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    error: Mapping[str, Any] | None = None

    @property
    def trouble(self) -> str:
        """What an error says."""
        return str((self.error or {}).get("message") or self.error or "")


def read(said: Mapping[str, Any]) -> Message | None:
    """What kind of message this object is; None: it is none."""
    method, ident = said.get("method"), _id(said.get("id"))
    params = said.get("params")
    given = params if isinstance(params, dict) else {}
    if isinstance(method, str):
        if "id" not in said:
            return Message("notification", None, method, given)
        return None if ident is None else Message("request", ident, method, given)
    if ident is None or not {"result", "error"} & said.keys():
        return None
    error = said.get("error")
    if error is None:
        return Message("answer", ident, result=said.get("result"))
    return Message("answer", ident, error=error if isinstance(error, dict) else {"message": str(error)})


def request(ident: Id, method: str, params: Mapping[str, Any], *, version: bool = False) -> bytes:
    """Ask it for something."""
    return _line({"id": ident, "method": method, "params": params}, version=version)


def notification(method: str, params: Mapping[str, Any] | None = None, *, version: bool = False) -> bytes:
    """Tell it something."""
    return _line({"method": method, **({} if params is None else {"params": params})}, version=version)


def answer(ident: Id, result: Any, *, version: bool = False) -> bytes:
    """Give it what it has asked for."""
    return _line({"id": ident, "result": result}, version=version)


def refusal(ident: Id, message: str, code: int = NO_METHOD, *, version: bool = False) -> bytes:
    """It asked for what it cannot have; unanswered it might wait for ever."""
    return _line({"id": ident, "error": {"code": code, "message": message}}, version=version)


def _line(said: Mapping[str, Any], *, version: bool) -> bytes:
    whole = {"jsonrpc": "2.0", **said} if version else said
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


def _id(value: object) -> Id | None:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
