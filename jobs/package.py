"""What a cluster needs of Adtower -> dist/: a wheel, two Python environments, the jars of Delta and Avro, and main.py. Starts no Spark.

./build.sh package   or   python jobs/package.py [--node-python /usr/bin/python3.11]

`environment-training.tar.gz` is for drivers and for executors that train and score, `environment-etl.tar.gz`, which has no torch, for executors
that build tables. Both are laid out as a venv: bin/python, a link to Python 3.11 at the place where every node must have it; and in
lib/python3.11/site-packages the wheel beside the packages that it needs, with the files that .venv has of them. Neither holds pyspark: the
cluster's Spark brings its own. packages.txt in each lists what is in it.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etl.session import delta_jars

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("jobs", "etl", "models", "validation", "conf", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
SITE = "lib/python3.11/site-packages"
# Level 6 would make it a twentieth to a tenth smaller, in two to four times the time.
GZIP_LEVEL = 1
OF_SPARK = ("pyspark", "py4j")
PYTHON_HERE = str(Path(sys.executable).resolve())  # what .venv was made with


@dataclass(frozen=True)
class Environment:
    """What is asked for, as a requirement, and which packages are left out, with all that only they need."""

    wanted: str
    without: Collection[str]


ENVIRONMENTS = {
    "etl": Environment("adtower", (*OF_SPARK, "torch", "horovod", "petastorm", "safetensors", "matplotlib")),
    "training": Environment("adtower[lineage,tracking]", OF_SPARK),
}


def package(folder: Path, node_python: str) -> Path:
    """Write all of it anew into `folder`, whole or not at all."""
    writing, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for leftover in (writing, old):
        shutil.rmtree(leftover, ignore_errors=True)
    (writing / "jars").mkdir(parents=True)
    shutil.copy(ROOT / "jobs" / "main.py", writing / "main.py")
    for jar in delta_jars():
        shutil.copy(jar, writing / "jars")
    wheel = build_wheel(writing)
    for name, environment in ENVIRONMENTS.items():
        write_environment(writing / f"environment-{name}.tar.gz", distributions(environment), wheel, node_python)
    if folder.exists():
        folder.rename(old)
    writing.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def build_wheel(folder: Path) -> Path:
    """Our wheel, built from a copy of the sources: setuptools would also pack what an earlier build left beside them."""
    with TemporaryDirectory() as scratch:
        for name in BUILT_FROM:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, scratch)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, scratch], check=True)
    (wheel,) = folder.glob("adtower-*.whl")
    return wheel


def distributions(environment: Environment) -> list[metadata.Distribution]:
    """The installed packages that are wanted, with what they need, by name; our own, which the wheel brings, is not among them."""
    found, asked, open_requests = dict[str, metadata.Distribution](), set[tuple[str, str]](), [Requirement(environment.wanted)]
    while open_requests:
        wanted = open_requests.pop()
        name = canonicalize_name(wanted.name)
        if name in environment.without:
            continue
        found[name] = metadata.distribution(name)
        for extra in {"", *wanted.extras} - {extra for known, extra in asked if known == name}:
            asked.add((name, extra))
            needs = map(Requirement, found[name].requires or [])
            open_requests += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    del found["adtower"]
    return [found[name] for name in sorted(found)]


def write_environment(target: Path, packages: Collection[metadata.Distribution], wheel: Path, node_python: str) -> None:
    listed = [f"{canonicalize_name(one.metadata['Name'])}=={one.version}" for one in packages]
    texts = {
        "pyvenv.cfg": f"home = {Path(node_python).parent}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n",
        "packages.txt": "\n".join([wheel.name, *listed]) + "\n",
    }
    scratch = target.with_suffix(".tmp")
    with tarfile.open(scratch, "w:gz", compresslevel=GZIP_LEVEL) as archive:
        for link, to in {"bin/python3.11": node_python, "bin/python3": "python3.11", "bin/python": "python3.11"}.items():
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, to
            archive.addfile(member)
        for name, text in texts.items():
            _add(archive, name, text.encode())
        with zipfile.ZipFile(wheel) as ours:
            for name in ours.namelist():
                _add(archive, f"{SITE}/{name}", ours.read(name))
        for one in packages:
            for file in one.files or []:
                if file.parts[0] != "..":  # commands of theirs, whose first lines name a Python of this machine
                    archive.add(file.locate(), f"{SITE}/{file}", recursive=False, filter=_of_nobody)
    os.replace(scratch, target)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), int(time.time()), 0o644
    archive.addfile(member, io.BytesIO(content))


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """With its time, by which Python knows compiled code as that of its source; without its owner."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--node-python", default=PYTHON_HERE, help="where every node has Python 3.11 (default, as on this machine: %(default)s)"
    )
    began = time.monotonic()
    folder = package(ROOT / "dist", arguments.parse_args().node_python)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        print(f"{file.stat().st_size / 2**20:10,.1f} MiB  {file.relative_to(ROOT)}")
    print(f"packed in {time.monotonic() - began:.0f} s; README.md, On a cluster, says how it is submitted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
