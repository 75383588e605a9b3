"""The Spark SQL behind the numbers of the night's report: the job runs these, or reads the same rows of the run ledger, and the page shows them.

They run in any session with Delta that sees the working folder: paths are absolute, as Spark takes no others for a table's.
Text in, text out; whatever comes from outside is quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from etl.schemas import ALL
from etl.tables import table_path

NIGHTS = 30  # of metrics and of usual times, tonight among them
QUANTILES = (0.05, 0.5, 0.95)
STEPS = 4  # bins a decade of probability
MOVERS, MOVED_WITHIN = 10, 7  # campaigns shown; days back within which an earlier day of scores is looked for

ACCOUNT = (
    "array<struct<block:string,source:string,day:string,rows_in:bigint,kept:bigint,duplicates:bigint,quarantined:bigint,"
    "late:bigint,not_due:bigint,other_day:bigint>>"
)
FINDINGS = (
    "array<struct<table:string,expectation:string,column:string,severity:string,success:boolean,observed:string,needed:string,"
    "unexpected:bigint,unit:string,sample:array<string>,knob:string,why:string>>"
)
PROFILES = "map<string,map<string,struct<counts:array<bigint>>>>"
HISTOGRAMS = "array<struct<source:string,head:string,bin:int,rows:bigint>>"


@dataclass(frozen=True)
class Asked:
    """What a report asks of: a night and the day that it scores, and the model that is shown ("" without one)."""

    workdir: str
    run_id: str
    day: date
    scored: date
    model: str
    heads: tuple[str, ...]

    def table(self, name: str) -> str:
        return f"delta.`{table_path(self.workdir, name).replace('`', '``')}`"

    @property
    def nights(self) -> str:
        return f"BETWEEN {_day(self.day - timedelta(days=NIGHTS - 1))} AND {_day(self.day)}"


def queries(of: Asked) -> dict[str, str]:
    """Section of the page -> its query."""
    return _of_the_ledger(of) | _of_the_model(of) | _of_the_scores(of)


def _of_the_ledger(of: Asked) -> dict[str, str]:
    runs, tonight = of.table("runs"), f"day = {_day(of.day)}"

    def newest(stage: str) -> str:
        return (
            f"SELECT counts FROM {runs}\n  WHERE {tonight} AND stage = {_text(stage)} AND status = 'done' ORDER BY started_at DESC LIMIT 1"
        )

    def unfolded(stage: str, part: str, kind: str) -> str:
        return f"SELECT inline(from_json(get_json_object(counts, '$.{part}'), '{kind}'))\nFROM ({newest(stage)})"

    return {
        "stages": f"SELECT stage, status, seconds, message, why FROM {runs}\nWHERE {tonight} AND run_id = {_text(of.run_id)} ORDER BY started_at",
        "usual": f"SELECT stage, count(*) AS times, median(seconds) AS seconds FROM {runs}\n"
        f"WHERE day {of.nights} AND status = 'done' AND run_id <> {_text(of.run_id)} GROUP BY stage",
        "account": unfolded("ingest", "account", ACCOUNT),
        "gates": f"SELECT stage, started_at, inline(from_json(get_json_object(counts, '$.findings'), '{FINDINGS}'))\n"
        f"FROM {runs} WHERE {tonight} AND status = 'done' AND counts LIKE '%\"findings\"%'",
        "training": newest("train"),
        "drift": f"SELECT judged_on, day, feature, profile.counts FROM (\n  SELECT day AS judged_on, "
        f"explode(from_json(get_json_object(counts, '$.profiles'), '{PROFILES}')) AS (day, features)\n"
        f"  FROM {runs} WHERE stage = 'gate' AND status = 'done' AND day <= {_day(of.day)})\n"
        "LATERAL VIEW explode(features) AS feature, profile ORDER BY feature, day, judged_on",
        "score_drift": f"SELECT day, get_json_object(counts, '$.scored') AS scored, "
        f"inline(from_json(get_json_object(counts, '$.histogram'), '{HISTOGRAMS}'))\n"
        f"FROM {runs} WHERE stage = 'report' AND status = 'done' AND day <= {_day(of.day)}",
    }


def _of_the_model(of: Asked) -> dict[str, str]:
    mine = f"WHERE day = {_day(of.day)} AND model = {_text(of.model)}"
    metrics = ("rows", "positives", "ratio", "top_ratio", "ne", "auc", "gauc", "brier", "ece", "ece_low", "ece_high", "ece_chance")
    return {
        "decision": f"SELECT model, verdict, reason, production, comparison FROM {of.table('models')}\nWHERE day = {_day(of.day)}",
        "metrics": f"SELECT head, source, tower, stage, {', '.join(metrics)} FROM {of.table('metrics')}\n{mine} ORDER BY head, source, tower, stage",
        "nights": f"SELECT m.day, m.head, m.model, m.rows, m.positives, m.ratio, m.ne, m.auc\n"
        f"FROM {of.table('metrics')} AS m JOIN {of.table('publications')} AS p ON p.day = m.day AND p.model = m.model AND p.what = 'model'\n"
        f"WHERE m.day {of.nights} AND m.source = '{ALL}' AND m.tower = '{ALL}' AND m.stage = 'calibrated' ORDER BY m.day, m.head",
        "reliability": f"SELECT head, tower, stage, bin, rows, predicted, observed FROM {of.table('calibration_daily')}\n"
        f"{mine} ORDER BY head, tower, stage, bin",
        "segments": "SELECT head, tower, `by`, value, rows, positives, predicted_raw, predicted, ratio, ratio_low, ratio_high\n"
        f"FROM {of.table('calibration_segments')}\n{mine} ORDER BY head, tower, `by`, value",
    }


def _of_the_scores(of: Asked) -> dict[str, str]:
    day, table = f"WHERE day = {_day(of.scored)}", of.table("scores")
    quantiles = f"array({', '.join(f'{share:g}D' for share in QUANTILES)})"
    asked = ",\n  ".join(f"avg(p_{head}) AS mean_{head}, percentile_approx(p_{head}, {quantiles}) AS quantiles_{head}" for head in of.heads)
    stacked = ", ".join(f"'{head}', p_{head}" for head in of.heads)
    return {
        "scores": "SELECT source, count(*) AS rows, min(utility) AS low, max(utility) AS high,\n  "
        f"{asked}\nFROM {table} {day} GROUP BY source ORDER BY source",
        "distribution": f"SELECT source, head, CAST(floor({STEPS} * log10(p)) AS INT) AS bin, count(*) AS rows\n"
        f"FROM (SELECT source, stack({len(of.heads)}, {stacked}) AS (head, p) FROM {table} {day})\n"
        "GROUP BY source, head, bin ORDER BY source, head, bin",
        "movers": _movers(of),
    }


def _movers(of: Asked) -> str:
    """Campaigns whose expected engagements of the first head changed most since the last day that was published before."""
    head, day, earliest = of.heads[0], _day(of.scored), _day(of.scored - timedelta(days=MOVED_WITHIN))

    def on(which: str, what: str) -> str:
        return f"sum(IF(s.day {which} {day}, {what}, 0))"

    return (
        f"WITH since AS (\n  SELECT max(scored_day) AS since FROM {of.table('publications')}\n"
        f"  WHERE what = 'scores' AND scored_day BETWEEN {earliest} AND {_day(of.scored - timedelta(days=1))})\n"
        f"SELECT {_text(head)} AS head, *, after - before AS change FROM (\n  SELECT since, coalesce(campaign_id, '(missing)') AS campaign_id, "
        f"{on('<', f'expected_{head}')} AS before, {on('=', f'expected_{head}')} AS after,\n    "
        f"{on('<', 'expected_impressions')} AS impressions_before, {on('=', 'expected_impressions')} AS impressions_after\n"
        f"  FROM {of.table('scores')} AS s JOIN since ON s.day = {day} OR s.day = since\n"
        f"  WHERE s.day BETWEEN {earliest} AND {day} AND since IS NOT NULL GROUP BY ALL)\n"
        f"WHERE after <> before ORDER BY abs(after - before) DESC, campaign_id LIMIT {MOVERS}"
    )


def _day(day: date) -> str:
    return f"DATE'{day.isoformat()}'"


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
