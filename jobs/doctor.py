"""What this machine has, what is wrong with it, and the command that mends it. Starts no Spark; needs no package to say so.

./build.sh doctor   or   python jobs/doctor.py [--conf-file conf/demo.yaml]      exit 0: all is well, 2: something is wrong
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETUP = "./build.sh setup"
GIB = 2**30
DISK_GIB = 5  # tables, snapshots and spill of the demo, and room to work
SAMPLE = [
    f"{policy}/{campaign}/{name}.csv"
    for policy in ("bts", "random")
    for campaign in ("all", "men", "women")
    for name in (campaign, "item_context")
]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` is the command or change that puts it right; empty where nothing is wrong."""

    thing: str
    found: str
    mend: str = ""


def python() -> Iterator[Finding]:
    right = sys.version_info[:2] == (3, 11) and sys.prefix != sys.base_prefix
    yield Finding("Python", f"{platform.python_version()} at {sys.executable}", "" if right else f"{SETUP}  (wants Python 3.11 in .venv)")


def java() -> Iterator[Finding]:
    home = os.environ.get("JAVA_HOME")
    command = f"{home}/bin/java" if home else shutil.which("java")
    install = "apt-get install -y openjdk-17-jre-headless, or export JAVA_HOME=<home of Java 17 or 21>"
    if command is None or not Path(command).exists():
        yield Finding("Java", f"none at {command or 'the PATH'}", install)
        return
    said = _output([command, "-version"])
    version = re.search(r'version "(\d+)[^"]*"', said)
    right = version is not None and version[1] in ("17", "21")
    yield Finding("Java", f"{version[0] if version else said[:60]} at {command}", "" if right else install)


def compilers() -> Iterator[Finding]:
    for name in ("g++", "make"):
        path = shutil.which(name)
        yield Finding(name, _output([path, "--version"]).splitlines()[0] if path else "none", "" if path else f"apt-get install -y {name}")


def spark_home() -> Iterator[Finding]:
    other = os.environ.get("SPARK_HOME")
    if other and not Path(other).resolve().is_relative_to(Path(sys.prefix).resolve()):
        yield Finding("SPARK_HOME", f"{other}, which is started instead of the pinned pyspark", "unset SPARK_HOME")


def declared_packages() -> Iterator[Finding]:
    """Each package that setup.cfg asks for: the version found against the one wanted."""
    from packaging.requirements import Requirement

    for text in metadata.requires("adtower") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": "dev"}):
            continue
        found = _version(wanted.name)
        right = found is not None and wanted.specifier.contains(found, prereleases=True)
        yield Finding(wanted.name, f"{found or 'none'} (wanted: {wanted.specifier or 'any'})", "" if right else SETUP)


def locked_packages(lock: Path = ROOT / "requirements.lock") -> Iterator[Finding]:
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    differing = [f"{name} {_version(name) or 'none'} instead of {pin}" for name, pin in pins.items() if _version(name) != pin]
    found = f"{len(differing)} of {len(pins)} packages differ: {'; '.join(differing[:5])}{'; …' if len(differing) > 5 else ''}"
    yield Finding(lock.name, found if differing else f"{len(pins)} packages as pinned", SETUP if differing else "")
    complaints = _output([sys.executable, "-m", "pip", "check"])
    yield Finding("pip check", complaints.strip().replace("\n", "; "), "" if "No broken requirements" in complaints else SETUP)


def horovod() -> Iterator[Finding]:
    """Asked of a Python of its own: a wheel built for another torch can end the process that imports it."""
    question = (
        "import json, pathlib, torch, horovod, horovod.torch as hvd; "
        "built = json.loads(pathlib.Path(horovod.__file__).with_name('metadata.json').read_text()); "
        "print(json.dumps([torch.__version__, built['pytorch'], bool(hvd.gloo_built()), bool(hvd.nccl_built())]))"
    )
    mend = f"rm -rf {_cache()}/wheels .venv/stamp-horovod && {SETUP}"
    said = _output([sys.executable, "-c", question]).strip().splitlines() or ["it ended without a word"]
    try:
        torch, built_for, gloo, nccl = json.loads(said[-1])
    except ValueError:
        yield Finding("Horovod wheel", f"does not import: {said[-1]}", mend)
        return
    found = f"built for torch {built_for} (here: {torch}), gloo {'yes' if gloo else 'no'}, NCCL {'yes' if nccl else 'no'}"
    yield Finding("Horovod wheel", found, "" if gloo and torch == built_for else mend)


def jars(lock: Path = ROOT / "jars.lock", folder: Path | None = None) -> Iterator[Finding]:
    """Each jar of `lock` (lines of sha256 and file name) in the user cache, and no other: all that lie there go on Spark's class path."""
    folder = folder or _cache() / "jars"
    wanted = {name: sha256 for sha256, name in (line.split() for line in lock.read_text(encoding="utf-8").splitlines())}
    for name, sha256 in wanted.items():
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        said = f"sha256 {found[:12]}… {'as' if found == sha256 else 'instead of the one'} pinned" if found else f"none in {folder}"
        yield Finding(name, said, "" if found == sha256 else SETUP)
    for stray in sorted({file.name for file in folder.glob("*.jar")} - set(wanted)):
        yield Finding(stray, f"in {folder}, but not in {lock.name}", SETUP)


def open_bandit(folder: Path | None = None) -> Iterator[Finding]:
    folder = folder or _cache() / "obd"
    missing = [name for name in SAMPLE if not (folder / name).is_file()]
    found = f"{len(SAMPLE) - len(missing)} of {len(SAMPLE)} files in {folder}"
    yield Finding("Open Bandit", found, f"rm -rf {folder} && {SETUP}" if missing else "")


def machine(conf_file: str) -> Iterator[Finding]:
    """Slots, memory and disk against what the configuration asks of them."""
    from conf.load import load

    conf = load(conf_file)
    cores = len(os.sched_getaffinity(0))
    processes = conf.training.ranks if conf.training.backend in ("horovodrun", "torch") else 1
    yield Finding("cores", str(cores), f"in {conf_file} set training.ranks: {cores}" if cores < processes else "")
    local = re.fullmatch(r"local(?:\[(\d+|\*)\])?", conf.spark.master)
    slots = (cores if local[1] == "*" else int(local[1] or 1)) if local else None
    ranks = conf.training.ranks if conf.training.backend == "horovod_spark" else 1
    short = slots is not None and slots < ranks
    mend = f"in {conf_file} set spark.master: local[{ranks}] or training.ranks: {slots}" if short else ""
    yield Finding("Spark slots", f"{slots or 'as many as the cluster gives'} by {conf.spark.master}; training.ranks: {ranks}", mend)

    memory, heap = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, _gib(conf.spark.driver_memory)
    mend = "" if memory >= 2 * heap else f"in {conf_file} set spark.driver_memory to half of that or less: Python needs the rest"
    yield Finding("memory", f"{memory:.1f} GiB; spark.driver_memory: {conf.spark.driver_memory}", mend)

    workdir = Path(conf.workdir).absolute()
    place = next(path for path in (workdir, *workdir.parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB
    mend = "" if free >= DISK_GIB else f"free {DISK_GIB} GiB there, or move workdir in {conf_file}"
    yield Finding("disk", f"{free:.1f} GiB free at {place}", mend)


def look(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What `check` finds. A check that cannot be made (a package is missing, a file is not there) is itself a finding."""
    try:
        return list(check())
    except Exception as error:  # whatever is wrong here, the other checks are still worth reading
        mend = SETUP if isinstance(error, ImportError) else "what the message says"
        return [Finding(name, f"cannot be looked at: {type(error).__name__}: {error}", mend)]


def table(findings: list[Finding]) -> str:
    width = max(len(finding.thing) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'wrong' if finding.mend else 'ok':6}{finding.thing:{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':6}{'':{width}}  mend: {finding.mend}")
    wrong = sum(bool(finding.mend) for finding in findings)
    lines.append(f"{wrong} of {len(findings)} things are wrong" if wrong else f"all is well: {len(findings)} things looked at")
    return "\n".join(lines)


def _cache() -> Path:
    from conf.load import cache_dir

    return cache_dir()


def _gib(jvm_size: str) -> float:
    """4g -> 4.0; 512m -> 0.5"""
    return float(jvm_size[:-1]) / {"g": 1, "m": 1024}[jvm_size[-1].lower()]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    return done.stdout


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--conf-file", default="conf/demo.yaml", help="whose slots, memory and disk to check (default: %(default)s)")
    conf_file = arguments.parse_args().conf_file
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": python,
        "Java": java,
        "compilers": compilers,
        "SPARK_HOME": spark_home,
        "packages": declared_packages,
        "requirements.lock": locked_packages,
        "Horovod wheel": horovod,
        "Delta's jars": jars,
        "Open Bandit": open_bandit,
        "slots, memory, disk": lambda: machine(conf_file),
    }
    findings = [finding for name, check in checks.items() for finding in look(name, check)]
    print(table(findings))
    return 2 if any(finding.mend for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
