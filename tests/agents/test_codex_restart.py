"""A daemon that dies in the middle of a conversation with Codex: whoever goes on hears the same, and nothing is said twice."""

import json

import pytest
from agents.replay import ALL, fresh, lines, told
from agents.runs import run_of
from leasehold.agents.registry import adapter_for

PATHS = [path for path in ALL if path.parent.name == "codex"]
each_conversation = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


class Pipe:
    """The keeper's part: of each key the first line goes in."""

    def __init__(self):
        self.lines = {}

    def feed(self, adapter):
        for each in adapter.owed:
            self.lines.setdefault(each.key, each.raw)
            adapter.taken(each.key)


def live(adapter, about, said, pipe, begin=0):
    """Go on from there. Answers the events of each line."""
    events = []
    for number, line in enumerate(said, begin + 1):
        events.append(list(adapter.receive(line) or ()))
        pipe.feed(adapter)
        for control in told(about, number):
            adapter.send(control)
            pipe.feed(adapter)
    return events


def controls(about, until):
    return [control for number in range(until + 1) for control in told(about, number)]


def begun(path, about, pipe):
    adapter = fresh(path, about)
    pipe.feed(adapter)
    return adapter


@each_conversation
def test_whoever_replays_it_from_its_start_goes_on_as_if_nothing_had_been(path):
    about, said = lines(path)
    alone = Pipe()
    whole = begun(path, about, alone)
    events = live(whole, about, said, alone)
    for cut in range(len(said) + 1):
        pipe = Pipe()
        live(begun(path, about, pipe), about, said[:cut], pipe)
        again = fresh(path, about)  # of a daemon that knows nothing, and of a keeper that knows what it took
        heard = [list(again.receive(line) or ()) for line in said[:cut]]
        pipe.feed(again)
        for control in controls(about, cut):
            again.send(control)
        pipe.feed(again)
        assert heard + live(again, about, said[cut:], pipe, cut) == events, cut
        assert pipe.lines == alone.lines, cut
        assert (again.over, again.waiting, again.done) == (whole.over, whole.waiting, whole.done), cut
        assert again.verdict(0) == whole.verdict(0), cut


@each_conversation
def test_whoever_thaws_it_at_any_line_goes_on_as_if_nothing_had_been(path):
    about, said = lines(path)
    alone = Pipe()
    whole = begun(path, about, alone)
    events, states = [], [json.dumps(whole.freeze())]
    for number, line in enumerate(said):
        events += live(whole, about, [line], alone, number)
        states.append(json.dumps(whole.freeze()))
    for cut, state in enumerate(states):
        for behind in {cut, min(cut + 3, len(said))}:
            pipe = Pipe()
            live(begun(path, about, pipe), about, said[:behind], pipe)
            again = adapter_for(run_of("codex", prompt=about["prompt"], session=about["resumed"]))
            again.thaw(json.loads(state))
            heard = [list(again.receive(line) or ()) for line in said[cut:behind]]
            pipe.feed(again)
            for control in controls(about, behind):
                again.send(control)
            pipe.feed(again)
            assert heard + live(again, about, said[behind:], pipe, behind) == events[cut:], (cut, behind)
            assert pipe.lines == alone.lines, (cut, behind)
            assert again.verdict(0) == whole.verdict(0)
