"""The doctor names what is wrong and the command that mends it, and goes on where something cannot be looked at."""

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

from jobs import doctor
from jobs.doctor import Finding

ROOT = Path(__file__).resolve().parent.parent


def only(findings):
    (finding,) = findings
    return finding


def test_on_this_machine_the_whole_environment_is_as_pinned():
    done = subprocess.run([sys.executable, "jobs/doctor.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    for thing in ("Python", "Java", "g++", "make", "torch", "pyspark", "petastorm", "requirements.lock", "pip check", "Horovod wheel"):
        assert any(line.startswith(f"ok    {thing} ") for line in lines), f"{thing} is not well:\n{done.stdout}{done.stderr}"
    assert done.returncode == (2 if any(line.startswith("wrong ") for line in lines) else 0)


def test_java_of_another_version_is_wrong_and_the_mend_installs_one(tmp_path, monkeypatch):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"25.0.1\" 2025-10-21' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    finding = only(doctor.java())
    assert "25.0.1" in finding.found
    assert "apt-get install -y openjdk-17-jre-headless" in finding.mend


def test_a_home_of_java_without_java_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert str(tmp_path) in only(doctor.java()).found
    assert only(doctor.java()).mend


def test_another_spark_in_spark_home_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert only(doctor.spark_home()).mend == "unset SPARK_HOME"


def test_a_package_that_is_absent_or_of_another_version_is_named_beside_its_pin(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==0.4.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\n    --hash=sha256:00\n", encoding="utf-8")
    packages, _ = doctor.locked_packages(lock)
    assert packages.found.startswith("2 of 2 packages differ: torch ")
    assert "instead of 0.4.1; no-such-package none instead of 1.0" in packages.found
    assert packages.mend == "./build.sh setup"


def test_a_jar_must_be_the_pinned_one_and_the_only_one(tmp_path):
    pinned = {"right.jar": b"as pinned", "changed.jar": b"as pinned too", "absent.jar": b"anything"}
    lock = tmp_path / "jars.lock"
    lock.write_text("".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in pinned.items()), encoding="utf-8")
    folder = tmp_path / "jars"
    folder.mkdir()
    for name, text in (("right.jar", b"as pinned"), ("changed.jar", b"changed"), ("stray.jar", b"left by an older version")):
        (folder / name).write_bytes(text)
    wrong = {finding.thing: bool(finding.mend) for finding in doctor.jars(lock, folder)}
    assert wrong == {"right.jar": False, "changed.jar": True, "absent.jar": True, "stray.jar": True}


def test_a_sample_with_a_file_missing_is_wrong(tmp_path):
    for name in doctor.SAMPLE[1:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finding = only(doctor.open_bandit(tmp_path))
    assert finding.found.startswith("11 of 12 files")
    assert finding.mend
    (tmp_path / doctor.SAMPLE[0]).touch()
    assert not only(doctor.open_bandit(tmp_path)).mend


def test_more_ranks_than_slots_is_wrong_and_the_mend_names_both_knobs(tmp_path):
    conf = tmp_path / "small.yaml"
    conf.write_text(
        f"extends: {ROOT / 'conf' / 'obd.yaml'}\nspark: {{master: 'local[1]'}}\ntraining: {{backend: horovod_spark, ranks: 2}}\n",
        encoding="utf-8",
    )
    slots = next(finding for finding in doctor.machine(str(conf)) if finding.thing == "Spark slots")
    assert "spark.master: local[2]" in slots.mend
    assert "training.ranks: 1" in slots.mend


def test_a_check_that_fails_is_a_finding_and_not_the_end():
    def broken():
        yield Finding("packages", importlib.import_module("no_such_package").__name__)

    finding = only(doctor.look("packages", broken))
    assert "No module named 'no_such_package'" in finding.found
    assert finding.mend == "./build.sh setup"


def test_the_table_ends_with_the_verdict():
    assert doctor.table([Finding("Java", "17")]).endswith("all is well: 1 things looked at")
    assert doctor.table([Finding("Java", "17"), Finding("make", "none", "apt-get install -y make")]).splitlines() == [
        "ok    Java  17",
        "wrong make  none",
        "            mend: apt-get install -y make",
        "1 of 2 things are wrong",
    ]
