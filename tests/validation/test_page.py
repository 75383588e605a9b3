"""The report in a real browser: nothing sticks out, nothing is faint, every picture is drawn and told, the keyboard reaches everything."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.validation.browser import look_at
from tests.validation.night import made_up_night
from validation.report import render

Views = dict[str, dict[str, Any]]
CHARTS = ("reliability of", "gain of", "lift of", "predicted over observed of", "calibrated probability of", "normalised entropy of", "PSI")

# What a page may have wrong, and the look that must see it.
FAULTS: list[tuple[str, str, Callable[[dict[str, Any]], Any]]] = [
    ("text that does not break", '<p style="white-space:nowrap">' + "wide " * 400 + "</p>", lambda view: view["folded"]["elements"]),
    ("the same below a fold", f"<details><pre style='white-space:pre'>{'w' * 400}</pre></details>", lambda view: view["unfolded"]["page"]),
    ("pale text", '<p style="color:#888888;background:#999999">pale</p>', lambda view: view["faint"]),
    ("a link that is passed over", '<a href="#status" tabindex="-1">link</a>', lambda view: view["keyboard"]["unreached"]),
    ("a box that only a mouse scrolls", "<div style='overflow-x:auto'><pre style='white-space:pre'>" + "w" * 400, lambda view: view["scrolling"]),
    ("a picture without words", "<figure><svg viewBox='0 0 9 9'><path d='M0 0H9'/></svg></figure>", lambda view: view["bare"]),
    ("a link to nowhere", '<a href="#nowhere">link</a>', lambda view: view["lost"]),
    ("a column without a scope", "<table><tr><th>column</th></tr></table>", lambda view: view["unscoped"]),
]  # fmt: skip


def looked_at(page: str, folder: Path, **how: Any) -> dict[str, Any]:
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    return look_at(file, folder, **how)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return looked_at(render(made_up_night()), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def views(seen: dict[str, Any]) -> Views:
    assert list(seen["views"]) == ["360 light", "360 dark", "1400 light", "1400 dark"]
    assert all(f"{view['width']} {'dark' if view['dark'] else 'light'}" == name for name, view in seen["views"].items())
    return seen["views"]


def none_in(views: Views, look: Callable[[dict[str, Any]], Any]) -> bool:
    found = {name: wrong for name, view in views.items() if (wrong := look(view))}
    assert not found, found
    return True


def test_the_console_stays_empty(seen: dict[str, Any]) -> None:
    assert seen["console"] == []


def test_nothing_reaches_beyond_the_page_at_360_and_at_1400_pixels_folded_or_not(views: Views) -> None:
    assert none_in(views, lambda view: [view[fold] for fold in ("folded", "unfolded") if view[fold]["page"] or view[fold]["elements"]])


def test_text_has_a_contrast_of_4_5_in_light_and_dark(views: Views) -> None:
    assert none_in(views, lambda view: view["faint"])


def test_every_picture_is_drawn_and_says_what_it_shows(views: Views) -> None:
    for view in views.values():
        assert [one for one in view["pictures"] if not (one["width"] and one["height"] and one["children"] and one["words"])] == []
        told = [one["words"] for one in view["pictures"]]
        assert [chart for chart in CHARTS if not any(chart in words for words in told)] == []


def test_every_figure_has_words_or_a_table(views: Views) -> None:
    assert none_in(views, lambda view: view["bare"])


def test_headings_begin_with_one_and_never_skip_a_level(views: Views) -> None:
    for view in views.values():
        levels = view["headings"]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(below <= above + 1 for above, below in pairwise(levels)), levels


def test_the_keyboard_reaches_everything_that_can_be_used_or_scrolled(views: Views) -> None:
    assert all(view["keyboard"]["count"] > 40 for view in views.values())
    assert none_in(views, lambda view: view["keyboard"]["unreached"] or view["scrolling"])


def test_links_within_the_page_lead_somewhere_and_columns_say_what_they_head(views: Views) -> None:
    assert none_in(views, lambda view: view["lost"] or view["twice"] or view["unscoped"])


def test_each_fault_planted_in_a_page_is_seen(tmp_path: Path) -> None:
    planted = "".join(fault for _, fault, _ in FAULTS)
    page = render(made_up_night()).replace("<main>", f"<main>{planted}", 1).replace("</main>", "</div></main>", 1)
    page = page.replace("</body>", "<script>1</script></body>")  # which the page's own policy refuses, on the console
    found = looked_at(page, tmp_path, widths=(360,), schemes=("light",))
    (view,) = found["views"].values()
    assert [what for what, _, look in FAULTS if not look(view)] == []
    assert any("Content Security Policy" in line for line in found["console"])
