"""Which test carries which number, read from the tests' text without importing them."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def collect(tests: Path = TESTS) -> dict[str, list[str]]:
    """The tests of each number, as `sql/test_claim.py::test_name`."""
    found = defaultdict(list)
    for file in sorted(tests.rglob("test_*.py")):
        place = file.relative_to(tests).as_posix()
        for test, numbers in of(ast.parse(file.read_text()), place, ()):
            for number in dict.fromkeys(numbers):
                found[number].append(test)
    return found


def of(scope: ast.Module | ast.ClassDef, place: str, outer: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each test of a module or class, with the numbers on it and on what it is in."""
    for node in scope.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
            outer += marked(node.value)
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name, numbers = f"{place}::{node.name}", outer + marked(*node.decorator_list)
            if isinstance(node, ast.ClassDef):
                yield from of(node, name, numbers)
            elif node.name.startswith("test"):
                yield name, numbers


def marked(*expressions: ast.expr) -> tuple[str, ...]:
    """The numbers of every `pytest.mark.rule(...)` in there, also of one parameter's marks."""
    calls = [
        call
        for expression in expressions
        for call in ast.walk(expression)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "rule"
    ]
    return tuple(ast.literal_eval(argument) for call in calls for argument in call.args)
