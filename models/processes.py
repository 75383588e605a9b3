"""Ranks as processes of this machine: started by Horovod's own launcher, or one by one for torch.distributed; none outlives the call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from conf.training import Training
from models.distributed import nccl_built
from models.errors import SlotsMissing
from models.local_rank import answer, ask
from models.rank_voices import Ears, Heard, Relay
from models.rank_watch import LAST_SECONDS, ended_together, loopback, rank_environment, threads_here, why

#: What of the environment a rank needs. Horovod's launcher writes it on a command line, where every user of the machine could read the rest.
NEEDED = (
    *("PATH", "HOME", "USER", "LANG", "LC_", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHON"),
    *("ADTOWER_", "OMP_", "MKL_", "HOROVOD_", "CUDA_", "NCCL_", "GLOO_"),
)


def run_here(training: Training, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """`training.ranks` processes that talk over loopback alone; rank 0's result. `work` must be importable by name and declare its types."""
    slots = _require_slots(training)
    heard, processes = Heard(), list[subprocess.Popen[str]]()
    ears = Ears("127.0.0.1", heard)
    with tempfile.TemporaryDirectory(prefix="adtower-ranks-") as folder:
        try:
            rank = [sys.executable, "-m", "models.local_rank", str(ask(Path(folder), training, work, args, ears))]
            environment = os.environ | rank_environment(training, threads_here(slots, training.ranks))
            with ended_together(heard, training.stall_shutdown_seconds, lambda: _end(processes)):
                start = _by_horovodrun if training.backend == "horovodrun" else _one_by_one
                start(training, rank, environment, processes)
                _wait(processes, heard, training)
            return answer(Path(folder), work)
        except Exception as error:
            raise why(heard, training, error) from error
        finally:
            _end(processes)
            ears.close()


def _require_slots(training: Training) -> int:
    gpus = torch.cuda.device_count()
    if gpus and training.backend == "horovodrun" and not nccl_built():
        gpus = 0
    slots, kind = (gpus, "GPUs") if gpus else (len(os.sched_getaffinity(0)), "CPUs")
    if slots < training.ranks:
        raise SlotsMissing(
            f"training.ranks is {training.ranks}, and training.backend {training.backend} has the {slots} {kind} of this machine; set "
            f"training.ranks to {slots} or fewer"
        )
    return len(os.sched_getaffinity(0))


def _by_horovodrun(training: Training, rank: list[str], environment: dict[str, str], processes: list[subprocess.Popen[str]]) -> None:
    launcher = [sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", str(training.ranks), "-H", f"localhost:{training.ranks}"]
    launcher += ["--disable-cache", "--start-timeout", str(training.start_timeout_seconds), "--network-interfaces", loopback()[0]]
    needed = {name: value for name, value in environment.items() if name.startswith(NEEDED)}
    processes.append(_process([*launcher, *rank], needed))


def _one_by_one(training: Training, rank: list[str], environment: dict[str, str], processes: list[subprocess.Popen[str]]) -> None:
    talk = {"GLOO_SOCKET_IFNAME": loopback()[0], "NCCL_SOCKET_IFNAME": loopback()[0]}
    for number in range(training.ranks):
        of_rank = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(training.ranks)}
        processes.append(_process(rank, environment | talk | of_rank))


def _process(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Its output goes to this process's stderr, as whole lines."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # an interrupt at the terminal is for this process, which ends the ranks
    )
    threading.Thread(target=_relay, args=(process,), name="relay", daemon=True).start()
    return process


def _relay(process: subprocess.Popen[str]) -> None:
    relay = Relay()
    for line in process.stdout or ():
        relay.write(line)


def _wait(processes: Sequence[subprocess.Popen[str]], heard: Heard, training: Training) -> None:
    """Until all have ended well; else an error, as soon as it is known why."""
    begun, failed_at = time.monotonic(), 0.0
    while True:
        codes, now = [process.poll() for process in processes], time.monotonic()
        if all(code == 0 for code in codes):
            return
        if any(codes):
            failed_at = failed_at or now
            if heard.cause() or heard.lost or heard.stopped or now - failed_at > LAST_SECONDS:
                raise RuntimeError(f"exit code {next(filter(None, codes))}")
        if now - begun > training.start_timeout_seconds and len(heard.hosts) < training.ranks:
            raise RuntimeError(f"{len(heard.hosts)} of {training.ranks} ranks started within {training.start_timeout_seconds} s")
        time.sleep(0.05)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Kill what is left, with all children: Horovod's launcher gives each rank a session of its own."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(process.pid)
            for one in (launcher, *launcher.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()
