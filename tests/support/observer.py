"""Watches from outside: who lives, of which run of which job, several times in each hundredth of a second if it can.

A process of its own that knows /proc and a mark in the agents' environment, nothing of the system that it watches:

    python observer.py MARK        prints `watching`, and at the end of its input one JSON object
"""

import json
import os
import select
import subprocess
import sys
import time

PAUSE = 0.01
YOUNG = 2.0
"""Seconds for which a process may still exec, and so get another environment."""


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def born(pid):
    """When it started; None: it is dead, or a zombie."""
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[19] if fields and fields[0] not in b"ZX" else None


class Observer:
    def __init__(self, mark):
        self.mark = mark.encode()
        self.known = {}  # (pid, start) -> [(job, tree) or None, first seen]
        self.foreign = set()  # pids that will not get the mark any more, as long as they are there at each look
        self.samples = 0
        self.most = {}  # job -> most trees at once
        self.trees = {}  # job -> trees ever
        self.doubled = []

    def of(self, pid):
        """(job, tree) of a process that carries the mark."""
        environment = read(f"/proc/{pid}/environ").split(b"\0")
        if self.mark not in environment:
            return None
        facts = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
        tree = facts.get(b"LEASEHOLD_KEEPER_ID", b"")[:6] + b"/" + facts.get(b"LEASEHOLD_RUN_ID", b"")
        return facts.get(b"LEASEHOLD_JOB_ID", b"?").decode(), tree.decode()

    def look(self):
        """job -> tree -> its living processes."""
        now, seen, living = time.monotonic(), {}, {}
        there = {name for name in os.listdir("/proc") if name.isdigit()}
        self.foreign &= there
        for name in there - self.foreign:
            if (start := born(name)) is None:
                continue
            known = self.known.get((name, start))
            if known is None or (known[0] is None and now - known[1] < YOUNG):
                known = [self.of(name), known[1] if known else now]
            seen[name, start] = known
            if known[0] is None and now - known[1] >= YOUNG:
                self.foreign.add(name)
            if known[0]:
                job, tree = known[0]
                living.setdefault(job, {}).setdefault(tree, set()).add((name, start))
        self.known = seen
        return living

    def sample(self):
        living = self.look()
        self.samples += 1
        for job, trees in living.items():
            self.trees.setdefault(job, set()).update(trees)
            # what was seen first may have died before the last was seen: who is alive now lived beside all of them
            together = [tree for tree, some in trees.items() if any(born(pid) == start for pid, start in some)]
            if len(together) > 1:
                self.doubled.append([job, sorted(together)])
            self.most[job] = max(self.most.get(job, 0), len(together))

    def report(self):
        strays = [
            [pid, *found[0], read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")]
            for (pid, start), found in self.known.items()
            if found[0] and born(pid) == start
        ]
        trees = {job: sorted(trees) for job, trees in self.trees.items()}
        return {"samples": self.samples, "most": self.most, "trees": trees, "doubled": self.doubled, "strays": strays}


def watch(mark):
    observer = Observer(mark)
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        observer.sample()
    observer.sample()
    print(json.dumps(observer.report()), flush=True)


class Watch:
    """The test's end of an observer."""

    def __init__(self, mark):
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "watching\n"

    def report(self):
        """What it saw; it watches no more."""
        said, _ = self.process.communicate(timeout=20)
        return json.loads(said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


if __name__ == "__main__":
    watch(sys.argv[1])
