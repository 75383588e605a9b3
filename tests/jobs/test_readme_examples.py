"""The README's examples for analysts run as they stand, on a real night."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from tests.jobs.nights import Place, day

ROOT = Path(__file__).parents[2]


def test_the_three_ways_to_read_scores_give_the_published_day(spark: SparkSession, clean: Place, capsys: Any) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## What an analyst reads")[1].split("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert [example.splitlines()[0].strip("# ").split(":")[0].split(",")[0] for example in examples] == ["Spark SQL", "DuckDB", "pandas"]
    names: dict[str, Any] = {"spark": spark}
    for example in examples:
        exec(example.replace("var/demo", str(clean.workdir)), names)
    printed = capsys.readouterr().out
    assert "expected_click" in printed and "p_click_raw" in printed
    scores = names["scores"]
    assert len(scores) == spark.table("scores_current").count() > 0
    assert {str(value)[:10] for value in scores["day"]} == {day(8)}
