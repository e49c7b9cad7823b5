"""A credential on loan: copied to one agent at a time, and back when the agent has renewed it. If it fails, that agent is not started.

Tokens that rotate may be used by one at a time only: whoever uses an old one logs everybody out. So the lock is held for as long as
the agent runs, it goes with our process, and it says to whom the credential is lent: the next one first takes back what somebody who
was killed had renewed.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from leasehold.stage.within import Odd, drop, get, put, room
from leasehold.stage.words import StageError, say

STEP = "config"
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
LOOK = 0.1
"""Seconds between two looks at a lock that somebody has."""


def tell(words: str) -> None:
    """Something that its administrator should know."""
    say(STEP, words)


@dataclass(frozen=True)
class Loan:
    """To whom: the file `name` in a private directory. `digest` is of what was lent."""

    dir: str
    name: str
    digest: str


@contextmanager
def lent(plan: Mapping[str, Any], here: int, directory: Path, stopped: Callable[[], bool]) -> Iterator[None]:
    """Lend the credential `path` as `name` in the directory.

    Its lock, a file in `locks`, is waited for `wait` seconds, and held (`hold`) for the whole `run`, or only to `copy`.
    """
    original = Path(os.path.realpath(plan["path"]))
    lock = Path(plan["locks"]) / f"{sha256(os.fsencode(original)).hexdigest()[:32]}.lock"
    whole = plan.get("hold", "run") == "run"
    with held(lock, original, plan["wait"], stopped) as ledger:
        take_back(ledger, original)
        loan = lend(ledger if whole else None, original, here, directory, plan["name"])
        if whole:
            try:
                yield
            finally:
                returned(loan, original, ledger)
    if not whole:
        try:
            yield
        finally:
            _return_late(loan, original, lock, plan["wait"])


@contextmanager
def held(lock: Path, original: Path, wait: float, stopped: Callable[[], bool]) -> Iterator[int]:
    """The lock of one credential, waited for so long. It is nobody's when this process ends."""
    lock.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
    ledger = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        late = time.monotonic() + wait
        while not _taken(ledger):
            if stopped():
                raise StageError("stopped", STEP, "stopped before its credential was free")
            if time.monotonic() >= late:
                raise StageError("busy", STEP, f"another run has had {original} for longer than {wait:g} s")
            time.sleep(LOOK)
        yield ledger
    finally:
        os.close(ledger)


def _taken(ledger: int) -> bool:
    try:
        fcntl.flock(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lend(ledger: int | None, original: Path, here: int, directory: Path, name: str) -> Loan:
    """Copy it, after the ledger says so. Raises StageError when it could not come back."""
    try:
        with room(original.parent, make=False) as place:
            raw, _ = get(place, original.name)
    except FileNotFoundError:
        raise StageError("auth", STEP, f"there is no credential {original} on this host: log in there first") from None
    except OSError as error:
        raise StageError("config", STEP, f"the credential {original} cannot be read: {error}") from error
    if ledger is not None and not os.access(original.parent, os.W_OK):
        raise StageError(
            "config", STEP, f"{original.parent} cannot be written: a credential that its agent renews would be lost"
        )
    loan = Loan(str(directory), name, digest(raw))
    if ledger is not None:
        note(ledger, loan)
    put(here, name, raw)
    return loan


def returned(loan: Loan, original: Path, ledger: int | None) -> None:
    """Back from whoever had it; what cannot be written stays where it is, and in the ledger, for the next one to try."""
    try:
        with room(Path(loan.dir), make=False) as here:
            bring_back(loan, here, original)
            drop(here, loan.name)
    except OSError as error:
        if error.errno not in GONE:
            tell(f"the credential {original}, which its agent has renewed, could not be brought back yet: {error}")
            return
        tell(f"the agent has removed its copy of {original}: it stays as it was")
    if ledger is not None:
        with suppress(OSError):  # the next one finds it again, and nothing to do
            note(ledger, None)


def bring_back(loan: Loan, here: int, original: Path) -> None:
    """If it was renewed, and is not older than what others have put there meanwhile. Raises OSError."""
    try:
        raw, written = get(here, loan.name)
    except Odd as error:
        tell(f"{error}: {original} stays as it was")
        return
    if digest(raw) == loan.digest:
        return
    with room(original.parent, make=False) as place:
        try:
            now, changed = get(place, original.name)
        except FileNotFoundError:
            tell(f"{original} was removed meanwhile: what the agent had of it goes, too")
            return
        if not credible(raw, now):
            tell(f"the agent has left a broken copy of {original}: it stays as it was")
        elif digest(now) not in (loan.digest, digest(raw)) and changed >= written:
            tell(f"{original} was changed by the agent, and later by somebody else: theirs stays")
        else:
            if digest(now) not in (loan.digest, digest(raw)):
                tell(f"{original} was changed by somebody else, and later by the agent: the agent's is kept")
            put(place, original.name, raw)


def take_back(ledger: int, original: Path) -> None:
    """What somebody had who was killed before it came back."""
    loan = noted(ledger)
    if loan is None:
        return
    returned(loan, original, ledger)
    if noted(ledger) is not None:
        raise StageError(
            "config", STEP, f"{original} was renewed in {loan.dir}/{loan.name} and could not be brought back"
        )


def _return_late(loan: Loan, original: Path, lock: Path, wait: float) -> None:
    try:
        with held(lock, original, wait, lambda: False):
            returned(loan, original, None)
    except (StageError, OSError) as error:
        tell(f"what the agent made of {original} is not brought back: {error}")


def note(ledger: int, loan: Loan | None) -> None:
    """Write down to whom it is lent, for whoever has the lock next."""
    raw = json.dumps(asdict(loan)).encode() if loan else b""
    os.ftruncate(ledger, 0)
    os.pwrite(ledger, raw, 0)
    os.fsync(ledger)


def noted(ledger: int) -> Loan | None:
    """What the last holder has written; half a note was written before anything was lent."""
    try:
        return Loan(**json.loads(os.pread(ledger, 1 << 16, 0)))
    except (ValueError, TypeError):
        return None


def credible(raw: bytes, before: bytes) -> bool:
    """Not empty; and JSON, if it was before: an agent that was killed may have written half of it."""
    return bool(raw.strip()) and (is_json(raw) or not is_json(before))


def is_json(raw: bytes) -> bool:
    """Could a program read it?"""
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True


def digest(raw: bytes) -> str:
    """What tells two credentials apart, and tells nobody what they are."""
    return sha256(raw).hexdigest()
