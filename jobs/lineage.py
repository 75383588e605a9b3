"""OpenLineage events of a stage, appended to the file that `tracking.openlineage` names: what it read (landing files by their pattern, tables
with their versions) and what it made.

START once it has work to do, then COMPLETE or FAIL (ABORT: nothing to do yet); a stage that is skipped tells nothing. The only file that imports
OpenLineage, which comes with adtower[lineage], and only where the knob is set.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from conf.schema import Conf
from etl.commits import Committed
from etl.contents import TABLE_DAY
from etl.landing import pattern
from etl.splits import end_of, start_of
from etl.tables import table_path

PRODUCER = "urn:adtower"
STATES = {"done": "COMPLETE", "failed": "FAIL", "skipped": "ABORT"}
OURS = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)


class Lineage:
    """One stage of one run."""

    def __init__(self, conf: Conf, run_id: str, day: date, stage: str) -> None:
        self.conf, self.run_id, self.day, self.stage = conf, run_id, day, stage
        self.of_stage = ""  # the id of this run of the stage, once it has begun
        self.inputs: list[Any] = []

    def started(self, inputs: Mapping[str, str], versions: Mapping[str, int]) -> None:
        """`inputs`: names of what the stage depends on; `versions`: newest version by table."""
        if not self.conf.tracking.openlineage:
            return
        from openlineage.client.event_v2 import InputDataset

        self.of_stage = str(uuid.uuid4())
        read = sorted({table for name in inputs if (table := table_of(name)) in versions})
        self.inputs = [InputDataset("file", landed) for landed in landed_as(self.conf, inputs)]
        self.inputs += [InputDataset("file", self._path(table), facets=self._version(versions[table])) for table in read]
        self._emit("START", [], "")

    def ended(self, status: str, made: Mapping[str, Committed], message: str) -> None:
        if not self.of_stage:
            return
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset

        outputs = [
            OutputDataset(
                "file",
                self._path(table),
                facets=self._version(of.version),
                outputFacets={
                    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                        size=of.bytes_added, fileCount=of.files_added
                    )
                },
            )
            for table, of in made.items()
            if table != "runs"
        ]
        self._emit(STATES[status], outputs, message)

    def _path(self, table: str) -> str:
        return table_path(self.conf.workdir, table)

    def _version(self, version: int) -> dict[str, Any]:
        from openlineage.client.facet_v2 import dataset_version_dataset

        return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))}

    def _emit(self, state: str, outputs: Iterable[Any], message: str) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run, nominal_time_run, parent_run
        from openlineage.client.transport.file import FileConfig, FileTransport

        jobs = f"adtower.{self.conf.name}"
        facets: dict[str, Any] = {
            "nominalTime": nominal_time_run.NominalTimeRunFacet(start_of(self.day).isoformat(), end_of(self.day).isoformat()),
            "parent": parent_run.ParentRunFacet(
                parent_run.Run(str(uuid.uuid5(OURS, f"{self.run_id} {self.day}"))), parent_run.Job(jobs, "night")
            ),
        }
        if state == "FAIL":
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message, "PYTHON")
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=RunState[state],
            run=Run(self.of_stage, facets),
            job=Job(jobs, self.stage),
            inputs=self.inputs,
            outputs=list(outputs),
            producer=PRODUCER,
        )
        FileTransport(FileConfig(self.conf.tracking.openlineage, append=True)).emit(event)


def landed_as(conf: Conf, inputs: Iterable[str]) -> list[str]:
    """The file patterns, `{day}` and all, of the source blocks that ingest reads: it names an input by block, first and last day."""
    blocks = dict.fromkeys(name.partition(" ")[0] for name in inputs)
    return [pattern(conf, conf.sources[block]) for block in blocks if block in conf.sources]


def table_of(name: str) -> str:
    """The table of an input such as examples/2026-05-14 or served@model/2026-05-14; empty for anything else."""
    found = TABLE_DAY.match(name)
    return found[1] if found else ""
