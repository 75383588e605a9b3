"""A comparison as a job: on tables that nights built, once, again, and with one arm more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.arms import arm
from etl import schemas
from etl.tables import read
from etl.trial import Split, TrialRows
from jobs.compare import moment
from models.manifest import read_manifest
from models.trial import size_of, widened
from tests.jobs.nights import Place, copied, day

ASKED = ("--from", day(1), "--split-at", f"{day(3)}T12:00:00", "--seeds", "1")


@pytest.fixture(scope="module")
def compared(built: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    made = copied(built, tmp_path_factory.mktemp("compare") / "work")
    code, said = made.run("compare", *ASKED, "--arms", "towers,merged,separate", "--epochs", "1,2")
    assert code == 0, said
    return made, said


def folder_of(made: Place) -> Path:
    (folder,) = (made.workdir / "compare").iterdir()
    return folder


def test_arms_are_judged_on_the_rows_after_the_split_against_labels_and_truth(spark: SparkSession, compared: tuple[Place, str]) -> None:
    made, said = compared
    table = pd.read_csv(folder_of(made) / "table.csv")
    rows = read(spark, made.workdir, schemas.examples(made.conf)).where(F.col("shown_at") >= F.lit(moment(f"{day(3)}T12:00:00")))
    rows = rows.where(F.col("day") <= day(3)).where("label_click IS NOT NULL")
    click = table[(table["head"] == "click") & (table["tower"] == "all") & (table["against"] == "labels")]
    assert set(click["rows"]) == {rows.count()}
    assert set(click["positives"]) == {rows.where("label_click = 1").count()}
    assert list(click["arm"]) == ["towers", "merged", "separate"]
    assert set(table["against"]) == {"labels", "truth"}
    assert (click["auc"] > 0.5).all() and table["ne"].notna().all()
    assert "simulator" in (folder_of(made) / "report.html").read_text()
    assert "rates x 1, epochs 1 0." in said or "rates x 1, epochs 1 1." in said  # what the validation rows said of each setting


def test_a_model_for_each_tower_answers_for_its_own_rows(compared: tuple[Place, str]) -> None:
    folder = folder_of(compared[0])
    # The last to be written: of the chosen setting, about the test rows.
    path = max((folder / "answers").glob("separate-*.npy"), key=lambda file: file.stat().st_mtime)
    answers, rows = np.load(path), pd.read_parquet(folder / "rows" / "test.parquet")
    assert answers.shape == (len(rows), len(compared[0].conf.heads))
    assert np.isfinite(answers).all()
    kept = json.loads(path.with_suffix(".json").read_text())
    assert (kept["arm"], kept["learned"], kept["asked"]) == ("separate", "both", "test")
    chosen = json.loads((folder / "chosen.json").read_text())["separate"]
    assert chosen == {"rate": kept["rate"], "epochs": kept["epochs"], "seconds": kept["seconds"]} and kept["seconds"] > 0
    for view in (folder / "views").glob("only_*"):
        assert set(read_manifest(view / "both").towers) == {view.name.removeprefix("only_")}
        assert pq.read_metadata(view / "test.parquet").num_rows == (rows["tower"] == view.name.removeprefix("only_")).sum()


@pytest.mark.slow
def test_what_was_trained_is_not_trained_again_and_another_arm_is_taken_in(compared: tuple[Place, str]) -> None:
    made, _ = compared
    before = pd.read_csv(folder_of(made) / "table.csv")
    code, said = made.run("compare", *ASKED, "--arms", "towers,merged,separate,merged_large", "--epochs", "1,2")
    assert code == 0, said
    trained = [line.split(":")[1].split()[1] for line in said.splitlines() if line.startswith("compare:") and "->" in line]
    assert trained == ["merged_large"] * 3  # two settings to choose from, and the chosen one
    after = pd.read_csv(folder_of(made) / "table.csv")
    pd.testing.assert_frame_equal(after[after["arm"] != "merged_large"].reset_index(drop=True), before)


def test_the_large_merged_model_has_at_least_the_parameters_of_the_towers_and_not_many_more(compared: tuple[Place, str]) -> None:
    made, folder = compared[0], folder_of(compared[0])
    towers = ["shopping", "standard", "video"]
    own, merged = (arm(made.conf, name, towers).parts[0] for name in ("towers", "merged"))
    own_rows, merged_rows = (read_manifest(folder / "views" / name / "both") for name in ("own", "merged"))
    wanted = size_of(own.model, own_rows)
    found = size_of(widened(merged.model, merged_rows, wanted), merged_rows)
    assert size_of(merged.model, merged_rows) < wanted <= found < 1.2 * wanted


def test_an_arm_that_is_none_is_refused(compared: tuple[Place, str]) -> None:
    code, said = compared[0].run("compare", "--arms", "towers,tower")
    assert code == 2 and "tower" in said and "merged_blind" in said


@pytest.mark.slow
def test_a_split_without_rows_is_refused(compared: tuple[Place, str]) -> None:
    code, said = compared[0].run("compare", "--split-at", day(1))
    assert code == 2 and "no rows to learn" in said and "--split-at" in said


def test_a_child_head_alone_learns_from_the_rows_of_its_parent(spark: SparkSession, built: Place, tmp_path: Path) -> None:
    conf = built.conf
    whole = Split(moment(day(1)).date(), moment(day(3)).date(), moment(day(2)), moment(day(3)))
    rows = TrialRows(spark, conf, whole, tmp_path)
    (view,) = (part.view for part in arm(conf, "single_task", rows.towers()).parts if "good_click" in part.view.heads)
    manifest = read_manifest(rows.snapshot(view, "learn"))
    clicked = whole.of(rows.examples(), "learn").where("label_click = 1 AND label_good_click IS NOT NULL").count()
    assert manifest.weight == {"good_click": clicked}
