"""A night on a real cluster that has our code from the package alone: does it end with the tables of the same night in one process?

python -m tests.reliability.cluster_night [--package dist]

Spark's standalone master and two workers of one core, at loopback alone; their Spark is .venv's, of which they use nothing else. Everything
is submitted from an empty folder, with an environment that names no checkout. Simulated logs of conf/tiny.yaml: days 1 to 6 are built here;
then the night of day 7, which trains, calibrates, publishes and scores, here, on the cluster in one application, and on the cluster in two:
tables by executors without torch, then the rest. Compared are the content hashes of every day of every table but `runs`. A short application
asks executors where they import from, and cluster mode is tried, which Spark refuses to Python here. Prints one line of JSON. Takes 35 GiB of
disk for a while: the environment with torch stands packed and, four times, unpacked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark

from etl.session import start
from jobs.common import DONE
from jobs.nightly import ETL, STAGES
from jobs.package import PYTHON_HERE, SITE, package
from tests.jobs.nights import ROOT, Place, copied, day, place

SPARK_HOME = Path(pyspark.__path__[0])
WORKERS = 2
# The training environment is 5 GiB: an executor that meets its first task unpacks it before the rank in that task can answer.
UNPACKING: dict[str, Any] = {"training": {"start_timeout_seconds": 600}}
PROBE = """
import sys
from pyspark.sql import SparkSession

def seen(_):
    import etl.grouped, validation.counting
    return etl.grouped.__file__, validation.counting.__file__, sys.prefix, "torch" in sys.modules

context = SparkSession.builder.getOrCreate().sparkContext
for found in sorted(set(context.range(8, numSlices=8).map(seen).collect())):
    print(*found)
"""


@dataclass(frozen=True)
class Cluster:
    """`folder`: what its processes write. `driver`: the training environment, unpacked, as a machine that submits has it."""

    master: str
    folder: Path
    packed: Path
    driver: Path

    def submit(self, environment: str, application: Path, *options: str, mode: str = "client") -> subprocess.CompletedProcess[str]:
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        settings = {"spark.executor.memory": "1g", "spark.driver.memory": "2g", "spark.ui.enabled": "false"}
        # Ranks need as many slots as they are: the application waits for its executors, which the master counts by spark.cores.max.
        settings |= {"spark.cores.max": str(WORKERS), "spark.scheduler.minRegisteredResourcesRatio": "1.0"}
        command = [
            *(str(SPARK_HOME / "bin" / "spark-submit"), "--master", self.master, "--deploy-mode", mode),
            *("--jars", ",".join(map(str, sorted((self.packed / "jars").glob("*.jar"))))),
            *("--archives", f"{self.packed}/environment-{environment}.tar.gz#environment"),
            *(part for key, value in settings.items() for part in ("--conf", f"{key}={value}")),
            *(str(application), *options),
        ]
        pythons = {"PYSPARK_PYTHON": "./environment/bin/python", "PYSPARK_DRIVER_PYTHON": str(self.driver / "bin" / "python")}
        done = subprocess.run(command, cwd=elsewhere, env=bare(self.folder) | pythons, capture_output=True, text=True, check=False)
        for left in self.folder.glob("worker-*/app-*"):
            shutil.rmtree(left, ignore_errors=True)  # with the unpacked environment, while its executor may still be ending
        return done

    def night(self, environment: str, where: Place, *options: str) -> None:
        done = self.submit(environment, self.packed / "main.py", "nightly", "--conf-file", str(where.conf_file), "--day", day(7), *options)
        print(done.stderr, file=sys.stderr, flush=True)
        assert done.returncode == DONE, f"exit {done.returncode}"


def bare(folder: Path) -> dict[str, str]:
    """Nothing of the checkout's environment, no Spark defaults, and everything at loopback."""
    (folder / "no_defaults").mkdir(exist_ok=True)
    (folder / "scratch").mkdir(exist_ok=True)
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "JAVA_HOME": os.environ["JAVA_HOME"],
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_CONF_DIR": str(folder / "no_defaults"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@contextmanager
def cluster(folder: Path, packed: Path, driver: Path) -> Iterator[Cluster]:
    folder.mkdir()
    port, page = free_ports(2)
    master, deploy = f"spark://127.0.0.1:{port}", "org.apache.spark.deploy"
    daemons = [[f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]]
    for number in range(WORKERS):
        own = ["--host", "127.0.0.1", "--webui-port", "0", "--work-dir", str(folder / f"worker-{number}")]
        daemons.append([f"{deploy}.worker.Worker", *own, "--cores", "1", "--memory", "1500m", master])
    running = list[subprocess.Popen[bytes]]()
    try:
        for daemon in daemons:
            with (folder / f"daemon-{len(running)}.log").open("w") as log:
                command = [str(SPARK_HOME / "bin" / "spark-class"), *daemon]
                running.append(subprocess.Popen(command, cwd=folder, env=bare(folder), stdout=log, stderr=log))
        wait_for_workers(page)
        yield Cluster(master, folder, packed, driver)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def wait_for_workers(page: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/") as answer:
                if json.load(answer)["aliveworkers"] == WORKERS:
                    return
        except OSError:
            pass  # not yet listening
        time.sleep(0.5)
    raise TimeoutError(f"{WORKERS} workers did not register within 60 s")


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def imported_from(spark: Cluster, folder: Path) -> list[str]:
    """Where executors of tables, and the driver, find our code: in the package, unpacked, and nowhere else."""
    probe = folder / "probe.py"
    probe.write_text(PROBE, encoding="utf-8")
    done = spark.submit("etl", probe)
    assert done.returncode == DONE, done.stderr
    seen = [line.split() for line in done.stdout.splitlines()]
    for *paths, torch in seen:
        assert torch == "False" and all(path.startswith(f"{spark.folder}/worker-") for path in paths), done.stdout
    return sorted({path.partition("/environment/")[2] for line in seen for path in line[:2]})


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--package", type=Path, help="the folder that ./build.sh package made; without it, one is made")
    given = options.parse_args().package
    folder, seconds = ROOT / "var" / "reliability" / "cluster_night", dict[str, int]()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "driver").mkdir(parents=True)

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        seconds[name] = round(time.monotonic() - began)
        print(f"{name}: {seconds[name]} s", file=sys.stderr, flush=True)

    def here(*asked: str) -> None:
        code, told = local.run("nightly", *asked)
        assert code == DONE, told

    packed, driver = (given or folder / "package").resolve(), folder / "driver"
    if not given:
        timed("packing", lambda: package(packed, PYTHON_HERE))
    unpack = ["tar", "-xzf", str(packed / "environment-training.tar.gz"), "-C", str(driver)]
    timed("unpacking for the driver", lambda: subprocess.run(unpack, check=True))
    local, etl = place(folder / "local", "tiny", **UNPACKING), ",".join(stage.name for stage in ETL)
    rest = ",".join(stage.name for stage in STAGES if stage not in ETL)
    timed("simulation", lambda: local.run("simulate"))
    timed("days 1 to 6 here", lambda: here("--from", day(1), "--to", day(6), "--only", etl))
    on_cluster = {}
    for name in ("one application", "two applications"):
        copied(local, folder / name.replace(" ", "_"))
        tiny = str(driver / SITE / "conf" / "tiny")  # the package's own, so that the checkout's is not read either
        on_cluster[name] = place(folder / name.replace(" ", "_"), tiny, landing=Path(local.conf.landing), **UNPACKING)
    timed("night here", lambda: here("--day", day(7)))

    with cluster(folder / "cluster", packed, driver) as spark:
        code_from = imported_from(spark, folder)
        refused = spark.submit("training", packed / "main.py", "nightly", mode="cluster")
        one, two = on_cluster.values()
        timed("night on the cluster", lambda: spark.night("training", one))
        timed("its tables, without torch", lambda: spark.night("etl", two, "--only", etl, "--run-id", "two"))
        timed("its rest", lambda: spark.night("training", two, "--only", rest, "--run-id", "two"))

    session = start(local.conf.spark, "cluster night")
    try:
        wanted = local.hashes(session, "runs")
        same = {name: where.hashes(session, "runs") == wanted for name, where in on_cluster.items()}
    finally:
        session.stop()
    told = {
        "check": "cluster_night",
        "same_tables": same,
        "executors_import": code_from,
        "cluster_mode": next((line for line in refused.stderr.splitlines() if "deploy mode" in line), refused.stderr[-500:]),
        "mib": {file.name: round(file.stat().st_size / 2**20) for file in sorted(packed.glob("environment-*.tar.gz"))},
        "seconds": seconds,
    }
    print(json.dumps(told))
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
