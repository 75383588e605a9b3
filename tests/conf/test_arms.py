"""What a comparison lays side by side: each arm answers for every head and tower once, and differs from the first in one thing."""

from pathlib import Path

import pytest

from conf.arms import ALL_TOWERS, KNOWN, TOWER_FEATURE, arm, groups
from conf.load import load

ROOT = Path(__file__).parents[2]
CONF = load(ROOT / "conf" / "tiny.yaml")
TOWERS = ["shopping", "standard", "video"]


@pytest.mark.parametrize("name", KNOWN)
def test_every_head_and_tower_has_exactly_one_part_that_answers_for_it(name):
    parts = arm(CONF, name, TOWERS).parts
    answered = [(head, tower) for part in parts for head in part.view.heads for tower in ([part.view.only] if part.view.only else TOWERS)]
    assert sorted(answered) == sorted((head, tower) for head in CONF.heads for tower in TOWERS)


def test_a_merged_model_reads_the_tower_as_a_feature_and_the_blind_one_does_not():
    merged, blind = (arm(CONF, name, TOWERS).parts[0].view for name in ("merged", "merged_blind"))
    feature = merged.template.features[-1]
    assert (feature.column, feature.vocabulary) == (TOWER_FEATURE, tuple(TOWERS))
    assert merged.template.features[:-1] == blind.template.features == CONF.template.features
    assert merged.merged and blind.merged and ALL_TOWERS not in TOWERS


def test_a_child_head_alone_has_no_parent():
    (view,) = (part.view for part in arm(CONF, "single_task", TOWERS).parts if "good_click" in part.view.heads)
    assert view.heads["good_click"].parent is None


def test_groups_are_families_keys_of_history_and_ids():
    found = groups(CONF)
    assert {"user", "ad", "history", "context"} <= set(found)
    assert found["history_user"] == tuple(
        f.column for f in CONF.template.features if f.column.startswith("user_") and f.family == "history"
    )
    kept = arm(CONF, "without_history", TOWERS).parts[0].view.template.features
    assert [f.column for f in kept] == [f.column for f in CONF.template.features if f.family != "history"]


def test_a_key_of_history_whose_name_begins_with_another_is_a_group_of_its_own():
    conf = load(ROOT / "conf" / "deskdrop_comparison.yaml")
    found = groups(conf)
    assert "user_lately_like_rate" in found["history_user_lately"]
    assert "user_lately_like_rate" not in found["history_user"]
