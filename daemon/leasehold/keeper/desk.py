"""What each request does. Whatever is wrong with one is answered with a code and plain words; the keeper goes on."""

import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from leasehold.keeper import protocol
from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.feed import KEY_LENGTH
from leasehold.keeper.house import House
from leasehold.keeper.limits import check
from leasehold.keeper.log import log
from leasehold.keeper.look import look
from leasehold.keeper.protocol import PROTOCOL, RefusedError, Request
from leasehold.keeper.reach import containment
from leasehold.keeper.rounds import Rounds
from leasehold.keeper.run import Run

Answer = dict[str, object]
ROOMS = ("sessions", "workspaces")
"""Where directories may be removed by name; those of runs are forgotten."""
HOLD_PASSES = 20
"""Looks at a tree that is to stand still and forks on meanwhile; what is missed is held at the next look."""


class Client(Protocol):
    """Who asks."""

    epoch: int | None


C = TypeVar("C", bound=Client)


class Desk:
    """Answers requests. `life` is random per keeper process; each accepted hello opens the next epoch."""

    def __init__(self, house: House, version: str) -> None:
        self.house = house
        self.rounds = Rounds(house)
        self.life = os.urandom(8).hex()
        self.epoch = 0
        self._holder: object = (
            None  # who opened the epoch: a daemon whose late hello opened it does not supersede itself
        )
        self._version = version
        self._operations: dict[str, Callable[[Request], Answer]] = {
            "spawn": self._spawn, "extend": self._extend, "stop": self._stop, "close_stdin": self._close_stdin,
            "list": self._list, "forget": self._forget, "hold": self._hold, "release": self._release,
            "look": self._look, "punch": self._punch, "feed": self._feed, "inputs": self._inputs,
            "remove": self._remove,
        }  # fmt: skip

    def answer(self, line: bytes, client: C, supersede: Callable[[C], None]) -> Answer:
        """One line in, one answer out."""
        number: object = None
        try:
            request = protocol.decode(line)
            number = request.get("id")
            operation = protocol.text(request, "op")
            if operation == "about":
                said = self._about()
            elif operation == "hello":
                said = self._hello(request, client, supersede)
            elif client.epoch != self.epoch:
                raise RefusedError("no_hello", "say hello first")
            elif operation in self._operations:
                said = self._operations[operation](request)
            else:
                raise RefusedError("bad_request", f"there is no operation {operation!r}")
        except RefusedError as error:
            return {"id": number, "ok": False, "error": error.code, "message": str(error)}
        except OSError as error:  # the blast-radius border: what one request breaks must not end every agent
            log("request_failed", "error", error=str(error))
            return {"id": number, "ok": False, "error": "failed", "message": str(error)}
        return {"id": number, "ok": True, **said}

    def _about(self) -> Answer:
        return {
            "keeper_id": self.house.keeper_id,
            "life": self.life,
            "boot_id": boot_id(),
            "boottime": boottime(),
            "version": self._version,
            "protocol": PROTOCOL,
            "operations": sorted(self._operations),
            "pid": os.getpid(),
            "runs": len(self.house.live),
            "containment": containment(self.house.groups),
        }

    def _hello(self, request: Request, client: C, supersede: Callable[[C], None]) -> Answer:
        if request.get("protocol") != PROTOCOL:
            raise RefusedError("protocol", f"this keeper speaks protocol {PROTOCOL}, not {request.get('protocol')!r}")
        epoch = request.get("epoch")
        older = request.get("life") == self.life and isinstance(epoch, int) and epoch < self.epoch
        if older and request.get("daemon") != self._holder:
            raise RefusedError("superseded", "another daemon has said hello since")  # rule 6
        supersede(client)
        self._holder = request.get("daemon")
        self.epoch += 1
        client.epoch = self.epoch
        log("hello", epoch=self.epoch, instance=request.get("instance"))
        return {**self._about(), "epoch": self.epoch}

    def _spawn(self, request: Request) -> Answer:
        run_id = protocol.integer(request, "run_id", 1)
        env = protocol.mapping(request, "env")
        argv = protocol.texts(request, "argv")
        if not all(
            isinstance(value, str) and "\0" not in name + value and "=" not in name for name, value in env.items()
        ):
            raise RefusedError("bad_request", "'env' maps names to strings, without NUL")
        if any("\0" in word for word in argv):
            raise RefusedError("bad_request", "'argv' holds a NUL")
        deadline, grace = protocol.seconds(request, "deadline"), protocol.seconds(request, "grace")
        run = Run(run_id, protocol.text(request, "token"), deadline, grace, self.house.directory(run_id))
        cwd, limits = protocol.optional_text(request, "cwd"), protocol.mapping(request, "limits")
        check(limits)
        told = self.house.spawn(
            run, argv, {name: str(value) for name, value in env.items()}, cwd, request.get("stdin"), limits
        )
        return told.describe()

    def _extend(self, request: Request) -> Answer:
        deadline = protocol.seconds(request, "deadline")
        wanted = protocol.integers(request, "runs")
        for run_id in wanted:
            if run := self.house.runs.get(run_id):
                run.extend(deadline)
        return {"unknown": [run_id for run_id in wanted if run_id not in self.house.runs]}

    def _stop(self, request: Request) -> Answer:
        run_id, why = protocol.integer(request, "run_id", 1), protocol.text(request, "why")
        signals = protocol.ladder(request)
        run = self.house.runs.get(run_id) or self.house.tombstone(run_id, why)
        if run.exit is None:
            run.stop(signals, why)
        return {"state": run.describe()["state"]}

    def _close_stdin(self, request: Request) -> Answer:
        if run := self.house.runs.get(protocol.integer(request, "run_id", 1)):
            run.close_stdin()
        return {}

    def _feed(self, request: Request) -> Answer:
        run, key = self._known(request), _key(protocol.text(request, "key"))
        return {"taken": run.tell(key, protocol.raw_text(request, "text"))}

    def _inputs(self, request: Request) -> Answer:
        run, asked = self._known(request), protocol.texts(request, "keys")
        return {"taken": [key for key in asked if run.feed is not None and key in run.feed.keys]}

    def _list(self, _request: Request) -> Answer:
        return {"runs": [run.describe() for run in self.house.runs.values()]}

    def _forget(self, request: Request) -> Answer:
        run_id = protocol.integer(request, "run_id", 1)
        if (run := self.house.runs.get(run_id)) and run.exit is None:
            raise RefusedError("running", f"run {run_id} has not ended")
        self.house.forget(run_id)
        return {}

    def _remove(self, request: Request) -> Answer:
        parts = protocol.text(request, "path").split("/")
        if len(parts) < 2 or parts[0] not in ROOMS or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise RefusedError("bad_request", "'path' is no directory below sessions or workspaces")
        self.house.remove(parts)
        return {}

    def _hold(self, request: Request) -> Answer:
        run = self._known(request)
        for _ in range(HOLD_PASSES):  # while some of them ran, they may have made more
            if not run.hold(self.rounds.members().get(run.run_id, [])):
                break
        return {"held": run.held}

    def _release(self, request: Request) -> Answer:
        self._known(request).release()
        return {"held": False}

    def _look(self, request: Request) -> Answer:
        run = self._known(request)
        cpu_seconds, reaped = run.group.cpu_seconds() if run.group is not None else None, run.reaped
        return look(self.rounds.members().get(run.run_id, []), cpu_seconds, reaped)

    def _punch(self, request: Request) -> Answer:
        run, name = self._known(request), protocol.text(request, "stream")
        start, end = protocol.integer(request, "start"), protocol.integer(request, "end")
        if name not in ("stdout", "stderr") or start > end:
            raise RefusedError("bad_request", "'stream' is stdout or stderr, 'start' is not after 'end'")
        return {"punched": run.directory.punch(name, start, end)}

    def _known(self, request: Request) -> Run:
        run_id = protocol.integer(request, "run_id", 1)
        if run := self.house.runs.get(run_id):
            return run
        raise RefusedError("unknown_run", f"there is no run {run_id} here")


def _key(key: str) -> str:
    if not 1 <= len(key) <= KEY_LENGTH:
        raise RefusedError("bad_request", f"'key' must have 1 to {KEY_LENGTH} characters")
    return key
