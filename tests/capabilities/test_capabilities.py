"""Every numbered rule has a line in the ledger and a test that shows it, or a reason; and the table says the same."""

import ast
import os
import subprocess
import sys

import pytest
from capabilities import ledger, marks
from capabilities.table import FILE, counts, render


@pytest.fixture(scope="module")
def shown():
    return marks.collect()


@pytest.mark.parametrize("family", ledger.RANGES)
def test_the_ledger_names_every_number_once_in_order(family):
    found = [rule.number for rule in ledger.read(family)]
    assert found == [f"{family}{n}" for n in range(1, ledger.RANGES[family] + 1)]


@pytest.mark.parametrize("family", ledger.RANGES)
def test_every_number_is_shown_by_a_test_or_has_a_reason(family, shown):
    assert [rule.number for rule in ledger.read(family) if not rule.kind and rule.number not in shown] == []


def test_what_is_shown_by_now_has_no_excuse_any_more(tmp_path, monkeypatch):
    (tmp_path / "X.txt").write_text("# all of it\nX1    one [sic]  [not yet: health]\nX2    two  [not yet: secrets]\n")
    monkeypatch.setattr(ledger, "HOME", tmp_path)
    monkeypatch.setattr(ledger, "RANGES", {"X": 2})
    assert ledger.settle({"X1", "X9"}) == ["X1"]
    assert (tmp_path / "X.txt").read_text() == "# all of it\nX1    one [sic]\nX2    two  [not yet: secrets]\n"
    assert [rule.excuse for rule in ledger.read("X")] == ["", ledger.NOT_YET["secrets"]]


def test_a_reason_is_one_of_those_that_are_spelled_out():
    assert all(rule.excuse for family in ledger.RANGES for rule in ledger.read(family) if rule.kind)


def test_what_was_not_taken_over_is_shown_by_no_test(shown):
    never = {r.number for family in ledger.RANGES for r in ledger.read(family) if r.kind == "not taken over"}
    assert never & set(shown) == set()


def test_no_test_carries_a_number_that_does_not_exist(shown):
    assert set(shown) - ledger.numbers() == set()


def test_the_counts_are_of_every_number(shown):
    assert {family: row.total() for family, row in counts(shown).items()} == ledger.RANGES


def test_the_table_is_up_to_date(shown):
    assert FILE.read_text() == render(shown), "run `make capabilities`"


def test_marks_of_modules_classes_functions_and_parameters_are_found():
    module = ast.parse("""
pytestmark = [pytest.mark.race, pytest.mark.rule("X1")]
def helper(): ...
@pytest.mark.rule("X2", "X3")
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.rule("X4"))])
async def test_one(): ...
@pytest.mark.rule("X5")
class TestMany:
    pytestmark = pytest.mark.rule("X6")
    def test_two(self): ...
""")
    found = {name: set(numbers) for name, numbers in marks.of(module, "f.py", ())}
    assert found == {"f.py::test_one": {"X1", "X2", "X3", "X4"}, "f.py::TestMany::test_two": {"X1", "X5", "X6"}}


def test_a_number_that_does_not_exist_fails_the_collection(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers = rule(*numbers): the numbered rules that this test shows\n"
    )
    test = tmp_path / "test_wrong.py"
    test.write_text("import pytest\n@pytest.mark.rule('X1', 'X99')\ndef test_it(): ...\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "capabilities.strict",
        "-p",
        "no:cacheprovider",
        "--strict-markers",
        test,
    ]
    environment = os.environ | {"PYTHONPATH": str(marks.TESTS)}

    def run():
        return subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)

    said = run()
    assert said.returncode == pytest.ExitCode.USAGE_ERROR, said.stdout
    assert "test_it: there is no rule X99" in said.stderr
    test.write_text(test.read_text().replace("X99", "X9"))
    assert run().returncode == pytest.ExitCode.OK
