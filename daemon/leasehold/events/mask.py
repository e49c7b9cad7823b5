"""What must not leave a run's files: the secrets it was given. If it fails, one run fails. Pure.

An agent that prints its key, or a provider that repeats a part of the request in its error, would put it into events and output for
every reader to see. Each byte of a secret becomes a star, so offsets stay those of the file.
"""

import json
import re
from collections.abc import Collection, Mapping
from urllib.parse import unquote

from leasehold.models import Run

SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
"""Names of variables whose values are nobody's business."""
LEAST = 8
"""Characters from which on a value is taken for a secret: shorter ones are found in words by accident."""


IN_TEXT = re.compile(
    r"""(?:KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|ACCESS|REFRESH)[\w.-]*["']?[ \t]*[:=]\s*["']?([^\s"',;{}\[\]]{16,})""",
    re.IGNORECASE,
)
"""The same in a file of settings: NAME=value, name = "value", "name": "value"."""
LOGIN = re.compile(r"https?://([^/:@]*)(?::([^/@]*))?@", re.IGNORECASE)
"""Who logs in at a web server, with which password."""
LONG = 16
"""Characters from which on the name of who logs in is taken for a token."""
A_NAME = re.compile(r"[A-Z][A-Z_]*[0-9]?")
"""What is no secret but the name of the variable that has it."""


def secrets_of(env: Mapping[str, str]) -> set[str]:
    """Those of an environment."""
    return {value for name, value in env.items() if SECRET.search(name) and len(value) >= LEAST}


def secrets_in(text: str) -> set[str]:
    """Those of a file that its agent is given: a credential, an env file, settings."""
    return {found for found in IN_TEXT.findall(text) if not A_NAME.fullmatch(found)}


def secrets_of_address(address: str) -> set[str]:
    """What somebody logs in with, in the address of a repository: as it is there, and as it is meant."""
    if (found := LOGIN.match(address)) is None:
        return set()
    name, password = found[1], found[2] or ""
    secret = [name] * (len(name) >= LONG) + [password] * (len(password) >= LEAST)
    return {*secret, *map(unquote, secret)}


class Hidden:
    """Hides secrets in one stream, wherever its reader cuts it. Called with all of its bytes, in order."""

    def __init__(self, secrets: Collection[str]) -> None:
        plain = {each.encode("utf-8", "surrogateescape") for each in secrets}
        written = {json.dumps(each)[1:-1].encode() for each in secrets}  # as it is within a line of JSON
        self._secrets = sorted(plain | written, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(each) for each in self._secrets)) if self._secrets else None
        self._held = b""

    def hide(self, raw: bytes) -> bytes:
        """These bytes and what was held of those before, but for an end that may be the beginning of a secret."""
        if self._pattern is None:
            return raw
        whole = self._pattern.sub(_stars, self._held + raw)
        begun = self._begun(whole)
        self._held = whole[len(whole) - begun :]
        return whole[: len(whole) - begun]

    def rest(self) -> bytes:
        """Nothing more comes: what was held is no secret."""
        held, self._held = self._held, b""
        return held

    def _begun(self, raw: bytes) -> int:
        """Bytes at the end that a secret begins with."""
        longest = min(len(raw), len(self._secrets[0]) - 1)
        return next((n for n in range(longest, 0, -1) if any(each.startswith(raw[-n:]) for each in self._secrets)), 0)


def mask_of(run: Run) -> Hidden:
    """For one stream of a run."""
    return Hidden(secrets_of(run.env) | run.secrets)


def hidden(text: str, run: Run) -> str:
    """A whole text without the secrets of that run."""
    one = mask_of(run)
    raw = one.hide(text.encode("utf-8", "surrogatepass"))
    return (raw + one.rest()).decode("utf-8", "replace")


def _stars(found: re.Match[bytes]) -> bytes:
    return b"*" * len(found[0])
