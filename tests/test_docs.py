"""What the documents promise exists: each command with its options, each exit code, each knob of a gate."""

import importlib
import re
from contextlib import suppress
from pathlib import Path

import pytest

from conf.gates import Gate, Publication
from conf.load import load
from etl.schemas import all_tables
from jobs import common
from jobs.nightly import STAGES

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


class SparkAsked(Exception):
    """A command got as far as starting Spark."""


@pytest.mark.parametrize("name", DOCS)
def test_every_command_of_a_document_gets_as_far_as_starting_spark(name, monkeypatch, tmp_path):
    """Options, dates, names of columns and the configuration are right; what comes then is what each job's own tests run."""
    ran = []
    for job, rest in re.findall(r"(?:python|spark-submit) jobs/([a-z_]+)\.py( --conf-file [^`#\n]*)", text(name)):
        if "…" in rest:
            continue
        module = importlib.import_module(f"jobs.{job}")
        (run,) = re.findall(r"^    main\((\w+)\)$", (ROOT / "jobs" / f"{job}.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
        monkeypatch.setattr(module, "start", spark_asked)
        with suppress(SparkAsked):
            assert getattr(module, run)(own_files(rest.split(), tmp_path)) == common.DONE  # one that needs no Spark
        ran.append(job)
    assert ran or name == "CONTRIBUTING.md"


def spark_asked(*_):
    raise SparkAsked


def own_files(argv, folder):
    """The same options, for tables below `folder`, with the files that a reader would have of their own."""
    conf = ROOT / argv[1].replace("conf/prod.yaml", "conf/prod.example.yaml")
    if argv[1] == "mine.yaml":
        conf = folder / "readers.yaml"
        conf.write_text(re.findall(r"```yaml\n(.*?)```", text("README.md"), flags=re.DOTALL)[0], encoding="utf-8")
    (folder / "conf.yaml").write_text(f"extends: {conf}\nworkdir: {folder}\n", encoding="utf-8")
    (folder / "leaving.txt").write_text("u1\n", encoding="utf-8")
    named = {"leaving.txt": str(folder / "leaving.txt"), "conf/demo_template.yaml": str(ROOT / "conf" / "demo_template.yaml")}
    return [argv[0], str(folder / "conf.yaml"), *(named.get(word, word) for word in argv[2:])]


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


def test_the_picture_of_a_night_has_every_stage_and_tables_that_exist():
    (picture,) = re.findall(r"```mermaid\n(.*?)```", text("README.md"), flags=re.DOTALL)
    nodes = set(re.findall(r"(?:^|-> )\s*(\w+)", picture, flags=re.MULTILINE)) - {"flowchart"}
    assert {stage.name for stage in STAGES} <= nodes
    shown = {name for label in re.findall(r'\[\("([^"]+)"\)\]', picture) for name in label.split(", ")} - {"logs of every source"}
    assert shown <= set(all_tables(load(ROOT / "conf" / "tiny.yaml")))
