"""A Great Expectations checkpoint on `examples`, and the row account: a critical failure stops the night. A stage of jobs/nightly.py."""

from __future__ import annotations

from dataclasses import asdict

from etl import schemas
from etl.tables import read_days
from jobs.build_examples import bounds
from jobs.common import VALIDATION, NotYet, Outcome, Run, Stage, StageFailed
from validation.findings import GateFailed
from validation.gate import check_account, check_examples, check_quarantine


def inputs(run: Run) -> dict[str, str]:
    first, last = bounds(run)
    return run.contents.of_days("examples", first, last)


def work(run: Run) -> Outcome:
    first, last = bounds(run)
    if first > last:
        raise NotYet("a later night built these days")
    conf = run.conf
    examples = read_days(run.spark, conf.workdir, schemas.examples(conf), first, last)
    docs = run.run_dir / "data_docs"
    report = check_examples(examples, conf, docs, first=first, last=last, mature_to=run.night.held_out)
    account = run.counts_of("ingest").get("account", [])
    report = report.with_findings([*check_account(account), *check_quarantine(account, conf.gate.max_quarantined_share)])
    counts = {"findings": [asdict(finding) for finding in report.findings], "docs": report.docs}
    try:
        report.raise_if_failed()
    except GateFailed as error:
        raise StageFailed(str(error), VALIDATION, counts) from error
    passed, warned = len(report.findings), len(report.failed_warnings)
    return Outcome((), counts, f"{passed - warned} of {passed} expectations hold, {warned} warnings")


STAGE = Stage(
    name="gate",
    packages=("etl", "validation"),
    reads=lambda conf: [conf.model_dump(mode="json", include={"heads", "clock", "template", "gate"})],
    inputs=inputs,
    work=work,
)
