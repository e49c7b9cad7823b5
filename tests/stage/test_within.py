"""Trees that an agent has left, whatever it has done to them."""

import os
import shutil
import subprocess
import sys

import pytest
from leasehold.processes.launch import own_program

SHUT = """
import os, sys
from pathlib import Path
from leasehold.stage.within import remove
tree, outside = Path(sys.argv[1]), Path(sys.argv[2])
(tree / "cache" / "module" / "inner").mkdir(parents=True)
(tree / "cache" / "module" / "file").write_text("x")
(tree / "shut" / "inner").mkdir(parents=True)
(tree / "cache" / "module" / "link").symlink_to(outside)
for name, mode in (("cache/module/inner", 0), ("cache/module", 0o555), ("cache", 0o555), ("shut", 0)):
    (tree / name).chmod(mode)
remove(tree)
"""


def test_what_an_agent_has_made_read_only_goes_and_nothing_outside_is_touched(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    plain = [] if os.geteuid() else ["setpriv", "--bounding-set=-all"]  # else root could do it anyway
    if plain and shutil.which(plain[0]) is None:
        pytest.skip("without setpriv root may do everything")
    home = own_program("x")[-1]
    env = {**os.environ, "PYTHONPATH": home}
    subprocess.run([*plain, sys.executable, "-c", SHUT, tmp_path / "tree", outside], env=env, check=True, timeout=20)
    assert not (tmp_path / "tree").exists()
    assert outside.stat().st_mode & 0o777 == 0o500
