"""The shallow path, held to hand arithmetic."""

from __future__ import annotations

import warnings

import torch

from models.linear import LinearPath
from tests.models.small_model import open_gates

TOWERS, HEADS = 2, 1


def path():
    """Two numbers, four ids. Shared weights: 10 a number, the id itself an id. Tower 0 adds 1 a number, tower 1 adds 100 times the id."""
    made = LinearPath(2, 4, HEADS, TOWERS)
    open_gates(made)
    with torch.no_grad():
        made.shared.weight.fill_(10)
        made.residual.of_tower[0].weight.fill_(1)
        made.table[:, 0, 0] = torch.arange(4.0)
        made.table[:, 2, 0] = 100 * torch.arange(4.0)
    return made


def test_a_row_adds_shared_weights_and_those_of_its_own_tower_only():
    made = path()
    numbers, ids = torch.tensor([[1.0, 2.0]]).repeat(3, 1), torch.tensor([[1, 3]]).repeat(3, 1)
    found = made(numbers, ids, torch.tensor([0, 1, -1]), made.table)
    # numbers 3 x 10, ids 1 + 3; tower 0: numbers 3 x 1; tower 1: ids 100 + 300; no tower: nothing more.
    assert found.flatten().tolist() == [37, 434, 34]


def test_it_starts_at_zero_and_without_ids_it_is_the_numbers_alone():
    made = LinearPath(2, 4, HEADS, TOWERS)
    assert made(torch.ones(1, 2), torch.tensor([[1, 3]]), torch.tensor([1]), made.table).tolist() == [[0]]
    assert path()(torch.ones(1, 2), torch.zeros(1, 0).long(), torch.tensor([0]), torch.zeros(0, 3, 1)).tolist() == [[22]]


def test_the_rows_of_a_batch_stand_for_the_table():
    made, numbers, tower = path(), torch.zeros(2, 2), torch.tensor([1, 0])
    ids = torch.tensor([[1, 3], [3, 3]])
    touched, position = torch.unique(ids, return_inverse=True)
    assert torch.equal(made(numbers, position, tower, made.table[touched]), made(numbers, ids, tower, made.table))


def test_of_a_template_without_numbers_the_ids_are_added_alone_and_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = LinearPath(0, 4, HEADS, TOWERS)
    with torch.no_grad():
        made.table[:, 0, 0] = torch.arange(4.0)
    assert made(torch.zeros(2, 0), torch.tensor([[1, 3], [0, 2]]), torch.tensor([0, -1]), made.table).tolist() == [[4], [2]]
