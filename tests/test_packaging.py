"""What the project is made of: five packages, which of them may import what, what may be loaded, and what is pinned."""

import ast
import configparser
import importlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from etl.runs import code_hash
from jobs.main import OF_A_CHECKOUT, jobs
from jobs.package import ENVIRONMENTS, PYTHON_HERE, SITE, build_wheel, distributions, write_environment

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jobs", "etl", "models", "validation", "conf")

# A directory is a dependency: library -> the packages or files that may import it.
MAY_IMPORT = {
    "torch": ("models/",),
    "horovod": ("models/distributed.py",),
    "petastorm": ("models/batches.py",),
    "mlflow": ("models/tracking.py",),
    "optuna": ("jobs/search.py",),
    "openlineage": ("jobs/lineage.py",),
    "prometheus_client": ("jobs/exposition.py",),
    "pyspark": ("etl/", "validation/", "jobs/"),
    "delta": ("etl/",),
    "great_expectations": ("validation/",),
    "airflow": ("jobs/dags/",),  # in an environment of its own; tests/jobs/test_airflow.py holds that these files import nothing of ours
    # Our own. Horovod's workers import models/ and conf/ alone; a predictor is handed to etl/ by a job.
    "jobs": ("jobs/",),
    "models": ("models/", "jobs/", "validation/"),
    "etl": ("etl/", "validation/", "jobs/"),
    "validation": ("validation/", "etl/", "jobs/"),
}

# Calls that run code stored in a file. safe_load, safetensors and json.loads do not.
UNPICKLERS = ("pickle", "cPickle", "joblib", "cloudpickle", "dill", "marshal", "shelve")


def sources() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def imported(code: str) -> set[str]:
    """Top-level names of everything that `code` imports, at whatever depth and also by name."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")) and node.args:
            found.add(str(ast.literal_eval(node.args[0])) if isinstance(node.args[0], ast.Constant) else ast.unparse(node.args[0]))
    return {name.partition(".")[0] for name in found}


def unsafe_loads(code: str) -> Iterator[str]:
    """Each call in `code` that could run what a file holds."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            names = {alias.name for alias in node.names}
            yield from sorted(f"from {node.module} import {name}" for name in names & {"load", "loads", "Unpickler", "open"})
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        owner, _, name = called.rpartition(".")
        if (
            (owner in UNPICKLERS and name in ("load", "loads", "Unpickler", "open"))
            or (called == "torch.load" and given.get("weights_only") != "True")
            or (owner == "yaml" and name in ("load", "load_all", "full_load", "unsafe_load"))
            or name == "read_pickle"
            or given.get("allow_pickle", "False") != "False"
        ):
            yield ast.unparse(node)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_imported_from_our_distribution(package):
    owners = metadata.packages_distributions().get(package)
    assert owners == ["adtower"], f"{package} belongs to {owners}; install into an environment of its own: ./build.sh setup"
    assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


def test_the_reader_of_imports_sees_every_form():
    code = "import torch.nn as nn\nfrom . import x\ndef f():\n    from pyspark.sql import types\n    import_module('horovod.spark')\n"
    assert imported(code) == {"torch", "pyspark", "horovod"}


def test_a_directory_is_a_dependency():
    wrong = [
        f"{file.relative_to(ROOT)} imports {library}; only {', '.join(MAY_IMPORT[library])} may"
        for file in sources()
        for library in sorted(imported(file.read_text(encoding="utf-8")) & set(MAY_IMPORT))
        if not file.relative_to(ROOT).as_posix().startswith(MAY_IMPORT[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_code_of_a_package_lies_in_no_folder_below_it_but_the_dag_files():
    """So etl.runs.code_hash reads all that a stage may import, and a change of a DAG file makes no table again."""
    below = {file.relative_to(ROOT).parent.as_posix() for file in sources()} - set(PACKAGES)
    assert below == {"jobs/dags"}


def test_the_reader_of_loads_knows_safe_from_unsafe():
    unsafe = [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "joblib.load(path)",
        "cloudpickle.load(file)",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "from pickle import loads",
    ]
    safe = ["torch.load(path, weights_only=True)", "json.loads(text)", "yaml.safe_load(text)", "np.load(path)", "conf.load.load(path)"]
    assert [code for code in unsafe if not list(unsafe_loads(code))] == []
    assert [code for code in safe if list(unsafe_loads(code))] == []


def test_no_artifact_is_ever_unpickled():
    wrong = [f"{file.relative_to(ROOT)}: {call}" for file in sources() for call in unsafe_loads(file.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", ["requirements.lock", "airflow.lock"])
def test_a_lock_pins_every_package_by_hash_and_names_no_host(file):
    lock = (ROOT / file).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", lock.strip())
    wrong = [entry for entry in entries if not re.fullmatch(r"[a-z0-9.-]+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+", entry)]
    assert not wrong, f"not `name==version` with hashes alone: {wrong[:3]}"


def test_the_lock_holds_what_setup_cfg_asks_for():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = "\n".join([setup["options"]["install_requires"], *setup["options.extras_require"].values()])
    names = {re.split(r"[<>=]", line)[0].lower().replace("_", "-") for line in asked.splitlines() if line}
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert names - locked == {"horovod"}, "run ./build.sh lock; horovod alone is built by build.sh"


BARE = (("Python 3.11", "python3.11-venv"), ("g++", "g++"), ("make", "make"))
BROWSER = ("Chromium, for the tests of pages", "chromium")


@pytest.mark.parametrize(("command", "lacks", "not_asked_for"), [("setup", BARE, [BROWSER]), ("test", (*BARE, BROWSER), [])])
def test_whatever_a_machine_lacks_is_named_at_once_with_the_command_that_installs_it(tmp_path, command, lacks, not_asked_for):
    """On a PATH with nothing but the shell's own tools there is no Python, no g++ and no make, and for the tests of pages no Chromium."""
    for tool in ("bash", "dirname", "realpath", "readlink", "sed", "head"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "build.sh").write_text((ROOT / "build.sh").read_text(encoding="utf-8"), encoding="utf-8")
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(["/bin/bash", "checkout/build.sh", command], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    for missing, package in lacks:
        assert f"this machine has no {missing}" in done.stderr
        assert re.search(rf"apt-get install -y .*{re.escape(package)}( |$)", done.stderr, flags=re.MULTILINE)
    assert not any(missing in done.stderr for missing, _ in not_asked_for)
    assert not (tmp_path / ".cache").exists(), "nothing is made before the machine is known to be fit"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> dict[str, str]:
    """The environment of a process that finds our code in the wheel, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return os.environ | {"PYTHONPATH": str(folder)}


def said(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_five_packages_with_their_data_and_nothing_else(wheel):
    patterns = [
        *(f"{package}/*.py" for package in PACKAGES),
        "conf/*.yaml",
        "conf/worlds/*.yaml",
        "etl/*.properties",
        *(f"validation/*.{x}" for x in ("html", "css", "md")),
    ]
    ours = {file.relative_to(ROOT).as_posix() for pattern in patterns for file in ROOT.glob(pattern)}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == ours


def test_code_has_the_same_hash_in_the_wheel_as_in_the_checkout(elsewhere, tmp_path):
    """Or each stage would be run again on the cluster, and a model have another name there."""
    asked = f"import etl.runs; print(etl.runs.__file__, etl.runs.code_hash(*{PACKAGES}))"
    file, found = said([sys.executable, "-c", asked], tmp_path, elsewhere).stdout.split()
    assert file.startswith(elsewhere["PYTHONPATH"])
    assert found == code_hash(*PACKAGES)


def test_main_knows_every_job():
    commands = {file.stem for file in (ROOT / "jobs").glob("*.py") if '\nif __name__ == "__main__":\n' in file.read_text(encoding="utf-8")}
    assert set(jobs()) == commands - OF_A_CHECKOUT
    assert {"nightly", "migrate", "rollback", "explain"} < set(jobs())


def test_main_names_the_jobs_to_whoever_asks_for_another(elsewhere, tmp_path):
    for asked in (["nihgtly", "--day", "2026-05-16"], []):
        done = said([sys.executable, str(ROOT / "jobs" / "main.py"), *asked], tmp_path, elsewhere)
        assert done.returncode == 2
        assert f"there is no job {asked[0] if asked else ''!r}; name one of {', '.join(jobs())}" in done.stderr


def test_main_runs_the_job_with_its_options_and_ends_with_its_exit_code(elsewhere, tmp_path):
    nightly = [sys.executable, str(ROOT / "jobs" / "main.py"), "nightly", "--conf-file", "none.yaml", "--day", "2026-05-16"]
    done = said(nightly, tmp_path, elsewhere)
    assert (done.returncode, done.stderr.splitlines()[-1].split(";")[0]) == (2, "ConfError: none.yaml: no such file")


def test_executors_get_what_they_need_and_spark_stays_the_clusters():
    found = {name: {one.metadata["Name"].lower().replace("_", "-") for one in distributions(ENVIRONMENTS[name])} for name in ENVIRONMENTS}
    assert {"numpy", "pyarrow", "pandas", "pydantic", "pyyaml", "scipy", "cloudpickle"} < found["etl"] < found["training"]
    assert {"torch", "horovod", "petastorm", "safetensors", "tensorboard", "mlflow-skinny", "openlineage-python", "matplotlib"} <= found[
        "training"
    ] - found["etl"]
    strangers = {"adtower", "pyspark", "py4j", "pip", "pytest", "ruff", "mypy", "scikit-learn", "duckdb", "lightgbm", "cmake"}
    assert not strangers & found["training"]


def test_a_packed_environment_runs_where_it_is_unpacked_and_lists_what_it_holds(wheel, tmp_path):
    names = ["annotated-types", "pydantic", "pydantic_core", "PyYAML", "typing-inspection", "typing_extensions"]
    packages = [one for one in distributions(ENVIRONMENTS["etl"]) if one.metadata["Name"] in names]
    archive, unpacked = tmp_path / "environment.tar.gz", tmp_path / "environment"
    write_environment(archive, packages, wheel, PYTHON_HERE)
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", unpacked], check=True)
    listed = [f"{one.metadata['Name'].lower().replace('_', '-')}=={one.version}" for one in packages]
    assert (unpacked / "packages.txt").read_text(encoding="utf-8").splitlines() == [wheel.name, *listed]
    asked = f"import sys, conf.load; conf.load.load('{SITE}/conf/tiny.yaml'); print(sys.prefix, conf.load.__file__, 'pip' in sys.modules)"
    done = said(["environment/bin/python", "-c", asked.replace(SITE, f"environment/{SITE}")], tmp_path, {})
    assert done.stdout.split() == [str(unpacked), f"{unpacked}/{SITE}/conf/load.py", "False"], done.stderr


def test_a_night_starts_without_great_expectations():
    """It takes as long to import as all else that a night needs, and only judging needs it."""
    asked = [sys.executable, "-c", "import sys, jobs.nightly; print('great_expectations' in sys.modules)"]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == ["False"]
