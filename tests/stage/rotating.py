"""An agent whose token may be used once: each use makes a new one. Usage: rotating.py SERVER USES [SAYS WAITS_FOR | --half SAYS]."""

import fcntl
import json
import os
import sys
import time
from pathlib import Path


def use(server, credential):
    with server.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        valid = json.load(file)
        if json.loads(credential.read_text())["token"] != valid:
            sys.exit("logged out")
        file.seek(0)
        json.dump(valid + 1, file)
    credential.write_text(json.dumps({"token": valid + 1}))


def until(path):
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    sys.exit(f"{path} never came")


def main(server, uses, *then):
    credential = Path(os.environ["CODEX_HOME"], "auth.json")
    for _ in range(int(uses)):
        use(server, credential)
    match then:
        case ("--half", says):
            credential.write_text('{"token":')
            Path(says).touch()
            time.sleep(60)
        case (says, waits_for):
            Path(says).touch()
            until(Path(waits_for))


main(Path(sys.argv[1]), *sys.argv[2:])
