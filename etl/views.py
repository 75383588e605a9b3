"""Views for readers: SQL that makes them in Spark or in DuckDB, over one version of each table.

A view is bound to the versions that were current when the SQL was written, so a reader sees the scores of one whole day, whatever is being
written meanwhile. `<workdir>/views/spark.sql` and `duckdb.sql` are written anew by each night once its scores are published, and replaced
whole. DuckDB reads a version's Parquet files by name: Delta's log is not needed.

  scores_current         the published day's scores
  scores_daily_summary   day, source, tower, campaign: rows, and sums and means of what they were predicted; published days alone
  calibration_bins       reliability diagrams of the models that served, before and after calibration
  calibration_changes    held-out day, head, source, tower: ratio and normalised entropy of the model that served, beside a day and a week before
  drift_daily            night, table, feature: population stability index and share of unseen values, with the limits they were held to
  run_log                every stage of every run
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pyspark.sql import SparkSession

from conf.schema import Conf
from etl import schemas
from etl.tables import pin, read

Engine = Literal["spark", "duckdb"]
ENGINES: tuple[Engine, ...] = ("spark", "duckdb")
FINDING = {
    "table": "VARCHAR",
    "column": "VARCHAR",
    "expectation": "VARCHAR",
    "number": "DOUBLE",
    "limit": "DOUBLE",
    "success": "BOOLEAN",
}


def view_queries(conf: Conf, tables: Mapping[str, str], engine: Engine) -> dict[str, str]:
    """View -> its SELECT. `tables`: what stands for each table after FROM."""
    heads = list(conf.heads)
    sums = ", ".join(f"sum(expected_{head}) AS expected_{head}" for head in heads)
    means = ", ".join(f"avg(p_{head}) AS p_{head}" for head in heads)
    published = f"(SELECT scored_day FROM {tables['publications']} WHERE what = 'scores')"
    served = f"(SELECT day, model FROM {tables['publications']} WHERE what = 'model')"
    return {
        "scores_current": f"SELECT * FROM {tables['scores']} WHERE day = (SELECT max(scored_day) FROM {published})",
        "scores_daily_summary": "SELECT day, source, tower, campaign_id, count(*) AS rows, sum(expected_impressions) AS expected_impressions, "
        f"{sums}, {means}, avg(utility) AS utility\nFROM {tables['scores']} WHERE day IN {published} GROUP BY day, source, tower, campaign_id",
        "calibration_bins": "SELECT c.day, c.measured_day, c.model, c.head, c.tower, c.stage, c.bin, c.rows, c.predicted, c.observed\n"
        f"FROM {tables['calibration_daily']} AS c JOIN {served} AS s ON s.day = c.day AND s.model = c.model",
        "calibration_changes": _changes(tables["metrics"], served),
        "drift_daily": _drift(tables["runs"], engine),
        "run_log": f"SELECT day, run_id, stage, status, as_of, started_at, seconds, message FROM {tables['runs']}",
    }


def _changes(metrics: str, served: str) -> str:
    """A day or a week before: null where no night measured that day."""
    earlier = {"day_before": 1, "week_before": 7}
    then = ", ".join(f"{at}.{figure} AS {figure}_{at}" for figure in ("ratio", "ne") for at in earlier)
    joins = "".join(
        f"\nLEFT JOIN measured AS {at} ON {at}.measured_day = m.measured_day - INTERVAL '{days}' DAY "
        + " ".join(f"AND {at}.{key} = m.{key}" for key in ("head", "source", "tower"))
        for at, days in earlier.items()
    )
    return (
        f"WITH measured AS (SELECT c.* FROM {metrics} AS c JOIN {served} AS s ON s.day = c.day AND s.model = c.model WHERE c.stage = 'calibrated')\n"
        f"SELECT m.day, m.measured_day, m.model, m.head, m.source, m.tower, m.rows, m.positives, m.ratio, m.ne, {then}\nFROM measured AS m{joins}"
    )


def _drift(runs: str, engine: Engine) -> str:
    """From what gates found, as the ledger keeps it; of a night that ran twice, the last that passed."""
    if engine == "spark":
        kind = f"array<struct<{','.join(f'`{name}`:{of}' for name, of in FINDING.items())}>>".replace("VARCHAR", "string")
        unfolded = f"inline(from_json(get_json_object(counts, '$.findings'), '{kind}'))"
    else:
        fields = ", ".join(f'"{name}": "{of}"' for name, of in FINDING.items())
        unfolded = f"unnest(from_json(json_extract(counts, '$.findings'), '[{{{fields}}}]'), recursive := true)"
    quote = "`" if engine == "spark" else '"'
    table, column, limit = (f"{quote}{name}{quote}" for name in ("table", "column", "limit"))
    newest = (
        f"SELECT day, stage, counts FROM (SELECT *, row_number() OVER (PARTITION BY day, stage ORDER BY started_at DESC) AS place\n"
        f"  FROM {runs} WHERE status = 'done' AND counts LIKE '%\"findings\"%') AS r WHERE place = 1"
    )
    of = {"psi": ("psi", "psi_limit"), "unseen": ("unseen_share", "unseen_limit")}
    asked = ", ".join(
        f"max(CASE WHEN expectation = '{name}' THEN {value} END) AS {alias}"
        for name, aliases in of.items()
        for value, alias in zip(("number", limit), aliases, strict=True)
    )
    return (
        f"SELECT day, stage, {table}, {column} AS feature, {asked}, min(CAST(success AS INT)) = 1 AS holds\n"
        f"FROM (SELECT day, stage, {unfolded} FROM ({newest}) AS n) AS f WHERE expectation IN ('psi', 'unseen') AND number IS NOT NULL\n"
        f"GROUP BY day, stage, {table}, {column}"
    )


def views_sql(spark: SparkSession, conf: Conf, engine: Engine) -> str:
    """Statements that make the views, over the tables' versions as they are now."""
    queries = view_queries(conf, sources_now(spark, conf, engine), engine)
    kind = "TEMPORARY VIEW" if engine == "spark" else "VIEW"
    return "".join(f"CREATE OR REPLACE {kind} {name} AS\n{query};\n\n" for name, query in queries.items())


def sources_now(spark: SparkSession, conf: Conf, engine: Engine) -> dict[str, str]:
    """Table -> what stands for its current version after FROM. What is current is read first: it is written last."""
    found = {}
    for table in (schemas.PUBLICATIONS, schemas.scores(conf), schemas.METRICS, schemas.CALIBRATION_DAILY, schemas.RUNS):
        pinned = pin(spark, conf.workdir, table)
        names = ", ".join(_quoted(field.name, engine) for field in table.columns)
        if engine == "spark":
            path = f"{pinned.path}@v{pinned.version}".replace("`", "``")
            found[table.name] = f"(SELECT {names} FROM delta.`{path}`)"
        else:
            found[table.name] = f"(SELECT {names} FROM {_parquet(spark, conf, table, pinned.version)})"
    return found


def _parquet(spark: SparkSession, conf: Conf, table: schemas.Table, version: int) -> str:
    files = sorted(read(spark, conf.workdir, table, version).inputFiles())
    if not files:  # DuckDB reads no list without a file
        kinds = {field.name: field.dataType.simpleString().replace("array<string>", "VARCHAR[]") for field in table.columns}
        nothing = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name, 'duckdb')}" for name, kind in kinds.items())
        return f"(SELECT {nothing}) AS nothing WHERE false"
    listed = ", ".join("'" + file.removeprefix("file://").replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"


def _quoted(name: str, engine: Engine) -> str:
    return f"`{name}`" if engine == "spark" else f'"{name}"'


def make_views(spark: SparkSession, sql: str) -> None:
    """Run the statements of spark.sql in this session."""
    for statement in sql.split(";\n\n"):
        if statement.strip():
            spark.sql(statement)


def dictionary(conf: Conf, *names: str) -> str:
    """The data dictionary in Markdown, of the tables `names` or of all: columns with types and comments, from what the tables are made by."""
    lines = [f"# Tables of {conf.name}", "", "All clocks are UTC. A key is unique within its table."]
    for table in (table for name, table in schemas.all_tables(conf).items() if name in names or not names):
        lines += ["", f"## {table.name}", "", f"Key: {', '.join(table.key)}. Partitioned by {', '.join(table.partitions)}.", ""]
        if table.checks:
            lines += ["Checked at every write: " + "; ".join(f"`{expression}`" for _, expression in table.checks) + ".", ""]
        lines += ["| column | type | null | what it is |", "|---|---|---|---|"]
        for field in table.columns:
            comment = str(field.metadata.get("comment", "")).replace("|", "\\|")
            lines.append(f"| {field.name} | {field.dataType.simpleString()} | {'yes' if field.nullable else 'no'} | {comment} |")
    return "\n".join(lines) + "\n"
