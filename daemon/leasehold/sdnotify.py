"""Tell systemd how we are, if it asked to be told. If it fails, systemd knows less; nothing else happens."""

import os
import socket
from contextlib import suppress

PATIENCE = 0.2
"""Seconds that a systemd which does not read may hold us up; the loops that renew leases wait for this call."""


def ready(sentence: str) -> None:
    """Start-up is complete."""
    _send(f"READY=1\nSTATUS={sentence}")


def status(sentence: str) -> None:
    """What we are doing, for `systemctl status`."""
    _send(f"STATUS={sentence}")


def stopping(sentence: str) -> None:
    """We are leaving."""
    _send(f"STOPPING=1\nSTATUS={sentence}")


def watchdog() -> None:
    """The loops still come round."""
    _send("WATCHDOG=1")


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.settimeout(PATIENCE)
        notify.connect(address)
        notify.sendall(message.encode())
