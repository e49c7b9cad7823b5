"""A scripted agent that is spoken to: JSON lines both ways. It writes down what it hears, so that a test can count.

Its prompt is its script, one word after the other:
  say:WORDS     stream so many words
  burst:WORDS   stream so many words at once, long ones
  wait:SECONDS  be at work
  poll:ID       ask something that needs no human, and go on when it is answered
  ask:ID        ask for a permission, and go on when it is answered
  until:TEXT    go on when somebody has steered it with that text
  deaf:SECONDS  do not read for so long
  fail          leave with exit code 3
When the script is over it says so; it may be given another one, and leaves when its stdin is closed.
"""

import json
import os
import select
import sys
import time

STDIN = 0


class Agent:
    def __init__(self, log):
        self.log = log
        self.rest = b""
        self.heard = []
        self.ended = False
        self.idle = False

    def say(self, **words):
        os.write(1, json.dumps(words).encode() + b"\n")

    def listen(self, seconds):
        """Hear what comes within so many seconds, or until something has come."""
        if not self.ended and select.select([STDIN], [], [], seconds)[0]:
            raw = os.read(STDIN, 1 << 16)
            self.ended = not raw
            *lines, self.rest = (self.rest + raw).split(b"\n")
            for line in lines:
                self.hear(json.loads(line))

    def hear(self, line):
        with open(self.log, "a") as log:
            log.write(json.dumps(line) + "\n")
        self.heard.append(line)
        if "steer" in line:
            self.say(steered=line["key"])

    def until(self, fact):
        while not (found := next((line for line in self.heard if fact(line)), None)):
            if self.ended:
                sys.exit(0 if self.idle else 9)
            self.listen(0.5)
        return found

    def act(self, word):
        what, _, more = word.partition(":")
        if what == "say":
            for number in range(int(more)):
                self.say(word=number)
                self.listen(0.01)
        elif what == "burst":
            line = json.dumps({"noise": "x" * 4000}).encode() + b"\n"
            for _ in range(int(more)):
                os.write(1, line)
        elif what == "wait":
            until = time.monotonic() + float(more)
            while (left := until - time.monotonic()) > 0 and not self.ended:
                self.listen(left)
        elif what == "deaf":
            time.sleep(float(more))
        elif what in ("poll", "ask"):
            self.say(**{what: more})
            self.say(answered=more, **self.until(lambda line: line.get("to") == more)["with"])
        elif what == "until":
            self.until(lambda line: line.get("steer") == more)
        elif what == "fail":
            sys.exit(3)


def main():
    agent = Agent(sys.argv[1])
    agent.until(lambda line: line.get("begin"))
    agent.say(session="s-1")
    done = []
    while True:
        script = agent.until(lambda line: "prompt" in line and line["key"] not in done)
        agent.idle = False
        agent.say(began=script["key"])
        for word in script["prompt"].split():
            agent.act(word)
        done.append(script["key"])
        agent.idle = True
        agent.say(done=script["key"])


main()
