"""What a message begins with that is too long to be read whole: as much of its JSON as is there. Pure; if it fails, one run fails."""

import json
import re
from typing import Any

TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\],]', re.DOTALL)
"""What may end a value; a string that does not end ends with the text."""
DEEPEST = 64
"""What lies deeper is left out."""


def begun(head: bytes) -> dict[str, Any] | None:
    """The object that begins so, with all its members that are whole, and of the last one what is there. None: it is none."""
    text = head.decode("utf-8", "replace")
    ends: list[str] = []
    whole, rest = 0, ""
    for token in TOKEN.finditer(text):
        match token[0][0]:
            case "{" | "[" as opens:
                if len(ends) == DEEPEST:
                    break
                ends.append("}" if opens == "{" else "]")
                whole = token.end()
            case "}" | "]":
                if not ends:
                    return None
                ends.pop()
                whole = token.end()
            case ",":
                whole = token.start()
            case _:
                continue
        rest = "".join(reversed(ends))
    try:
        said = json.loads(text[:whole] + rest)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def plain(said: object) -> dict[str, Any]:
    """Of an object the members that have no parts: those are whole, or not there."""
    members = said if isinstance(said, dict) else {}
    return {name: each for name, each in members.items() if not isinstance(each, dict | list)}
