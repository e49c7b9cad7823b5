"""JSON lines, bounded, and requests checked word by word. If it fails, one connection ends."""

import json
import math
from collections.abc import Iterator
from signal import Signals

PROTOCOL = 2
"""One more with every operation that a daemon cannot do without: 2 has hold, release, look, punch and limits.
What only some runs need is named in `about` instead, so that an older keeper need not be restarted for it."""
LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one request; a longer one ends the connection."""

Request = dict[str, object]


class RefusedError(Exception):
    """The request can't be done; `code` for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LineTooLongError(Exception):
    """A line is longer than any request may be."""


class Lines:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._held += data

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        at = self._held.find(b"\n", self._searched)
        if (len(self._held) if at < 0 else at) > LINE_LIMIT:
            raise LineTooLongError
        if at < 0:
            self._searched = len(self._held)
            raise StopIteration
        line = bytes(self._held[:at])
        del self._held[: at + 1]
        self._searched = 0
        return line


def encode(message: dict[str, object]) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> Request:
    """One line as a request."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedError("bad_request", f"this line is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RefusedError("bad_request", "a request is a JSON object")
    return request


def integer(request: Request, name: str, least: int = 0) -> int:
    """A whole number that fits PostgreSQL's bigint."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise RefusedError("bad_request", f"{name!r} must be an integer, at least {least}")
    return value


def seconds(request: Request, name: str) -> float:
    """A finite number of seconds, not negative."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RefusedError("bad_request", f"{name!r} must be a number of seconds")
    if not math.isfinite(value) or not 0 <= value < 2**40:
        raise RefusedError("bad_request", f"{name!r} must be finite and not negative")
    return float(value)


def text(request: Request, name: str) -> str:
    """A string."""
    value = request.get(name)
    if not isinstance(value, str):
        raise RefusedError("bad_request", f"{name!r} must be a string")
    return value


def raw_text(request: Request, name: str) -> bytes:
    """A string as the bytes that it stands for; what is no UTF-8 came as lone surrogates, each a byte."""
    try:
        return text(request, name).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise RefusedError("bad_request", f"{name!r} holds a surrogate that stands for no byte") from None


def optional_text(request: Request, name: str) -> str | None:
    """A string, or null."""
    return None if request.get(name) is None else text(request, name)


def texts(request: Request, name: str) -> list[str]:
    """A list of strings, not empty."""
    value = request.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise RefusedError("bad_request", f"{name!r} must be a list of strings, not empty")
    return value


def mapping(request: Request, name: str) -> dict[str, object]:
    """An object; absent or null is an empty one."""
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError("bad_request", f"{name!r} must be an object")
    return value


def integers(request: Request, name: str) -> list[int]:
    """A list of whole numbers."""
    value = request.get(name)
    if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
        raise RefusedError("bad_request", f"{name!r} must be a list of integers")
    return value


def ladder(request: Request) -> list[tuple[int, float]]:
    """`signals`: [["TERM", 10.0], ...] as (number, seconds to wait after it)."""
    value = request.get("signals")
    if not isinstance(value, list):
        raise RefusedError("bad_request", "'signals' must be a list of [name, seconds]")
    steps = []
    for step in value:
        if not isinstance(step, list) or len(step) != 2 or not isinstance(step[0], str):
            raise RefusedError("bad_request", "'signals' must be a list of [name, seconds]")
        try:
            number = Signals["SIG" + step[0].removeprefix("SIG")]
        except KeyError:
            raise RefusedError("bad_request", f"there is no signal {step[0]!r}") from None
        steps.append((int(number), seconds({"seconds": step[1]}, "seconds")))
    return steps
