"""What this host's containment cannot do, in plain words. If it fails, the keeper does not start."""


def cannot_catch(rung: str) -> list[str]:
    """What may outlive its run here."""
    found = ["a process that an agent has another service start (docker, cron, at, systemd): it is that service's"]
    if rung == "subreaper":
        found.append("a daemon with a clean environment that forks away between two looks while other runs live")
    return found
