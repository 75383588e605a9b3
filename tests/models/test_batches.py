"""Batches: the same for any number of ranks, every example once an epoch, or an error."""

from __future__ import annotations

import dataclasses
import json
import random
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.batches import Batch, read_batches, shards_of, steps_an_epoch
from models.columns import Columns
from models.errors import ColumnsWrong, SnapshotUnreadable
from models.manifest import Manifest, read_manifest
from tests.models.snapshots import TEMPLATE, TOWERS, example_columns, write_snapshot
from tests.reliability.one_epoch_reads import DIVIDING, OTHERS, drawn, faults, refusal

FIRST_ROW_ID = Columns(TEMPLATE, len(TOWERS)).offsets[2]
EXAMPLES = example_columns(203)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """203 rows in 8 shards of 25 or 26, each with three row groups."""
    return read_manifest(write_snapshot(tmp_path_factory.mktemp("snapshots") / "one", EXAMPLES, row_group_rows=10))


def row_ids(batch: Batch) -> list[int]:
    """The `row` of every example in a batch, padding left out."""
    return (batch.features.ids_BF[:, -1] - FIRST_ROW_ID)[batch.weight_B > 0].tolist()


def epoch_of(manifest: Manifest, ranks: int = 1, batch_size: int = 32, epoch: int = 0, seed: int = 1) -> list[list[int]]:
    """Row ids of every global batch: the ranks' parts joined in the order of ranks."""
    parts = [
        [row_ids(batch) for batch in read_batches(manifest, batch_size, shards_of(rank, ranks, len(manifest.shards)), epoch, seed)]
        for rank in range(ranks)
    ]
    assert len({len(part) for part in parts}) == 1  # every rank takes the same number of steps
    return [list(chain(*step)) for step in zip(*parts, strict=True)]


def test_every_example_is_in_an_epoch_once_for_every_number_of_shards_and_ranks(tmp_path: Path):
    for virtual_shards in (1, 2, 4, 8):
        manifest = read_manifest(write_snapshot(tmp_path / str(virtual_shards), EXAMPLES, virtual_shards=virtual_shards, row_group_rows=30))
        batches = epoch_of(manifest)
        assert sorted(chain(*batches)) == list(range(1, 204))
        for ranks in (ranks for ranks in (2, 4, 8) if virtual_shards % ranks == 0):
            assert epoch_of(manifest, ranks) == batches, (virtual_shards, ranks)


def test_ranks_that_do_not_divide_the_shards_are_refused():
    with pytest.raises(SnapshotUnreadable, match=r"3 ranks do not divide the snapshot's 8 virtual shards; set training.ranks"):
        shards_of(0, 3, 8)


def test_epochs_of_random_sizes_hold_every_row_once_in_the_batches_that_one_rank_sees(tmp_path: Path):
    draw = random.Random(7)
    for number, (virtual_shards, ranks) in enumerate(DIVIDING):
        read = drawn(draw, virtual_shards, ranks)
        assert faults(read, tmp_path / str(number)) == [], read


def test_ranks_that_do_not_divide_are_refused_by_the_configuration_and_by_a_rank():
    assert {pair: refusal(*pair)[1] for pair in OTHERS} == {(1, 2): [], (1, 4): [], (2, 4): []}


def test_a_batch_takes_as_many_rows_of_each_shard_and_short_shards_are_padded(snapshot: Manifest):
    # 32 / 8 = 4 rows of each shard; 26 rows in the largest shard: 7 steps
    assert steps_an_epoch(snapshot, 32) == 7
    batches = list(read_batches(snapshot, 32, range(8), epoch=0, seed=1))
    assert [len(batch.weight_B) for batch in batches] == [32] * 7
    # 203 rows are 25 a shard and one more for the first three: the last step has two rows of those and one of the others.
    assert [int(batch.weight_B.sum()) for batch in batches] == [32] * 6 + [3 * 2 + 5 * 1]
    padding = batches[-1].weight_B == 0
    assert not batches[-1].known_BH[padding].any()
    assert (batches[-1].features.tower_B[padding] == -1).all()
    shard_of_row = (np.array(row_ids(batches[0])) - 1) % 8
    assert shard_of_row.tolist() == list(np.repeat(range(8), 4))


def test_an_epoch_has_its_own_order_and_the_same_one_each_time(snapshot: Manifest):
    first = epoch_of(snapshot, epoch=0)
    assert epoch_of(snapshot, epoch=0) == first
    assert epoch_of(snapshot, epoch=1) != first
    assert epoch_of(snapshot, seed=2) != first


def test_an_epoch_goes_on_from_any_step(snapshot: Manifest):
    rest = [row_ids(batch) for batch in read_batches(snapshot, 32, range(8), epoch=0, seed=1, skip_steps=5)]
    assert rest == epoch_of(snapshot)[5:]


def test_an_example_keeps_its_columns_labels_and_weight(tmp_path: Path):
    examples = EXAMPLES | {"weight": np.linspace(1, 2, 203).astype(np.float32)}
    manifest = read_manifest(write_snapshot(tmp_path / "weighted", examples))
    for batch in read_batches(manifest, 64, range(8), epoch=0, seed=1):
        real = batch.weight_B > 0
        rows = (batch.features.ids_BF[real, -1] - FIRST_ROW_ID - 1).numpy()
        assert np.array_equal(batch.weight_B[real], examples["weight"][rows])
        assert np.array_equal(batch.features.continuous_BC[real], np.stack([examples["age"], examples["spend"]], axis=1)[rows])
        assert np.array_equal(batch.features.tower_B[real], examples["tower"][rows])
        clicked = torch.from_numpy(examples["label_click"][rows] == 1)
        assert torch.equal(batch.labels_BH[real, 0] == 1, clicked)
        assert torch.equal(batch.known_BH[real, 1] == 1, clicked)  # good_click counts where there was a click
        assert np.array_equal(batch.known_BH[real, 2] == 1, examples["label_save"][rows] >= 0)


def test_fewer_rows_than_shards_leave_empty_shards_unopened(tmp_path: Path):
    manifest = read_manifest(write_snapshot(tmp_path / "three", {name: values[:3] for name, values in EXAMPLES.items()}))
    assert [shard.path is None for shard in manifest.shards] == [False] * 3 + [True] * 5
    assert epoch_of(manifest, ranks=4) == [[1, 2, 3]]


def test_a_shard_with_other_rows_than_its_manifest_says_stops_the_epoch(tmp_path: Path):
    for counted in (24, 27):
        directory = write_snapshot(tmp_path / str(counted), EXAMPLES)
        manifest = json.loads((directory / "manifest.json").read_text())
        manifest["rows"] += counted - manifest["shards"][5]["rows"]
        manifest["shards"][5]["rows"] = counted
        (directory / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(SnapshotUnreadable, match=rf"shard-5.parquet gave 25 rows, the manifest says {counted}"):
            epoch_of(read_manifest(directory))


def test_a_file_changed_since_the_manifest_was_written_is_refused(tmp_path: Path):
    manifest = read_manifest(write_snapshot(tmp_path / "changed", EXAMPLES))
    path = manifest.directory / "shard-2.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    manifest.require_unchanged([0, 1, 3])
    with pytest.raises(SnapshotUnreadable, match=r"shard-2.parquet is not the file that was written: its sha256 differs"):
        manifest.require_unchanged([2])


def test_a_shard_without_a_column_of_the_template_is_refused(tmp_path: Path):
    manifest = read_manifest(write_snapshot(tmp_path / "narrow", {name: values for name, values in EXAMPLES.items() if name != "device"}))
    with pytest.raises(SnapshotUnreadable, match=r"shard-0.parquet lacks device"):
        epoch_of(manifest)


def test_an_error_while_reading_ahead_reaches_the_reader_of_batches(tmp_path: Path):
    bad = EXAMPLES["device"].copy()
    bad[150] = 99
    manifest = read_manifest(write_snapshot(tmp_path / "bad", EXAMPLES | {"device": bad}))
    with pytest.raises(ColumnsWrong, match="device holds ids 2 to 99"):
        epoch_of(manifest)


def test_reading_prints_nothing_and_warns_of_no_old_interface(snapshot: Manifest, capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        epoch_of(snapshot)
    assert [warning for warning in caught if warning.category is FutureWarning] == []
    assert capfd.readouterr() == ("", "")


def test_a_manifest_that_says_what_cannot_be_is_refused(tmp_path: Path):
    cases = [  # what is changed, what the error says
        ({"rows": 0, "shards": [{"file": None, "rows": 0, "sha256": None}] * 8}, "holds no rows"),
        ({"rows": 204}, "shards and rows of the manifest do not add up"),
        ({"virtual_shards": 4}, "shards and rows of the manifest do not add up"),
        ({"weight": {"click": float("nan"), "good_click": 1.0, "save": 1.0}}, "not finite"),
        ({"heads": None}, "is not a snapshot's manifest"),
    ]
    directory = write_snapshot(tmp_path / "snapshot", EXAMPLES)
    sound = json.loads((directory / "manifest.json").read_text())
    for change, message in cases:
        (directory / "manifest.json").write_text(json.dumps(sound | change))
        with pytest.raises(SnapshotUnreadable, match=message):
            read_manifest(directory)


def test_base_log_odds_are_the_towers_own_rate_drawn_towards_all_towers(snapshot: Manifest):
    # click: 3 towers; overall = (60 + .5) / (200 + 1); ten positives at that rate are added to each tower
    counts: Any = {"positives": {"click": {"shopping": 60.0}}, "labelled": {"click": {"shopping": 100.0, "standard": 100.0}}}
    manifest = dataclasses.replace(snapshot, heads={"click": snapshot.heads["click"]}, **counts)
    overall = 60.5 / 201
    rates = [(60 + 10) / (100 + 10 / overall), 10 / (100 + 10 / overall), overall, overall]
    assert manifest.base_log_odds()[:, 0].tolist() == pytest.approx([np.log(rate / (1 - rate)) for rate in rates])
