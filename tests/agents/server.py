"""A scripted model on loopback: the first segment of the path is the scenario, the prompt is the script.

with ModelServer() as model:
    model.url("ok")          http://127.0.0.1:PORT/ok   follow the script
    model.url("401")         403, 400, 429, 500, 529, quota, limit, overflow: always that error
    model.url("429once")     the first request of each prompt gets the error, the others are answered
    model.url("drop")        the connection ends in the middle of every stream
    model.url("garbage")     200, and no stream of events
    model.url("slow")        every answer comes slowly, whatever the prompt says
"""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from agents.chat import Chat, Gemini
from agents.dialects import Asked, Dialect, Messages, Responses
from agents.script import DONE, Script

DIALECTS: dict[str, Dialect] = {
    "responses": Responses(), "messages": Messages(), "completions": Chat(),
    "streamGenerateContent": Gemini(), "generateContent": Gemini(),
}  # fmt: skip
"""By the last segment of the path, or what is behind its colon."""
ERRORS = {
    "400": (400, "invalid_request_error", "That is no request."),
    "401": (401, "authentication_error", "That is no key."),
    "403": (403, "permission_error", "Not for you."),
    "429": (429, "rate_limit_error", "Not so fast. Try again in 1s."),
    "500": (500, "api_error", "An accident."),
    "529": (529, "overloaded_error", "Too many at once."),
    "quota": (429, "insufficient_quota", "You have used up your quota."),
    "limit": (429, "usage_limit_reached", "You have reached your limit."),
    "overflow": (400, "context_length_exceeded", "prompt is too long: 250000 tokens > 200000 maximum"),
}
RESETS_AT = 1_999_999_000
LIMIT = {
    "x-codex-primary-used-percent": "100",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-at": str(RESETS_AT),
}
"""How OpenAI says when a used up account comes back."""
SLOW = 0.2
"""Seconds for a word that comes slowly."""
ENDLESS = " ".join(f"word{number}" for number in range(3000))


class ModelServer:
    """Listens from enter to exit. `requests` are the bodies it was sent, with their scenario."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.asked: Counter[tuple[str, str]] = Counter()
        self.becomes: dict[str, str] = {}  # a scenario that is another one by now: the provider is well again
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True  # an agent that was killed may have left one in the middle of a word
        self._server.block_on_close = False
        self._server.model = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, scenario: str = "ok") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{scenario}"

    def __enter__(self) -> "ModelServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name in the base class
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self._whole(200, b"")

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [], "models": [], "has_more": False})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        scenario, *_, last = self.path.split("?")[0].strip("/").split("/")
        last = last.rpartition(":")[2]
        dialect = DIALECTS.get(last)
        if dialect is None:
            return self._json(200, {"input_tokens": 1000})  # somebody counts tokens
        model: ModelServer = self.server.model  # type: ignore[attr-defined]
        scenario = model.becomes.get(scenario, scenario)
        model.requests.append((scenario, body))
        asked = dialect.asked(body)
        model.asked[scenario, asked.prompt] += 1
        again = model.asked[scenario, asked.prompt] > 1
        try:
            self._answer(scenario, dialect, body, asked, again)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the agent left

    def _answer(self, scenario: str, dialect: Dialect, body: dict[str, Any], asked: Asked, again: bool) -> None:
        error = ERRORS.get(scenario.removesuffix("once"))
        if error is not None and not (again and scenario.endswith("once")):
            status, kind, words = error
            wait = {"retry-after": "1"} if status == 429 else {}
            wait |= LIMIT if scenario == "limit" else {}
            self._json(status, dialect.error(status, kind, words), **wait)
        elif scenario == "garbage":
            self._whole(200, b"<html>a page</html>", "text/html")
        else:
            self._stream(scenario, dialect, body, asked)

    def _stream(self, scenario: str, dialect: Dialect, body: dict[str, Any], asked: Asked) -> None:
        script = Script.read(asked.prompt)
        call = script.next(asked.results, asked.tools)
        slowly = (script.slowly or scenario == "slow") and call is None
        say = ENDLESS if slowly and script.say == DONE else script.say
        events = dialect.call(body, call) if call else dialect.words(body, say)
        if not body.get("stream") and ":stream" not in self.path:  # what some try when their stream was dropped
            self._json(200, dialect.whole(list(events)))
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, event in enumerate(events):
            if scenario == "drop" and number == 2:
                break
            self.wfile.write(sse(event))
            if slowly:
                time.sleep(SLOW)
        self.close_connection = True

    def _json(self, status: int, said: dict[str, Any], **headers: str) -> None:
        self._whole(status, json.dumps(said).encode(), "application/json", **headers)

    def _whole(self, status: int, raw: bytes, content: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": content, "content-length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


def sse(event: dict[str, Any] | str) -> bytes:
    """One event of a stream; not every language has names for them."""
    if isinstance(event, str):
        return f"data: {event}\n\n".encode()
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
