"""An agent may ask again under an id that it has asked under before: that is another question, and its answer is for that one alone."""

import json

import pytest
from agents.runs import run_of
from leasehold.agents.conversation import REQUESTS_LIMIT
from leasehold.agents.registry import adapter_for
from leasehold.models import Control

MAY = "item/commandExecution/requestApproval"
OPTIONS = [
    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


class Codex:
    """What it says until it is at work, and when it asks; what its answer says."""

    begins = (
        {"id": "init", "result": {}},
        {"id": "open", "result": {"thread": {"id": "t"}}},
        {"id": "prompt/start", "result": {"turn": {"id": "one"}}},
    )

    def asks(self, ident, command):
        return {"id": ident, "method": MAY, "params": {"threadId": "t", "command": command}}

    def odd(self, ident):
        return {"id": ident, "method": "fs/read", "params": {}}

    def resolved(self, ident):
        return {"method": "serverRequest/resolved", "params": {"threadId": "t", "requestId": ident}}

    def allowed(self, said):
        return (said["id"], said["result"]["decision"] == "accept")


class Acp:
    begins = (
        {"id": "init", "result": {"protocolVersion": 1, "agentInfo": {"name": "x", "version": "1"}}},
        {"id": "open", "result": {"sessionId": "s"}},
    )

    def asks(self, ident, command):
        call = {"toolCallId": "c", "title": command, "rawInput": {"command": command}}
        params = {"sessionId": "s", "toolCall": call, "options": OPTIONS}
        return {"jsonrpc": "2.0", "id": ident, "method": "session/request_permission", "params": params}

    def odd(self, ident):
        return {"jsonrpc": "2.0", "id": ident, "method": "fs/read_text_file", "params": {}}

    def resolved(self, ident):
        return {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": ident}}

    def allowed(self, said):
        return (said["id"], said["result"]["outcome"].get("optionId") == "yes")


class Claude:
    begins = (
        {"type": "control_response", "response": {"subtype": "success", "request_id": "init", "response": {}}},
        {"type": "system", "subtype": "init", "session_id": "s"},
    )

    def asks(self, ident, command):
        request = {
            "subtype": "can_use_tool",
            "tool_name": "Bash",
            "input": {"command": command},
            "tool_use_id": command,
        }
        return {"type": "control_request", "request_id": str(ident), "request": request}

    def odd(self, ident):
        return {"type": "control_request", "request_id": str(ident), "request": {"subtype": "hook_callback"}}

    def resolved(self, ident):
        return {"type": "control_cancel_request", "request_id": str(ident)}

    def allowed(self, said):
        response = said["response"]
        return (int(response["request_id"]), response["response"]["behavior"] == "allow")


DIALECTS = {"codex": Codex(), "acp": Acp(), "claude": Claude()}


class Peer:
    """One life of a fold, and a keeper that takes each key once."""

    def __init__(self, name, kept=None):
        self.dialect, self.fold = DIALECTS[name], adapter_for(run_of(name, workspace="/w"))
        self.kept = {} if kept is None else kept
        self.take()
        for line in self.dialect.begins if kept is None else ():
            self.hear(line)

    def take(self):
        for owed in self.fold.owed:
            self.kept.setdefault(owed.key, json.loads(owed.raw))
            self.fold.taken(owed.key)

    def hear(self, line):
        events = self.fold.receive(json.dumps(line).encode()) or ()
        self.take()
        return [(event.kind, event.data.get("id")) for event in events if event.kind in ("permission", "withdrawn")]

    def asks(self, ident, command="ls"):
        return self.hear(self.dialect.asks(ident, command))

    def answers(self, number, name, option):
        self.fold.send(Control("answer", number, data={"request": name, "decision": option, "option": None}))
        self.take()

    def was_told(self, number):
        return self.dialect.allowed(self.kept[f"answer:{number}"])


@pytest.fixture(params=DIALECTS)
def name(request):
    return request.param


def test_the_second_is_a_question_of_its_own_and_each_has_its_own_answer(name):
    peer = Peer(name)
    [(_, first)] = peer.asks(5)
    assert first == "5"
    peer.answers(1, first, "deny")
    second = peer.asks(5, "rm -r /")[-1][1]
    assert second != first and peer.fold.waiting
    peer.answers(1, first, "deny")
    assert peer.fold.waiting, "that was the answer to the first"
    peer.answers(2, second, "allow")
    assert not peer.fold.waiting
    assert (peer.was_told(1), peer.was_told(2)) == ((5, False), (5, True))


def test_who_reads_it_all_again_asks_the_same_under_the_same_names(name):
    peer, lines = Peer(name), []
    lines = [*peer.dialect.begins, *(peer.dialect.asks(5, command) for command in ("ls", "cat", "rm"))]
    names = []
    for number, line in enumerate(lines[len(peer.dialect.begins) :], 1):
        names.append(peer.hear(line)[-1][1])
        if number < 3:
            peer.answers(number, names[-1], "allow")
    assert len(set(names)) == 3
    again = Peer(name, peer.kept)
    asked = [ident for line in lines for kind, ident in again.hear(line) if kind == "permission"]
    assert asked == names
    for number, ident in enumerate(names[:2], 1):
        again.answers(number, ident, "allow")
    assert again.fold.waiting
    again.answers(3, names[2], "allow")
    assert again.was_told(3) == (5, True) and not again.fold.waiting


def test_one_that_is_frozen_in_between_goes_on_with_the_same_names(name):
    peer = Peer(name)
    peer.answers(1, peer.asks(5)[-1][1], "allow")
    again = Peer(name, peer.kept)
    again.fold.thaw(json.loads(json.dumps(peer.fold.freeze())))
    assert again.asks(5, "rm") == peer.asks(5, "rm")


def test_one_that_asks_something_else_under_an_open_id_waits_no_more_for_the_answer_to_the_first(name):
    peer = Peer(name)
    [(_, first)] = peer.asks(5)
    withdrawn, (kind, second) = peer.asks(5, "rm -r /")
    assert (withdrawn, kind) == (("withdrawn", first), "permission")
    peer.answers(1, first, "allow")
    assert "answer:1" not in peer.kept and peer.fold.waiting, "nobody has allowed what it asks now"
    peer.answers(2, second, "deny")
    assert peer.was_told(2) == (5, False)


def test_an_answer_that_it_has_not_got_yet_is_not_given_to_what_it_asks_next(name):
    peer = Peer(name)
    [(_, first)] = peer.asks(5)
    peer.fold.send(Control("answer", 1, data={"request": first, "decision": "allow"}))
    peer.asks(5, "rm -r /")
    assert "answer:1" not in peer.kept and peer.fold.waiting


def test_what_it_takes_back_is_the_last_that_it_asked_under_that_id(name):
    peer = Peer(name)
    peer.answers(1, peer.asks(5)[-1][1], "allow")
    second = peer.asks(5, "rm")[-1][1]
    assert ("withdrawn", second) in peer.hear(peer.dialect.resolved(5))
    assert not peer.fold.waiting


def test_what_is_refused_is_refused_every_time(name):
    peer = Peer(name)
    for _ in range(3):
        peer.hear(peer.dialect.odd(5))
    assert len([key for key in peer.kept if key.startswith("reply:")]) == 3


def test_what_is_known_of_ids_has_a_bound_and_their_names_stay_apart(name):
    peer = Peer(name)
    asked = [peer.asks(number)[-1][1] for number in (*range(REQUESTS_LIMIT + 5), REQUESTS_LIMIT + 4, "5#2", "x" * 1000)]
    assert len(set(asked)) == len(asked)
    assert len(peer.fold.known.requests) == REQUESTS_LIMIT
