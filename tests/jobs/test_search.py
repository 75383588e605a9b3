"""The search as a job: it begins with the configuration as it is, goes on where it stopped, and its best is a configuration."""

from __future__ import annotations

import pytest
import yaml

from conf.load import load
from tests.jobs.nights import Place, copied, day

ASKED = ("--from", day(1), "--split-at", day(3))


def trained(said: str) -> list[str]:
    return [line.split(":")[1].strip() for line in said.splitlines() if line.startswith("search:") and "->" in line]


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped_and_leaves_the_best_as_a_configuration(
    built: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = copied(built, tmp_path_factory.mktemp("search") / "work")
    code, said = made.run("search", *ASKED, "--trials", "2")
    assert code == 0, said
    assert trained(said) == ["1/2", "2/2"]
    assert "as it is" in said.split("search: 1/2")[2]
    code, said = made.run("search", *ASKED, "--trials", "3")
    assert code == 0, said
    assert trained(said) == ["3/3"]
    (best,) = (made.workdir / "search").glob("*.yaml")
    file = made.workdir / "better.yaml"
    file.write_text(yaml.safe_dump({"extends": str(made.conf_file), **yaml.safe_load(best.read_text())}), encoding="utf-8")
    found, before = load(file), made.conf
    assert found.heads == before.heads and found.training.ranks == before.training.ranks
    assert "3 trials" in best.read_text() and "later days" in best.read_text()
