"""What systemd hears from us, on a real datagram socket."""

import os
import secrets
import socket
import time

import pytest
from leasehold import sdnotify
from leasehold.runs.pulse import Pulse


@pytest.fixture(params=["path", "abstract"])
def heard(request, bare, tmp_path):
    """Everything that was said, in order."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@leasehold-{secrets.token_hex(6)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.setblocking(False)
        bare.setenv("NOTIFY_SOCKET", address)

        def said():
            found = []
            while True:
                try:
                    found.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield said


def test_systemd_hears_what_we_do(heard):
    sdnotify.ready("2 running, 6 free")
    sdnotify.status("waiting for the database")
    sdnotify.watchdog()
    sdnotify.stopping("stopping (detach), 2 running")
    assert heard() == [
        "READY=1\nSTATUS=2 running, 6 free", "STATUS=waiting for the database", "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping (detach), 2 running",
    ]  # fmt: skip


@pytest.mark.rule("X29")
def test_the_watchdog_is_fed_only_when_every_loop_comes_round(heard):
    pulse = Pulse("claim", "lease")
    for loop in ("claim", "claim", "claim"):
        pulse.beat(loop)
    assert heard() == []
    pulse.beat("lease")
    assert heard() == ["WATCHDOG=1"]
    pulse.beat("lease")
    assert heard() == []
    pulse.beat("claim")
    assert heard() == ["WATCHDOG=1"]


def test_without_systemd_nothing_is_said(bare):
    sdnotify.ready("fine")


def test_a_systemd_that_does_not_listen_is_no_reason_to_fail(bare, tmp_path):
    bare.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    sdnotify.ready("fine")


def test_saying_something_leaves_no_descriptor_open(heard):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        sdnotify.watchdog()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_systemd_that_hangs_does_not_hang_us(heard):
    """Its queue is full (net.unix.max_dgram_qlen); the loop that renews the lease must go on."""
    began = time.monotonic()
    for _ in range(14):
        sdnotify.watchdog()
    assert len(heard()) < 14, "this machine's queue is longer than the test thinks"
    assert time.monotonic() - began < 5
