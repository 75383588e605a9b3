"""The loss: masked, weighted, conditional for child heads, with constant divisors."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from models.losses import conditional, head_losses, head_sums, share_of_weight


def test_a_loss_by_hand():
    # Two heads, three rows. log-odds 0 cost log 2 whatever the label; log-odds log(3) are p = 3/4.
    logits = torch.tensor([[0.0, log(3)], [log(3), 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    known = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    weight = torch.tensor([1.0, 2.0, 0.0])
    share = torch.tensor([0.5, 1.0])
    expected = [(log(2) + 2 * log(4)) * 0.5, log(4 / 3)]
    assert head_losses(logits, labels, known, weight, share).tolist() == pytest.approx(expected)


def test_predicted_and_observed_positives_by_hand():
    # The rows of the test above: the third weighs nothing, and the second head does not know the second.
    logits = torch.tensor([[0.0, log(3)], [log(3), 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    known = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    predicted, observed, rows = head_sums(logits, labels, known, torch.tensor([1.0, 2.0, 0.0])).tolist()
    assert predicted == pytest.approx([1 / 2 + 2 * 3 / 4, 3 / 4])
    assert (observed, rows) == ([1, 1], [3, 1])


def test_over_all_rows_the_loss_is_the_weighted_log_loss():
    draw = np.random.default_rng(1)
    logits, labels, weight = draw.normal(size=50), draw.integers(0, 2, 50), draw.random(50)
    share = share_of_weight({"click": weight.sum()}, rows=50, batch_size=50)
    ours = head_losses(
        torch.tensor(logits, dtype=torch.float32)[:, None],
        torch.tensor(labels, dtype=torch.float32)[:, None],
        torch.ones(50, 1),
        torch.tensor(weight, dtype=torch.float32),
        share,
    )
    assert ours.item() == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits)), sample_weight=weight), rel=1e-5)


def test_the_divisor_is_the_heads_weight_times_batch_size_over_rows():
    share = share_of_weight({"click": 1000.0, "save": 250.0}, rows=1000, batch_size=100)
    assert share.tolist() == pytest.approx([1 / 100, 1 / 25])


def test_a_head_of_no_weight_costs_nothing():
    share = share_of_weight({"click": 10.0, "hide": 0.0}, rows=10, batch_size=10)
    losses = head_losses(torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([[1.0, 0.0]] * 2), torch.ones(2), share)
    assert losses[0] > 0
    assert losses[1] == 0


def test_a_row_counts_for_a_child_head_where_the_parent_happened_and_the_child_is_known():
    cases = [  # label of click, of good_click; known of click, of good_click
        (1, 1, 1, 1),
        (1, 0, 1, 1),
        (1, -1, 1, 0),
        (0, 0, 1, 0),
        (-1, -1, 0, 0),
    ]
    labels, known = conditional(torch.tensor([case[:2] for case in cases], dtype=torch.int8), parents=[-1, 0])
    assert known.tolist() == [list(case[2:]) for case in cases]
    assert labels.tolist() == [[1, 1], [1, 0], [1, 0], [0, 0], [0, 0]]
