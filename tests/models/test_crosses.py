"""Crosses, held to hand arithmetic."""

from __future__ import annotations

import torch

from models.crosses import GAIN, CrossNetwork, LatentCross


def filled(cross):
    """Map l sums its inputs up, times l + 1, and adds 1."""
    with torch.no_grad():
        for number, factor in enumerate(cross.maps):
            factor.weight.fill_(number + 1)
            factor.bias.fill_(1)
    return cross


def test_a_latent_cross_lays_products_of_growing_order_side_by_side():
    cross = filled(LatentCross(2, order=3))
    assert cross.width == 6
    # A1 x = (2 + 3) + 1 = 6, A2 x = 2 * (2 + 3) + 1 = 11
    assert cross(torch.tensor([[2.0, 3.0]])).tolist() == [[2, 3, 12, 18, 132, 198]]


def test_a_cross_network_multiplies_by_its_input_and_keeps_what_it_had():
    cross = filled(CrossNetwork(2, order=3))
    assert cross.width == 2
    # x1 = x * 6 + x = 7 x = (14, 21); A2 x1 = 2 * 35 + 1 = 71; x2 = x * 71 + x1 = 78 x
    assert cross(torch.tensor([[2.0, 3.0]])).tolist() == [[156, 234]]


def test_products_start_small():
    torch.manual_seed(1)
    x = torch.randn(1000, 32)
    assert LatentCross(32, order=2)(x)[:, 32:].std() < 2 * GAIN * x.std()
    assert (CrossNetwork(32, order=3)(x) - x).std() < 4 * GAIN * x.std()
