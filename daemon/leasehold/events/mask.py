"""What must not leave a run's files: the secrets it was given. If it fails, one run fails. Pure.

An agent that prints its key, or a provider that repeats a part of the request in its error, would put it into events and output for
every reader to see. Each byte of a secret becomes a star, so offsets stay those of the file.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import groupby

from leasehold.models import Run

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
"""Names of variables whose values are nobody's business."""
LEAST = 8
"""Characters from which on a value is taken for a secret: shorter ones are found in words by accident."""
PIECE = 64
"""Bytes of a secret that are looked for at a time: what an agent prints costs no more than this many looks at each byte."""


def secrets_of(env: Mapping[str, str]) -> set[str]:
    """Those of an environment."""
    return {value for name, value in env.items() if SECRET.search(name) and len(value) >= LEAST}


class Hidden:
    """Hides secrets in one stream, wherever its reader cuts it. Called with all of its bytes, in order."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._pattern, self._pieces = _sought(frozenset(secrets))
        self._firsts = frozenset(each[0] for each in self._pieces)
        self._held = b""
        self._starred = 0  # bytes of these that belong to a secret, at their beginning

    def hide(self, raw: bytes) -> bytes:
        """These bytes and what was held of those before, but for an end that may be the beginning of a secret."""
        if self._pattern is None:
            return raw
        whole = self._held + raw
        return self._told(whole, len(whole) - self._begun(whole))

    def rest(self) -> bytes:
        """Nothing more comes: what was held is no secret, but for what is one within it."""
        return self._told(self._held, len(self._held))

    def _told(self, whole: bytes, end: int) -> bytes:
        """Of these what is before `end`; what is behind it is held, as it is."""
        told, last = bytearray(whole), self._starred
        told[:last] = b"*" * last
        for begin, past in self._found(whole):  # in order, and each may begin within another
            if begin >= end:
                break
            if past > last:
                told[begin:past] = b"*" * (past - begin)
                last = past
        self._held, self._starred = whole[end:], max(0, last - end)
        return bytes(told[:end])

    def _found(self, raw: bytes) -> Iterator[tuple[int, int]]:
        at = 0
        while self._pattern and (found := self._pattern.search(raw, at)):
            yield found.span()
            at = found.start() + 1

    def _begun(self, raw: bytes) -> int:
        """Bytes at the end that a secret begins with, and goes on behind them."""
        end = raw[-PIECE + 1 :]
        for at, byte in enumerate(end):
            if byte in self._firsts:
                begun = end[at:]
                place = bisect_right(self._pieces, begun)  # those that begin so stand together, right behind it
                if place < len(self._pieces) and self._pieces[place].startswith(begun):
                    return len(begun)
        return 0


def mask_of(run: Run) -> Hidden:
    """For one stream of a run."""
    return Hidden(secrets_of(run.env) | run.secrets)


def hidden(text: str, run: Run) -> str:
    """A whole text without the secrets of that run."""
    one = mask_of(run)
    raw = one.hide(text.encode("utf-8", "surrogatepass"))
    return (raw + one.rest()).decode("utf-8", "replace")


@lru_cache(maxsize=64)  # both streams of a run, and whoever takes it up
def _sought(secrets: frozenset[str]) -> tuple[re.Pattern[bytes] | None, list[bytes]]:
    """What finds them, and their pieces in order."""
    plain = {_encoded(each) for each in secrets}
    written = {json.dumps(each)[1:-1].encode() for each in secrets}  # as it is within a line of JSON
    pieces = sorted({piece for each in plain | written for piece in _cut(each)})
    return (re.compile(_branches(pieces, 0)) if pieces else None), pieces


def _encoded(secret: str) -> bytes:
    try:
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, which JSON can say and no bytes can
        return secret.encode("utf-8", "surrogatepass")


def _cut(secret: bytes) -> list[bytes]:
    """In pieces of the same length, so that none is so short that it is found by accident."""
    count = -(-len(secret) // PIECE) or 1
    size = -(-len(secret) // count)
    return [secret[at : at + size] for at in range(0, len(secret), size)]


def _branches(pieces: list[bytes], at: int) -> bytes:
    """One expression for these, in order and alike before `at`: what they have in common is looked at once."""
    pairs = zip(pieces[0], pieces[-1], strict=False)
    same = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(pieces[0]), len(pieces[-1])))
    shortest, rest = len(pieces[0]) == same, [each for each in pieces if len(each) > same]
    begins = re.escape(pieces[0][at:same])
    if not rest:
        return begins
    ways = b"|".join(_branches(list(those), same) for _, those in groupby(rest, key=lambda each: each[same]))
    return begins + b"(?:" + ways + b")" + (b"?" if shortest else b"")
