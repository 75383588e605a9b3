"""Great Expectations, quiet: a context in memory whose only files are its Data Docs, and checkpoints on small frames of the driver.

Spark has counted before (counting.py): what is judged here is one number a check and day, so that no expectation reads a table again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from validation.checks import Check

SITE = "local"
DOCS_KEPT = 5
RESULT_FORMAT = {"result_format": "BASIC"}  # each unexpected number of the small frames, without an index of them


class Checkpoints:
    """Checkpoints of one run. Their Data Docs go to `docs_dir`."""

    def __init__(self, docs_dir: Path, run_name: str) -> None:
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        self._docs_dir = docs_dir
        # With its time: GX would else read one out of the name, and a run 20260507-095009-6337ad has an offset of 63 hours.
        self._run = RunIdentifier(run_name=run_name, run_time=datetime.now(UTC))
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

    def judge_schema(self, table: str, found: Mapping[str, str], needed: Mapping[str, str]) -> bool:
        """Whether the columns are the needed ones, in their order and with their types (both: column -> type)."""
        names = [f"{column}: {kind}" for column, kind in found.items()]
        described = "the columns of etl/schemas.py with their types, in their order"
        wanted = [f"{column}: {kind}" for column, kind in needed.items()]
        asked = gxe.ExpectTableColumnsToMatchOrderedList(
            column_list=wanted, severity=FailureSeverity.CRITICAL, description=described, meta={"check": "schema"}
        )
        (result,) = self._judge(f"{table}_schema", pd.DataFrame([[""] * len(names)], columns=names), [asked])
        return bool(result.success)

    def judge(self, table: str, checks: Sequence[Check]) -> dict[str, tuple[bool, str]]:
        """Label of each check -> whether it holds, and why it could not be evaluated ("" if it was). One without numbers holds."""
        with_numbers = [check for check in checks if check.numbers]
        verdicts = {check.label: (True, "") for check in checks}
        if with_numbers:
            days = sorted({day for check in with_numbers for day in check.numbers})
            numbers = {check.label: [check.numbers.get(day) for day in days] for check in with_numbers}
            frame = pd.DataFrame(numbers, dtype="float64").assign(day=days)
            for result in self._judge(f"{table}_by_day", frame, [_expectation(check) for check in with_numbers]):
                assert result.expectation_config is not None
                meta: Mapping[str, str] = result.expectation_config.meta or {}
                verdicts[meta["check"]] = (bool(result.success), exception_message(result))
        return verdicts

    def _judge(self, name: str, frame: pd.DataFrame, expectations: Sequence[Expectation]) -> list[ExpectationValidationResult]:
        """Run a checkpoint named `name` (once a run) on the frame."""
        source = self._context.data_sources.add_pandas(name)
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
        definition = self._context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format=RESULT_FORMAT)
        outcome = self._context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame}, run_id=self._run)
        return [result for validation in outcome.run_results.values() for result in validation.results]

    def build_docs(self) -> str:
        """Write the Data Docs of every checkpoint run so far; the path of their index."""
        self._context.build_data_docs([SITE])
        _drop_unnamed(self._docs_dir)
        return str(self._docs_dir / "index.html")


def _drop_unnamed(site: Path) -> None:
    """Remove the pictures, fonts and styles that no page names: nearly all of the 4 MB of them that GX puts into every site."""
    pages = "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    for file in (site / "static").rglob("*"):
        if file.is_file() and file.name not in pages:
            file.unlink()


def prune_docs(folder: Path) -> None:
    """Remove the Data Docs of old runs: of the folders that hold an index.html, or folders with one, the newest DOCS_KEPT stay."""
    runs = {path: _written(path) for path in folder.iterdir() if not path.is_symlink() and _written(path)}
    for old in sorted(runs, key=runs.__getitem__)[:-DOCS_KEPT]:
        shutil.rmtree(old)


def _written(run: Path) -> int:
    """When the newest index of a run's Data Docs was written (ns since 1970); 0 without one."""
    return max((page.stat().st_mtime_ns for page in (run / "index.html", *run.glob("*/index.html")) if page.is_file()), default=0)


def _expectation(check: Check) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=check.label,
        min_value=check.low,
        max_value=check.high,
        severity=FailureSeverity(check.severity),
        description=f"{check.column}, {check.bounds}{' that break this' if check.broken else ''}: {check.why}",
        meta={"check": check.label},
    )


def exception_message(result: ExpectationValidationResult) -> str:
    """Why an expectation could not be evaluated, "" if it was. GX reports it as an ordinary failure, flat or once a metric."""
    info: dict[str, Any] = result.exception_info or {}
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    return "; ".join(dict.fromkeys(str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")))
