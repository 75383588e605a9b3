"""The weights of heads' losses, held to hand arithmetic."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.schema import Head
from models.head_weighting import LEARNING_RATE, HeadWeighting
from models.losses import head_sums
from models.manifest import Manifest, read_manifest
from tests.models.snapshots import example_columns, write_snapshot

HEADS = {"click": Head(action="click"), "save": Head(action="save"), "hide": Head(action="hide")}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """80 rows: every fourth clicked, all saved but ten, no label of hide."""
    labels = {"label_click": np.arange(80) % 4 == 0, "label_save": np.arange(80) >= 10, "label_hide": np.full(80, -1)}
    columns = example_columns(80) | {name: values.astype(np.int8) for name, values in labels.items()}
    return read_manifest(write_snapshot(tmp_path_factory.mktemp("snapshots") / "eighty", columns, heads=HEADS))


def test_a_head_starts_at_the_optimum_of_its_base_rate(manifest: Manifest):
    click, save, _ = HeadWeighting("uncertainty", manifest).weight_H.tolist()
    rates = [(20 + 0.5) / 81, (70 + 0.5) / 81]  # as base log-odds are smoothed
    entropies = [-(rate * log(rate) + (1 - rate) * log(1 - rate)) for rate in rates]
    assert [click, save] == pytest.approx([1 / (2 * entropy) for entropy in entropies], rel=1e-5)


def test_of_a_constant_loss_the_log_variance_goes_to_the_log_of_twice_the_loss(manifest: Manifest):
    weighting, loss_H = HeadWeighting("uncertainty", manifest), torch.tensor([0.02, 0.7, 3.0])
    for _ in range(1000):
        weighting.learn_(loss_H, torch.ones(3))
    assert weighting.log_variance_H.tolist() == pytest.approx([log(2 * loss) for loss in (0.02, 0.7, 3.0)], abs=1e-3)
    assert (weighting.weight_H * loss_H).tolist() == pytest.approx([0.5] * 3, rel=1e-3)


def test_a_step_goes_down_the_gradient_by_the_rows_that_count(manifest: Manifest):
    weighting = HeadWeighting("uncertainty", manifest)
    weighting.log_variance_H[:] = torch.tensor([0.3, -0.2, 0.1])
    # Of the last batch of an epoch half is padding; hide has no rows at all.
    known, weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]), torch.tensor([1.0, 3.0, 0.0])
    counted_H = head_sums(torch.zeros_like(known), torch.zeros_like(known), known, weight)[2] * torch.tensor([0.25, 0.5, 0.0])
    assert counted_H.tolist() == [1.0, 0.5, 0.0]
    weighting.learn_(torch.tensor([0.6, 0.1, 0.0]), counted_H)
    expected = [0.3 - LEARNING_RATE * (0.5 - exp(-0.3) * 0.6), -0.2 - LEARNING_RATE * (0.25 - exp(0.2) * 0.1), 0.1]
    assert weighting.log_variance_H.tolist() == pytest.approx(expected)


def test_constant_weights_are_one_and_stay(manifest: Manifest):
    weighting = HeadWeighting("constant", manifest)
    weighting.learn_(torch.tensor([0.6, 0.1, 0.0]), torch.ones(3))
    assert weighting.weight_H.tolist() == [1, 1, 1]


def test_by_rows_a_head_weighs_as_much_as_it_has_of_the_largest_ones(tmp_path: Path):
    """80 rows, 20 of them clicked: good_click counts these; hide has no label at all and is left out elsewhere."""
    labels = {"label_click": np.arange(80) % 4 == 0, "label_good_click": np.arange(80) % 8 == 0, "label_hide": np.full(80, -1)}
    heads = {"click": Head(action="click"), "good_click": Head(action="click", parent="click"), "hide": Head(action="hide")}
    columns = example_columns(80) | {name: values.astype(np.int8) for name, values in labels.items()}
    weighting = HeadWeighting("rows", read_manifest(write_snapshot(tmp_path / "eighty", columns, heads=heads)))
    weighting.learn_(torch.tensor([0.6, 0.1, 0.0]), torch.ones(3))
    assert weighting.weight_H.tolist() == pytest.approx([1, 0.25, 1])
