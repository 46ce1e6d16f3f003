"""Read a declared job: YAML, JSON or TOML, and overrides from the command line. No key is taken twice in silence."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from surestep.errors import JobError
from surestep.jobs.job import SHORT_FORMS, Job, make_job
from surestep.tasks.data.files import missing_file

Declared = dict[str, Any]
_OTHERS = ", ".join(name for name in Job.model_fields if name not in ("task", "data"))


def read_job(path: Path, overrides: Iterable[str] = ()) -> Job:
    """Read the job at `path` with `overrides` such as `arguments.learning_rate=1e-3`, or raise `JobError`."""
    declared = read_declaration(path)
    for override in overrides:
        apply_override(declared, override)
    try:
        return make_job(declared, default_name=path.stem)
    except JobError as error:
        raise JobError(f"{path}:\n{error}") from None


def read_declaration(path: Path) -> Declared:
    """Read a job file as plain data."""
    parser = _PARSERS.get(path.suffix.lower())
    if parser is None:
        raise JobError(f"{path}: a job file ends in {', '.join(_PARSERS)}.")
    if not path.is_file():
        raise JobError(missing_file(path))
    try:
        content = parser(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise JobError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise JobError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise JobError(f"{path} {found}. A job is a mapping with the keys task and data, and any of {_OTHERS}.")
    return content


def apply_override(declared: Declared, override: str) -> None:
    """Set `a.b` to the YAML value `c` for the override `a.b=c`, changing `declared` in place."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise JobError(f"the override '{override}' is not of the form section.key=value, such as data.validation=0.2.")
    try:
        value = parse_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise JobError(f"the value of the override '{override}' is not YAML: {error}") from error
    block = declared
    for depth, part in enumerate(parts[:-1]):
        inner = block.setdefault(part, {})
        if isinstance(inner, str) and depth == 0 and part in SHORT_FORMS:
            inner = block[part] = {SHORT_FORMS[part]: inner}
        if not isinstance(inner, dict):
            raise JobError(f"the override '{override}': '{'.'.join(parts[: depth + 1])}' is {inner!r} and has no keys.")
        block = inner
    block[parts[-1]] = value


def parse_yaml(text: str) -> Any:
    """Parse YAML by the rules of its version 1.2 for plain words.

    `1e-3` is a number, `no` and `on` are words, `1:30` and `2024-01-01` are text; a repeated key is an error.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's core words and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise ValueError(f"line {node.start_mark.line + 1}: the key '{repeated[0]}' is written twice")
        return super().construct_mapping(node, deep=deep)


# Its own table, in the place of the inherited one.
_Loader.yaml_implicit_resolvers = {}
# A number with leading zeros is read as eight-based by some and as text here: it is rarely meant as a number.
_WHOLE = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", rf"[-+]?{_WHOLE}|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        rf"[-+]?(?:\.[0-9]+|{_WHOLE}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> Declared:
    found: Declared = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' is written twice")
        found[key] = value
    return found


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": parse_yaml,
    ".yml": parse_yaml,
    ".json": _parse_json,
    ".toml": tomllib.loads,
}
