"""For PYTHONPATH of a daemon under test: SIGUSR1 sends its event loop into a busy loop, until SIGUSR2.

The handler runs in the main thread, between two bytecodes of whatever it was doing: nothing of the daemon goes on.
"""

import signal

hanging = False


def hang(*_):
    global hanging
    hanging = True
    while hanging:
        pass


def recover(*_):
    global hanging
    hanging = False


signal.signal(signal.SIGUSR1, hang)
signal.signal(signal.SIGUSR2, recover)
