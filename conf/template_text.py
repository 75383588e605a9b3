"""A feature template as the YAML that a person keeps: written anew, or added to without touching what stands there.

A file that is there keeps every line of it, comments too: new features come after its last one, new reasons after its last column that was
left out. Only lines that begin with `# WARNING` are this module's own: they are taken out and written again above the feature they speak of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import yaml

from conf.load import ConfError
from conf.template import Feature

WARNING = "# WARNING "
LEFT_OUT = "# Columns that were looked at and are no features, and why. To have one read, make it a feature above and delete its line here."
WIDTH = 140


def template_text(header: str, features: Sequence[Feature], left_out: Mapping[str, str], warnings: Mapping[str, Sequence[str]]) -> str:
    """A whole new file. `warnings`: column -> what to know about it."""
    lines = [f"# {line}" for line in wrap(header, WIDTH - 2)] + ["features:"]
    for feature in features:
        lines += _warned(warnings.get(feature.column, ()), "  ") + _feature_lines(feature, "  ")
    return "\n".join([*lines, *_left_out_block(left_out)]) + "\n"


def added_to(text: str, features: Sequence[Feature], left_out: Mapping[str, str], warnings: Mapping[str, Sequence[str]]) -> str:
    """A file's text with what is new. ConfError where its features are no block list, which alone can be added to line by line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(WARNING)]
    root = yaml.compose("\n".join(lines))
    assert isinstance(root, yaml.MappingNode), "whoever adds to a template has read it as one"
    parts = {key.value: value for key, value in root.value}
    standing: yaml.SequenceNode = parts["features"]
    if standing.flow_style:
        raise ConfError("the template's features stand in one pair of brackets; write each on a line of its own, as `- {column: ...}`")
    indent = " " * standing.start_mark.column
    more: dict[int, list[str]] = {}  # line number -> what comes before it
    for item in standing.value:
        column = next(value.value for key, value in item.value if key.value == "column")
        more[item.start_mark.line] = _warned(warnings.get(column, ()), indent)
    new = [line for feature in features for line in _warned(warnings.get(feature.column, ()), indent) + _feature_lines(feature, indent)]
    _put(more, _line_after(standing), new)
    if left_out and parts.get("left_out") and parts["left_out"].value and not parts["left_out"].flow_style:
        _put(more, _line_after(parts["left_out"]), _left_out_lines(left_out, " " * parts["left_out"].start_mark.column))
    elif left_out and "left_out" in parts:
        raise ConfError("the template's left_out is no list of lines; write `column: reason` on a line each, or delete the key")
    else:
        _put(more, len(lines), _left_out_block(left_out))
    return "\n".join(line for number in range(len(lines) + 1) for line in (*more.get(number, ()), *lines[number : number + 1])) + "\n"


def _put(more: dict[int, list[str]], number: int, lines: Iterable[str]) -> None:
    more[number] = [*more.get(number, ()), *lines]


def _line_after(node: yaml.Node) -> int:
    """The line after a block's last value; the block itself ends only where the next one begins."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.line) + (1 if node.end_mark.column else 0)


def _warned(warnings: Sequence[str], indent: str) -> list[str]:
    return [f"{indent}{WARNING}{warning}" for warning in warnings]


def _feature_lines(feature: Feature, indent: str) -> list[str]:
    given = feature.model_dump(mode="json", exclude_defaults=True)
    keys = [key for key in Feature.model_fields if key in given]
    return [f"{indent}{'- ' if key == keys[0] else '  '}{key}: {_value(given[key])}" for key in keys]


def _left_out_block(left_out: Mapping[str, str]) -> list[str]:
    return [LEFT_OUT, "left_out:", *_left_out_lines(left_out, "  ")] if left_out else []


def _left_out_lines(left_out: Mapping[str, str], indent: str) -> list[str]:
    return [f"{indent}{_value(column)}: {_value(reason)}" for column, reason in left_out.items()]


def _value(value: Any) -> str:
    """On one line, quoted where YAML would read it otherwise."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True).removesuffix("\n").removesuffix("\n...")
