"""Which values of a text are secrets, by their names. If it fails, one run fails. Pure.

An agent may rewrite what it was lent, so whatever is written there costs no more than a look at each of its characters.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

LEAST = 16
"""Characters from which on a value is taken for a secret: shorter ones are settings and words."""
LONGEST = 8 * 1024
"""Of one."""
MOST = 200
"""Of one text, the longest first."""
ENOUGH = 32 * 1024
"""Characters of all of them."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""Of a name: snake, kebab or camel."""
MAYBE = re.compile(r"key|token|secret|pass|credential|auth|bearer|pat|access|refresh", re.IGNORECASE)
TELLING = re.compile(
    r"keys?|(?:api|access|secret|private)keys?|\w*(?:tokens?|secrets?|password|passwd|passphrase)"
    r"|passwords|pass|credentials?|auth|authorization|bearer|pat"
)
WHOLE = frozenset({"access", "refresh"})
"""Telling only if there is no other word."""
MANY = frozenset({"keys", "secrets", "passwords"})
"""What is named within these is one of them, whatever its name."""
NAMED = 80
"""Characters of a name that are looked at, from its end."""

ELSEWHERE = re.compile(r"(?:env[_-]?key|env|env[_-]?vars?)$", re.IGNORECASE)
"""Names of what only names a variable, ..."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
"""... as this does. Everywhere else it may well be a secret."""
REFERENCE = re.compile(r"\$\{?[A-Z][A-Z0-9_]*\}?|\{(?:env|file):[^{}]*\}")
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.,]*(?:Z|[+-][\d:]+)?)?")
PLACE = re.compile(r"/|~[\w.-]*/|\.\.?/|https?://(?![^/?#\s]*@)", re.IGNORECASE)
"""A file or an address without a password in it."""
RANDOM = re.compile(r"(?=\D*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])/(?:[A-Za-z0-9+]{15,}|[A-Za-z0-9+/]{31,})={0,2}")
"""No file: base64 may begin with a slash."""
SCHEME = re.compile(r"^(?:bearer|basic|token)[ \t]+", re.IGNORECASE)

NAME = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]{2,80}+)(?:["']?[ \t]{0,4}[:=][ \t]{0,4}|(?P<option>["'][ \t]{0,4},\s{0,80}(?=["'])|[ \t]{1,4}))"""
)
"""NAME=value, name = "value", "name": "value", --name=value; only of an option: "--name", "value", --name value."""
VALUE = re.compile(
    r""""(?P<double>(?:[^"\\\n]|\\.){16,8192})"|'(?P<single>[^'\n]{16,8192})'"""
    r"""|(?:(?:bearer|basic|token)[ \t]{1,4})?(?P<bare>[^\s"',;{}\[\]]{16,8192}+)""",
    re.IGNORECASE,
)
PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
PEM_LONGEST = 16 * 1024
NEWLINE = re.compile(r"\\{1,4}[nr]")
PEM_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}")

LOGIN = re.compile(r"https?://([^/:@]*)(?::([^/@]*))?@", re.IGNORECASE)
"""Who logs in at a web server, with which password."""
PASSWORD = 8
"""Characters from which on a password is looked for; the name of who logs in is taken for a token from LEAST on."""


def secrets_in(text: str) -> set[str]:
    """Those of a file that its agent is given: a credential, an env file, settings."""
    try:
        found = _of_json(json.loads(text))
    except (ValueError, RecursionError):
        found = _of_text(text)
    return _some(found)


def secrets_of_address(address: str) -> set[str]:
    """What somebody logs in with, in the address of a repository: as it is there, and as it is meant."""
    if (found := LOGIN.match(address)) is None:
        return set()
    name, password = found[1], found[2] or ""
    secret = [name] * (len(name) >= LEAST) + [password] * (len(password) >= PASSWORD)
    return {*secret, *map(unquote, secret)}


@lru_cache(maxsize=1024)
def tells(name: str) -> bool:
    """Is what has this name nobody's business?"""
    if not MAYBE.search(name):
        return False
    words = _words(name)
    return any(map(TELLING.fullmatch, words)) or (len(words) == 1 and words[0] in WHOLE)


def _words(name: str) -> list[str]:
    return [word.lower() for word in WORD.findall(name)]


def _some(found: Iterable[str]) -> set[str]:
    some, size = set[str](), 0
    for each in sorted(set(found), key=lambda one: (-len(one), one))[:MOST]:
        if size + len(each) <= ENOUGH:
            some.add(each)
            size += len(each)
    return some


def _of_json(whole: Any) -> Iterator[str]:
    """Leaves by their names; those of a list have its name, or that of the option before them."""
    left = [("", whole)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            above = "keys." if MANY.intersection(_words(name)[-1:]) else ""
            left += [(above + inner[-NAMED:], each) for inner, each in value.items()]
        elif isinstance(value, list):
            left += [(_option(last) or name, each) for last, each in zip([None, *value], value, strict=False)]
        elif isinstance(value, str):
            yield from _of_value(name, value) if tells(name) else _of_text(value)


def _option(said: object) -> str | None:
    """An argument that is followed by its value."""
    return said[:NAMED] if isinstance(said, str) and said.startswith("-") and "=" not in said else None


def _of_text(text: str) -> Iterator[str]:
    yield from _of_pem(text)
    at = 0
    while found := NAME.search(text, at):
        at = found.end()
        name = found["name"]
        if (found["option"] and not name.startswith("-")) or not tells(name):
            continue
        if value := VALUE.match(text, at):
            at = value.end()
            yield from _of_value(name, _unescaped(value["double"]) or value["single"] or value["bare"])


def _unescaped(said: str | None) -> str | None:
    if said is None or "\\" not in said:
        return said
    try:
        return str(json.loads(f'"{said}"'))
    except ValueError:
        return said


def _of_value(name: str, value: str) -> Iterator[str]:
    if PEM.search(value):
        yield from _of_pem(value)
        return
    value = SCHEME.sub("", value.strip(), count=1)
    elsewhere = ELSEWHERE.search(name) and VARIABLE.fullmatch(value)
    place = PLACE.match(value) and not RANDOM.fullmatch(value)
    if LEAST <= len(value) <= LONGEST and not (
        elsewhere or place or REFERENCE.fullmatch(value) or DATE.fullmatch(value)
    ):
        yield value


def _of_pem(text: str) -> Iterator[str]:
    """Each line of a private key: whoever prints it may print it in lines."""
    at = 0
    while begins := PEM.search(text, at):
        at = text.find("-----END", begins.end(), begins.end() + PEM_LONGEST)
        at = at if at >= 0 else min(len(text), begins.end() + PEM_LONGEST)
        yield from PEM_LINE.findall(NEWLINE.sub("\n", text[begins.end() : at]))
