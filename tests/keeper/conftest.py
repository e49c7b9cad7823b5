"""Keepers on every rung of containment that this host gives."""

import subprocess
import sys

import pytest
from support.keeper import KeeperProcess


def has_cgroup(directory):
    """Does this host let us make cgroups? The keeper itself knows: it refuses when told to use what is not there."""
    code = (
        "from leasehold.keeper.containment import find_groups as f\n"
        "g = f('0' * 12)\n"
        "g and g.close()\n"
        "raise SystemExit(0 if g else 1)"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=directory, check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def rungs(tmp_path_factory):
    return ("cgroup", "subreaper") if has_cgroup(tmp_path_factory.mktemp("try")) else ("subreaper",)


@pytest.fixture(params=["cgroup", "subreaper"])
def keeper(request, tmp_path, rungs):
    if request.param not in rungs:
        pytest.skip("this host lets us make no cgroup v2 group")
    process = KeeperProcess(tmp_path / "state", request.param)
    process.start()
    yield process
    process.close()


@pytest.fixture
def plain_keeper(tmp_path):
    """A keeper not yet started, on the rung that every host has."""
    process = KeeperProcess(tmp_path / "state", "subreaper")
    yield process
    process.close()
