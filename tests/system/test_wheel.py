"""What people install: the wheel, alone, in an empty environment, against a database."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words, **settings):
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, text=True, timeout=120, **settings
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The directory of the programs of an environment that has the wheel, and of this one only what the wheel depends on."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", directory, ROOT)
    run(sys.executable, "-m", "venv", "--without-pip", directory / "empty")
    [wheel] = directory.glob("leasehold-*.whl")
    packages = Path(
        run(directory / "empty/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    (packages / "borrowed.pth").write_text(
        sysconfig.get_path("purelib")
    )  # a path only: what is editable there is not found
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        directory / "empty/bin/python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
    )
    return directory / "empty/bin"


async def test_the_wheel_migrates_a_database_and_its_files_are_its_own(installed, empty_dsn, tmp_path):
    where = run(installed / "python", "-c", "import leasehold; print(leasehold.__file__)", cwd=tmp_path)
    assert str(installed.parent) in where
    env = {"PATH": "/usr/bin:/bin", "LEASEHOLD_DATABASE_URL": empty_dsn, "HOME": str(tmp_path)}
    run(installed / "leasehold", "version", cwd=tmp_path, env=env)
    newest = max(path.stem[:4] for path in (ROOT / "sql/migrations").glob("*.sql"))
    said = run(installed / "leasehold", "migrate", cwd=tmp_path, env=env)
    assert newest in said, said
