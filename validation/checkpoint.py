"""Great Expectations, quiet: an ephemeral context whose only files are its Data Docs, and checkpoints on frames that the caller holds."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context import AbstractDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from pyspark.sql import DataFrame

SITE = "local"
# COMPLETE names every unexpected day of the small frame and up to 200 rows of a query. It is not for map expectations on
# large frames: their index lists have no bound and are collected to the driver.
RESULT_FORMAT = {"result_format": "COMPLETE"}


def context(docs_dir: Path) -> AbstractDataContext:
    """A context that lives in memory; its Data Docs go to `docs_dir`, where those of an earlier run are removed."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    made = gx.get_context(mode="ephemeral")
    made.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for name in list(made.list_data_docs_sites()):
        made.delete_data_docs_site(name)
    made.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.resolve())},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    if docs_dir.is_dir():
        made.clean_data_docs(SITE)
    return made


def judge(made: AbstractDataContext, name: str, frame: DataFrame | pd.DataFrame, expectations: Sequence[Expectation]) -> list[ExpectationValidationResult]:
    """Run a checkpoint named `name` (unique in the context) on the frame. The frame's caching is the caller's."""
    if isinstance(frame, pd.DataFrame):
        asset = made.data_sources.add_pandas(name).add_dataframe_asset(name)
    else:
        asset = made.data_sources.add_spark(name, persist=False).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name)
    suite = made.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    definition = made.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = made.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition], result_format=RESULT_FORMAT))
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    return [result for validation in outcome.run_results.values() for result in validation.results]


def build_docs(made: AbstractDataContext, docs_dir: Path) -> str:
    """Write the Data Docs of every checkpoint run so far; the path of their index."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.build_data_docs([SITE])
    return str(docs_dir / "index.html")


def exception_message(result: ExpectationValidationResult) -> str:
    """Why an expectation could not be evaluated, "" if it was. GX reports it as an ordinary failure, flat or once a metric."""
    info: dict[str, Any] = result.exception_info or {}
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    return "; ".join(dict.fromkeys(str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")))
