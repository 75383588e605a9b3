"""A rank of this machine: `python -m models.local_rank TASK.json`, started by models/processes.py.

What it is asked to do and what it answers are JSON, by the types that the work declares; no function and no object is shipped.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from conf.training import Training
from models.collectives import TorchCollective
from models.distributed import join_horovod
from models.rank import as_rank
from models.rank_voices import Ears, Voice

TASK, ANSWER, MEETING = "task.json", "answer.json", "meeting"


def ask(folder: Path, training: Training, work: Callable[..., Any], args: tuple[Any, ...], ears: Ears) -> Path:
    """Write the task of every rank; `work` must be importable by name. `folder` holds the key of `ears`, so it must be private."""
    asked = [TypeAdapter(kind).dump_python(value, mode="json") for kind, value in zip(_types_of(work)[:-1], args, strict=True)]
    task = {
        "work": [work.__module__, work.__name__],
        "args": asked,
        "backend": training.backend,
        "patience_seconds": training.stall_shutdown_seconds,
        "port": ears.port,
        "key": ears.key.hex(),
    }
    path = folder / TASK
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


def answer(folder: Path, work: Callable[..., Any]) -> Any:
    """What rank 0 returned."""
    return TypeAdapter(_types_of(work)[-1]).validate_json((folder / ANSWER).read_bytes())


def _types_of(work: Callable[..., Any]) -> list[Any]:
    """Of its arguments after the collective, and of its result."""
    hints = get_type_hints(work)
    return [hints[name] for name in [*list(inspect.signature(work).parameters)[1:], "return"]]


def main(path: Path) -> None:
    task = json.loads(path.read_text(encoding="utf-8"))
    module, name = task["work"]
    work = getattr(importlib.import_module(module), name)
    horovod = task["backend"] == "horovodrun"
    rank = int(os.environ["HOROVOD_RANK" if horovod else "RANK"])
    patience = timedelta(seconds=task["patience_seconds"])
    join = join_horovod if horovod else partial(_join_torch, rank, path.parent / MEETING, patience)
    voice = Voice(rank, ("127.0.0.1", task["port"]), bytes.fromhex(task["key"]))
    threading.Thread(target=_end_with, args=(voice,), name="end with the starting process", daemon=True).start()
    *kinds, kind = _types_of(work)
    args = tuple(TypeAdapter(of).validate_python(value) for of, value in zip(kinds, task["args"], strict=True))
    result = as_rank(voice, join, work, args)
    if rank == 0:
        (path.parent / ANSWER).write_bytes(TypeAdapter(kind).dump_json(result))
    sys.stdout.flush()
    # Out at once: a thread of torch's that wants the interpreter while it is being taken down aborts the process (pytorch issue 38228), which
    # in 1 of 40 trainings on busy cores made a good one fail.
    os._exit(0)


def _join_torch(rank: int, meeting: Path, patience: timedelta) -> TorchCollective:
    return TorchCollective(rank, int(os.environ["WORLD_SIZE"]), meeting, patience)


def _end_with(voice: Voice) -> None:
    voice.beats.join()  # ends once nobody listens any more
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
