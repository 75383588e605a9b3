"""What SECURITY.md promises is held by the tests that it names; and no code of ours runs text as code, or lets text into a query."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.test_packaging import ROOT, sources

#: Modules that hand Spark a text, and where that text comes from.
SQL_BY_TEXT = {
    "etl/canonical.py": "expressions of the configuration, checked by etl/expressions.py",
    "etl/class_archive.py": "the path of its own temporary folder",
    "etl/explanation.py": "etl/utility.py: names of heads, which are plain words, and their weights",
    "etl/expressions.py": "the check itself, on no rows",
    "etl/forgetting.py": "history.keys of the configuration",
    "etl/history.py": "history.keys of the configuration",
    "etl/labels.py": "heads.applies_to of the configuration, checked",
    "etl/order_change.py": "etl/utility.py",
    "etl/scores.py": "etl/utility.py",
    "etl/sources.py": "row rules of validation/rules.py",
    "etl/migrations.py": "names of columns and paths of the configuration",
    "etl/vacuum.py": "names of tables and paths of the configuration",
    "etl/views.py": "paths of the configuration, in views/spark.sql",
    "etl/simulated_truth.py": "numbers of the simulation",
    "etl/simulated_entities.py": "numbers of the simulation",
    "jobs/report.py": "the queries that the report prints, of etl/views.py and validation/queries.py",
    "validation/counting.py": "checks of validation/",
}
RUNS_TEXT = {"eval", "exec", "compile", "os.system", "os.popen"}


def calls(code: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def runs_text(code: str) -> list[str]:
    """Calls that run a text as Python or by a shell."""
    return [
        ast.unparse(node)
        for called, node in calls(code)
        if called in RUNS_TEXT or any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
    ]


def by_text(code: str) -> list[str]:
    """Calls that hand Spark a text which is not written out in the code."""
    taken = ("spark.sql", "F.expr", ".selectExpr", ".where", ".filter")
    return [
        ast.unparse(node)
        for called, node in calls(code)
        if called.endswith(taken)
        for text in node.args[:1]
        if isinstance(text, ast.JoinedStr)
        or (called.endswith(("spark.sql", "F.expr", "selectExpr")) and not isinstance(text, ast.Constant))
    ]


def test_the_readers_know_safe_from_unsafe() -> None:
    assert len(runs_text("eval(x)\nsubprocess.run(c, shell=True)\nos.system(c)")) == 3
    assert runs_text("subprocess.run([c])\nconf.evaluate(x)\nre.compile(x)") == []
    assert len(by_text("spark.sql(f'x {y}')\nF.expr(text)\nrows.where(f'day = {day}')")) == 3
    assert by_text("spark.sql('SELECT 1')\nrows.where(F.col('day') == day)\nrows.where('size(x) > 0')") == []


def test_no_text_is_run_as_code() -> None:
    # Airflow's alert is a command of its operator, set in a Variable and handed its message on standard input.
    wrong = [
        f"{file.relative_to(ROOT)}: {call}"
        for file in sources()
        if file.relative_to(ROOT).as_posix() != "jobs/dags/adtower.py"
        for call in runs_text(file.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_spark_is_handed_text_by_named_modules_alone() -> None:
    found = {file.relative_to(ROOT).as_posix() for file in sources() if by_text(file.read_text(encoding="utf-8"))}
    assert found == set(SQL_BY_TEXT)


def named_tests() -> list[tuple[str, str]]:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)


@pytest.mark.parametrize(("file", "test"), named_tests())
def test_a_promise_names_a_test_that_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_promises_name_tests() -> None:
    assert len(named_tests()) >= 15
