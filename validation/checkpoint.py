"""Great Expectations, quiet: a context in memory whose only files are its Data Docs, and checkpoints on frames that the caller holds."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import DataFrame

SITE = "local"
# COMPLETE names every unexpected day of the small frame and up to 200 rows of a query. It is not for map expectations on
# large frames: their index lists have no bound and are collected to the driver.
RESULT_FORMAT = {"result_format": "COMPLETE"}


class Checkpoints:
    """Checkpoints of one run. Their Data Docs go to `docs_dir`, where those of an earlier run are removed."""

    def __init__(self, docs_dir: Path, run_name: str) -> None:
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        self._docs_dir, self._run = docs_dir, RunIdentifier(run_name=run_name)
        site = {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.resolve())},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            data_docs_sites={SITE: site},
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        )
        self._context = gx.get_context(mode="ephemeral", project_config=config)
        for part in ("expectations", "validations"):  # GX's own clean_data_docs leaves them
            shutil.rmtree(docs_dir / part, ignore_errors=True)

    def judge(self, name: str, frame: DataFrame | pd.DataFrame, expectations: Sequence[Expectation]) -> list[ExpectationValidationResult]:
        """Run a checkpoint named `name` (once a run) on the frame, whose caching is the caller's; GX would cache it and never let go."""
        sources = self._context.data_sources
        source = sources.add_pandas(name) if isinstance(frame, pd.DataFrame) else sources.add_spark(name, persist=False)
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
        definition = self._context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format=RESULT_FORMAT)
        outcome = self._context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame}, run_id=self._run)
        if isinstance(frame, DataFrame):
            frame.sparkSession.catalog.dropTempView("tmp_view")  # GX's name for {batch}
        return [result for validation in outcome.run_results.values() for result in validation.results]

    def build_docs(self) -> str:
        """Write the Data Docs of every checkpoint run so far; the path of their index."""
        self._context.build_data_docs([SITE])
        return str(self._docs_dir / "index.html")


def exception_message(result: ExpectationValidationResult) -> str:
    """Why an expectation could not be evaluated, "" if it was. GX reports it as an ordinary failure, flat or once a metric."""
    info: dict[str, Any] = result.exception_info or {}
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    return "; ".join(dict.fromkeys(str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")))
