"""YAML -> Conf, by safe_load only. Errors name the file and the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from conf.schema import Conf
from conf.strict import Strict
from conf.template import Template

Block = TypeVar("Block", bound=Strict)


class ConfError(ValueError):
    """The configuration is wrong; the message says where and how to mend it."""


def load(path: str | Path) -> Conf:
    """The configuration in `path`. `template:` and `extends:` may name other YAML files beside it, a template files of vocabularies."""
    path = Path(path)
    return _checked(Conf, path, _with_files_inlined(path))


def load_text(name: str, text: dict[str, Any]) -> Conf:
    """A configuration that is already a mapping (a stored run's, a test's)."""
    return _checked(Conf, Path(name), text)


def template_of(path: Path, text: str) -> Template:
    """The feature template that a file's text is; `path` is what errors name."""
    return _checked(Template, path, _with_vocabularies(_parsed(path, text), path))


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfError(f"{path}: no such file; give --conf-file the path of a YAML file, such as conf/demo.yaml") from error
    except UnicodeDecodeError as error:
        raise ConfError(f"{path}: not readable as YAML: {error}") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:  # `!!int x` and the 31st of February are no error of YAML's own
        raise ConfError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfError(f"{path}: expected keys and values, found {type(found).__name__}")
    return found


def read_template(path: Path) -> dict[str, Any]:
    """The feature template in `path`, with the vocabularies that stand in files of their own."""
    return _with_vocabularies(read_yaml(path), path)


def read_vocabulary(path: Path) -> list[str]:
    """One value a line, in order. An empty line is no value, and a value stands once."""
    try:
        values = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(f"{path}: not readable as a vocabulary, UTF-8 text of one value a line: {error}") from error
    first: dict[str, int] = {}
    for number, value in enumerate(values, 1):
        if not value:
            raise ConfError(f"{path}: line {number} is empty; a vocabulary has one value a line")
        if value in first:
            raise ConfError(f"{path}: line {number} repeats {value!r} of line {first[value]}; keep the first, whose place models know")
        first[value] = number
    return values


def cache_dir() -> Path:
    """The user cache: Horovod's wheel, Delta's jars, downloaded public data. ADTOWER_CACHE moves it."""
    given = os.environ.get("ADTOWER_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adtower"


def _with_files_inlined(path: Path) -> dict[str, Any]:
    text = read_yaml(path)
    base = text.pop("extends", None)
    if base is not None:
        text = _merged(_with_files_inlined(path.parent / str(base)), text)
    if isinstance(text.get("template"), str):
        text["template"] = read_template(path.parent / text["template"])
    elif isinstance(text.get("template"), dict):
        text["template"] = _with_vocabularies(text["template"], path)
    return text


def _with_vocabularies(template: dict[str, Any], path: Path) -> dict[str, Any]:
    """`template` with its vocabulary files, named relative to `path`, read into `vocabulary`."""
    features = template.get("features")
    return {**template, "features": [_with_vocabulary(given, path) for given in features]} if isinstance(features, list) else template


def _with_vocabulary(feature: Any, path: Path) -> Any:
    """Only of what can have one; what is wrong with the rest, conf/template.py says."""
    if not isinstance(feature, dict) or feature.get("type") != "indexed" or not isinstance(feature.get("vocabulary_file"), str):
        return feature
    rest = {key: value for key, value in feature.items() if key != "vocabulary_file"}
    if "vocabulary" in rest:
        raise ConfError(f"{path}: feature {feature.get('column')} has a vocabulary and a vocabulary_file; keep one of them")
    return rest | {"vocabulary": read_vocabulary(path.parent / feature["vocabulary_file"])}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, block by block; lists and plain values are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _checked(block: type[Block], path: Path, text: dict[str, Any]) -> Block:
    try:
        return block.model_validate(text)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc']) or 'top level'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        ]
        raise ConfError("\n".join(f"{path}: {line}" for line in lines)) from error
