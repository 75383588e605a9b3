"""examples of the training window -> a feature template as a person would write it, with the reason for each choice.

spark-submit jobs/profile_features.py --conf-file conf/demo.yaml --day 2026-05-15 [--out conf/demo_template.yaml] [--draft]

Writes `--out`, or `<workdir>/profiles/<day>/template.yaml`. A file that is there keeps every line that stands in it: new columns come to its
end, and what would be proposed otherwise now is printed. Without one, the differences are those to the template in use. Columns that look as
if they knew the engagement are named on stderr and in the file. `--draft` reads no examples: it adds, in draft, the columns that sources and
history could give and no table holds yet.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyspark.sql import SparkSession

from conf.load import template_of
from conf.schema import Conf
from conf.template import Template
from conf.template_text import added_to, template_text
from etl import schemas
from etl.description import Described
from etl.differences import differences, new_in
from etl.drafts import drafts, uncounted, unheld
from etl.grouping import fitted, grouped
from etl.landing import InputMissing
from etl.leaks import suspicions
from etl.profile import described
from etl.proposal import Proposal, propose
from etl.session import start
from etl.splits import Night
from etl.tables import pin, read_days, table_stands
from jobs.common import DONE, conf_of, day_option, main, parser, write_whole
from jobs.progress import Progress

FAMILIES = ("user", "ad", "history", "context", "serving")


def run(argv: Sequence[str] | None) -> int:
    arguments = options().parse_args(argv)
    conf = conf_of(arguments)
    night = Night.of(arguments.day, conf)
    out = arguments.out or Path(conf.workdir).resolve() / "profiles" / night.day.isoformat() / "template.yaml"
    spark = start(conf.spark, f"adtower {conf.name} profile_features")
    try:
        write_template(spark, conf, night, out, arguments.draft)
    finally:
        spark.stop()
    return DONE


def options() -> argparse.ArgumentParser:
    given = parser((__doc__ or "").splitlines()[0])
    given.add_argument("--day", type=day_option, required=True, help="the night whose training window is read, such as 2026-05-15 (UTC)")
    given.add_argument("--out", type=Path, help="template file to write, or to add to; <workdir>/profiles/<day>/template.yaml without")
    given.add_argument("--draft", action="store_true", help="add the columns that no table holds yet, with the type of their expression")
    return given


def write_template(spark: SparkSession, conf: Conf, night: Night, out: Path, draft: bool = False) -> None:
    """Write the file, or add to it; print what it now holds and where it differs from what would be proposed."""
    text = out.read_text(encoding="utf-8") if out.exists() else None
    standing = conf.template if text is None else template_of(out, text)
    columns = [] if draft else profiled(spark, conf, night)
    proposals = (
        [*standing_proposals(standing), *drafts(spark, conf, night.train_from, night.day)]
        if draft
        else grouped(list(map(propose, columns)), columns)
    )
    warnings = {column.column: suspicions(column) for column in columns}
    made = in_order(conf, night, proposals, warnings) if text is None else with_new(text, standing, proposals, warnings)
    template = template_of(out, made)
    write_whole(out, made)
    tell(conf, proposals, warnings)
    print(f"{out}: {len(template.features)} features, {len(template.left_out)} columns left out")
    against = "the template in use" if text is None else "what stood there"
    lines = list(differences(standing, proposals))
    print("\n".join([f"differs from {against}:", *lines]) if lines else f"no difference from {against}")


def profiled(spark: SparkSession, conf: Conf, night: Night) -> list[Described]:
    """The columns of one version of `examples` over the night's training window; InputMissing where it holds no rows."""
    progress, begun, table = Progress(spark, 1), time.monotonic(), schemas.examples(conf)
    first, last = night.train_from, night.train_to
    with progress.stage("profile_features"):
        columns = []
        if table_stands(spark, conf.workdir, table):
            version = pin(spark, conf.workdir, table).version
            columns = described(read_days(spark, conf.workdir, table, first, last, version), conf)
    if not columns:
        raise InputMissing(
            f"no examples of {first} to {last}, the training window of the night of {night.day}. Build them with `python jobs/nightly.py "
            f"--conf-file ... --from FIRST --to {night.day} --only ingest,build_examples`, FIRST being a day of the window that has logs"
            + ("; before that, --draft names the columns that no table holds yet" if unheld(conf) else "")
        )
    told = f"{columns[0].rows:,} examples of {first} to {last}, {len(columns)} columns"
    progress.line("profile_features", "done", time.monotonic() - begun, told)
    return columns


def standing_proposals(template: Template) -> list[Proposal]:
    left_out = [Proposal(column, None, why) for column, why in template.left_out.items()]
    return [*(Proposal(feature.column, feature, feature.reason) for feature in template.features), *left_out]


def in_order(conf: Conf, night: Night, proposals: Sequence[Proposal], warnings: Mapping[str, Sequence[str]]) -> str:
    """A whole new file: by family, in the order of the profile."""
    header = f"How the model could read the columns of {conf.name}, and why: proposed by profile_features for the night of {night.day}. Review it."
    features = sorted((made.feature for made in proposals if made.feature), key=lambda feature: FAMILIES.index(feature.family))
    return template_text(header, features, {made.column: made.reason for made in proposals if not made.feature}, warnings)


def with_new(text: str, standing: Template, proposals: Sequence[Proposal], warnings: Mapping[str, Sequence[str]]) -> str:
    """The file's own lines, and after them what it says nothing of yet."""
    new = fitted(new_in(proposals, standing), proposals, standing)
    features = [made.feature for made in new if made.feature]
    return added_to(text, features, {made.column: made.reason for made in new if not made.feature}, warnings)


def tell(conf: Conf, proposals: Sequence[Proposal], warnings: Mapping[str, Sequence[str]]) -> None:
    """On stderr: suspicions, and what no table holds."""
    for column, found in warnings.items():
        for warning in found:
            print(f"WARNING {column}: {warning}", file=sys.stderr)
    known = {made.column for made in proposals}
    held_nowhere = [f"{column} of sources.{block}" for block, columns in unheld(conf).items() for column in columns if column not in known]
    possible = [column for column in uncounted(conf) if column not in known]
    if possible:
        held_nowhere.append(f"{len(possible)} more rates and counts of history")
    if held_nowhere:
        print(f"not looked at, since no table holds them; --draft adds them: {', '.join(held_nowhere)}", file=sys.stderr)


if __name__ == "__main__":
    main(run)
