"""An agent that tries to leave something behind: `escaper.py KIND TAG`. The tag in argv is how a test finds what is left.

The first process leads the run: it starts the stray, waits for a file `end` in the working directory, and exits 0. The
stray makes a file `ready` when it is where it wanted to be. Standard library only, run with `-I -S`: it starts fast.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

KIND, TAG = sys.argv[1:3]
ME = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
PR_SET_CHILD_SUBREAPER = 36


def ready():
    os.close(os.open("ready", os.O_WRONLY | os.O_CREAT))


def stay():
    """The stray as it lives on: deaf to all that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ready()
    while True:
        time.sleep(60)


def become(kind, env):
    os.execve(ME[0], [*ME, kind, TAG], env)


def fork(child):
    """Start `child` in a process of its own."""
    if (pid := os.fork()) == 0:
        child()
        os._exit(0)
    return pid


def daemon(then):
    """The classical way: a child that leaves the session and dies after making its own child."""

    def middle():
        os.setsid()
        fork(then)

    os.waitpid(fork(middle), 0)


def setpgid():
    os.setpgid(0, 0)
    stay()


def setsid():
    os.setsid()
    stay()


def stopped():
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)
    stay()


def raise_number():
    """Lose the last thing that tells whose we are."""
    with open("/proc/self/oom_score_adj", "r+") as file:
        number = int(file.read())
        file.seek(0)
        file.write(str(min(1000, number + 500)))
    become("stay", {})


def nameless_elsewhere():
    move_aside()
    raise_number()


def other_cgroup():
    move_aside()
    become("stay", {})


def move_aside():
    """Root, or the keeper's own user, may move itself: into a group of its own beside the run's."""
    mount = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    with open("/proc/self/cgroup") as file:
        own = next(line.strip()[3:] for line in file if line.startswith("0::"))
    aside = f"{mount}{os.path.dirname(own)}/aside-{TAG}"
    os.makedirs(aside, exist_ok=True)
    with open(f"{aside}/cgroup.procs", "w") as file:
        file.write("0")


def frozen():
    """Freeze the whole run, the leader too."""
    mount = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    with open("/proc/self/cgroup") as file:
        own = next(line.strip()[3:] for line in file if line.startswith("0::"))
    ready()
    with open(f"{mount}{own}/cgroup.freeze", "w") as file:
        file.write("1")
    stay()


def namespaces():
    """A user and a pid namespace of its own, and a process in there whose parent has gone."""
    inner = 'setsid "$@" & sleep 60'
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    subprocess.Popen([*unshare, "sh", "-c", inner, TAG, *ME, "stay", TAG], start_new_session=True)


def chain():
    """A new session, a new process, a new parent, hundreds of times a second; for a minute, should nobody end it."""
    generation, end = 0, time.monotonic() + 60
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        os.setsid()
        generation += 1
        if generation == 30:
            ready()
        time.sleep(0.004)


def main_thread_gone():
    """A process that looks dead: its main thread has left, another one lives on."""
    threading.Thread(target=threaded).start()
    time.sleep(0.05)
    ctypes.CDLL(None).pthread_exit(None)


def threaded():
    ready()
    ctypes.CDLL(None).sleep(600)


def own_subreaper():
    """Takes the orphans of its own children before the keeper can."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    daemon(stay)
    while True:
        time.sleep(60)


def setuid():
    """A program that becomes another user, as sudo does; the keeper above may not signal that user's processes."""
    os.mkfifo("nothing")
    os.dup2(os.open("nothing", os.O_RDWR), 0)  # something to read from for ever
    ready()
    words = ["--reuid=54321", "--clear-groups", "--", "sh", "-c", "trap '' TERM HUP INT; read word", TAG]
    os.execvp("setpriv", ["setpriv", *words])


STRAYS = {
    "plain": lambda: fork(stay),
    "deaf": lambda: fork(stay),
    "setpgid": lambda: fork(setpgid),
    "setsid": lambda: fork(setsid),
    "stopped": lambda: fork(stopped),
    "daemon": lambda: daemon(stay),
    "clean daemon": lambda: daemon(lambda: become("stay", {})),
    "nameless daemon": lambda: daemon(raise_number),
    "namespaces": namespaces,
    "chain": lambda: daemon(chain),
    "clean chain": lambda: daemon(lambda: become("as chain", {})),
    "ten chains": lambda: [daemon(chain) for _ in range(10)],
    "main thread gone": lambda: daemon(main_thread_gone),
    "own subreaper": lambda: fork(own_subreaper),
    "other cgroup": lambda: daemon(other_cgroup),
    "nameless in another cgroup": lambda: daemon(nameless_elsewhere),
    "frozen": lambda: fork(frozen),
    "setuid": lambda: daemon(setuid),
}


def lead():
    STRAYS[KIND]()
    while not os.path.exists("end"):
        time.sleep(0.01)


if KIND == "stay":
    stay()
elif KIND == "as chain":
    chain()
else:
    lead()
