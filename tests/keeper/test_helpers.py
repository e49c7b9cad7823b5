"""Children of the keeper's own that remove large directories: told from strays, also from one that has their old pid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from leasehold.keeper.rundir import RunDirectory

pytestmark = pytest.mark.race

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
SAME_NUMBER = """
import json, os, subprocess, sys, time
from pathlib import Path
from leasehold.keeper.house import House
from leasehold.keeper.rounds import Rounds

state = Path(sys.argv[1])
house = House(state, "0" * 32, None, lambda message: None)
rounds = Rounds(house)
(state / "runs/1/workspace").mkdir(parents=True)
(state / "runs/1/workspace/file").touch()
house.forget(1)
helper = next(iter(house.helpers))
os.waitpid(helper, 0)
time.sleep(0.05)  # start times are counted in ticks of the clock
for _ in range(200):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(helper - 1))
    stray = subprocess.Popen(["sleep", "300"])
    if stray.pid == helper:
        break
    stray.kill()
    stray.wait()
print(json.dumps({"same": stray.pid == helper, "orphans": [one.pid == stray.pid for one in rounds.orphans()]}))
stray.kill()
"""


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="only root can choose the next pid")
def test_a_stray_with_the_number_of_an_earlier_helper_is_a_stray(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", SAME_NUMBER, str(tmp_path)], check=True, capture_output=True, timeout=60
    ).stdout
    assert json.loads(said) == {"same": True, "orphans": [True]}


def test_a_link_in_the_place_of_a_run_directory_goes_and_what_it_leads_to_stays(tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "stdout").write_text("x")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "7").symlink_to(treasure)
    assert RunDirectory(tmp_path / "runs", 7).remove() is None
    assert not (tmp_path / "runs" / "7").is_symlink() and (treasure / "stdout").exists()
