"""`python -m leasehold.torture.jump MODULE ARGUMENT...`: run a program under a wall clock that jumps.

Setting the host's clock would hurt everybody on it. So the clock that the program reads is made to jump instead: an hour
ahead, an hour back, every third of a second. If it fails, one row of the table says so.
"""

import runpy
import sys
import time
from collections.abc import Callable

EVERY = 0.33
STEPS = (0, 3600, -3600, 1800)


def jumping(read: Callable[[], float], scale: int) -> Callable[[], float]:
    """The same clock, with steps that depend on the steady one."""
    kind = type(read())
    return lambda: kind(read() + scale * STEPS[int(time.monotonic() / EVERY) % len(STEPS)])


def main() -> None:
    """Become MODULE."""
    time.time = jumping(time.time, 1)
    time.time_ns = jumping(time.time_ns, 1_000_000_000)  # type: ignore[assignment]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
