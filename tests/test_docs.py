"""What the documents promise exists: each command with its options, each exit code, each knob of a gate."""

import re
from pathlib import Path

import pytest

from conf.gates import Gate, Publication
from jobs import common

ROOT = Path(__file__).parents[1]
DOCS = ("README.md", "RUNBOOK.md", "CONTRIBUTING.md")
#: Files whose options a job takes over, beside its own.
SHARED = {"compare": (), "search": ("compare",), "demo": ("nightly",)}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[tuple[str, str]]:
    """(job, the rest of its line) wherever a document runs one."""
    return re.findall(r"(?:jobs/|submit |main\.py )([a-z_]+)(?:\.py)?((?: +[^`\n#]*)?)", text(name))


@pytest.mark.parametrize("name", DOCS)
def test_every_command_of_a_document_is_a_job_that_has_these_options(name):
    wrong = []
    for job, rest in commands(name):
        file = ROOT / "jobs" / f"{job}.py"
        if not file.is_file():
            wrong += [f"no job {job}"] if "--" in rest else []
            continue
        code = "".join((ROOT / "jobs" / f"{of}.py").read_text(encoding="utf-8") for of in (job, "common", *SHARED.get(job, ())))
        wrong += [f"{job} {option}" for option in re.findall(r"--[a-z][a-z-]*", rest) if f'"{option}"' not in code]
    assert wrong == []


@pytest.mark.parametrize("name", DOCS)
def test_every_module_that_a_document_runs_exists(name):
    modules = set(re.findall(r"python -m (tests\.[a-z_.]+)", text(name)))
    assert [module for module in modules if not (ROOT / (module.replace(".", "/") + ".py")).is_file()] == []


def test_the_runbook_has_a_line_for_every_exit_code_and_no_other():
    codes = {value for name, value in vars(common).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text("RUNBOOK.md"), re.MULTILINE)} == codes


def test_the_runbook_names_every_knob_of_the_gates_and_no_other():
    found = text("RUNBOOK.md")
    assert [
        knob for knob in (*Gate.model_fields, *Publication.model_fields) if not re.search(rf"`(gate\.|publication\.)?{knob}`", found)
    ] == []
    named = set(re.findall(r"`gate\.([a-z_]+)`", found)) | set(re.findall(r"`publication\.([a-z_]+)`", found))
    assert named <= {*Gate.model_fields, *Publication.model_fields}
