"""What an ACP agent is told: prompts, cancellations, answers, each owed under its key. Pure; if it fails, one run fails."""

import json
from collections.abc import Sequence

from leasehold.agents import acp_asks as asks
from leasehold.agents.acp_updates import Updates
from leasehold.agents.conversation import Said
from leasehold.models import Control, Input


class Tells(Updates):
    """The half of the dialect that speaks. Ids of our requests are our keys, so that an answer says what it is an answer to."""

    @property
    def owed(self) -> Sequence[Input]:
        """In order."""
        return tuple(Input(key, text.encode()) for key, text in self.known.owed)

    def taken(self, key: str) -> None:
        """The keeper has it."""
        self.known.owed = [each for each in self.known.owed if each[0] != key]

    @property
    def ready(self) -> bool:
        """Its session is open, and in the mode it has to be in."""
        return self.known.ready

    @property
    def waiting(self) -> bool:
        """A permission or a form is open."""
        return any(ask["open"] for ask in self.known.asked.values())

    @property
    def over(self) -> bool:
        """Its last prompt is answered, no other waits, and it asks nothing: then it would work on one that we do not know of yet."""
        return self.known.ended is not None and self.known.turn is None and not self.known.later and not self.waiting

    @property
    def done(self) -> bool:
        """The same: it may go."""
        return self.over

    def send(self, control: Control) -> None:
        """What somebody wants of it."""
        if control.key in self.known.sent:
            return
        self.known.sent.append(control.key)
        match control.kind:
            case "answer":
                self._answer(control)
            case "interrupt":
                self._interrupt(control)
            case "steer" if self.known.can.get("steer") and self.known.turn is not None:
                params = {"prompt": _text(control.text), "_meta": {"steering": {"idleBehavior": "promptRequired"}}}
                self.ask(
                    control.key,
                    "_session/steering",
                    {"sessionId": self.known.session, **params},
                    f"{control.key}/steer",
                )
            case "prompt" | "steer":  # an agent that cannot be steered is told when its turn is over
                self._follow_up(control)

    def _follow_up(self, control: Control) -> None:
        known = self.known
        if control.key in known.answered:
            return
        if known.ended is not None and not known.ended["ok"] and known.ended.get("reason") != "cancelled":
            known.notices.append([control.id, "refused", "its conversation has come to an end"])
        elif known.turn is not None or not known.ready:
            known.later.append([control.key, control.text or ""])
        else:
            self.prompt(control.key, control.text or "")

    def _interrupt(self, control: Control) -> None:
        """Whatever it has asked is answered with a cancellation, as the protocol demands; some would wait for it for ever."""
        known = self.known
        known.interrupted = True
        if known.turn is None:
            return
        known.cancelling = True
        known.interrupts.append(control.id)
        self.tell(control.key, "session/cancel", {"sessionId": known.session})
        for name in [name for name, ask in known.asked.items() if ask["open"]]:
            self.release(name)

    def _answer(self, control: Control) -> None:
        ask = self.known.asked.get(str(control.data.get("request")))
        if ask is None:
            return
        ask["denied"] = asks.denies(ask, control.data)  # also of one that a replay knows to be over
        if not ask["open"]:
            return
        ask["open"], ask["by"] = False, control.key
        self.owe(control.key, {"id": ask["id"], "result": asks.reply(ask, control.data)})

    def release(self, name: str) -> None:
        """Nobody will answer what it has asked: it must not wait."""
        ask = self.known.asked[name]
        ask["open"], ask["released"] = False, True
        self.owe(f"reply:{name}", {"id": ask["id"], "result": asks.CANCELLED[ask["kind"]]})

    def prompt(self, key: str, text: str) -> None:
        """It is asked to do something."""
        self.known.turn, self.known.trouble = key, None
        self.ask(key, "session/prompt", {"sessionId": self.known.session, "prompt": _text(text)})

    def ask(self, key: str, method: str, params: Said, ident: str | None = None) -> None:
        """A request; its answer will have the id."""
        self.owe(key, {"id": ident or key, "method": method, "params": params})

    def tell(self, key: str, method: str, params: Said) -> None:
        """A notification."""
        self.owe(key, {"method": method, "params": params})

    def owe(self, key: str, message: Said) -> None:
        """Under a key that stands for it in every life of this daemon."""
        self.known.owed.append([key, json.dumps({"jsonrpc": "2.0", **message}) + "\n"])


def _text(text: str | None) -> list[Said]:
    return [{"type": "text", "text": text or ""}]
