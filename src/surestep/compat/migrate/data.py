"""Settings in YAML and JSON: keys and values are changed where they stand, and all else is kept, comments too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from surestep.compat.migrate.edits import Draft, Migration, Note
from surestep.compat.migrate.settings import UNKNOWN, Fate, fates, is_old, looks_like_settings
from surestep.config.aliases import NOTHING
from surestep.errors import MigrationError


def migrate_yaml(text: str, name: str) -> Migration:
    """Return a YAML file in today's spelling."""
    return _migrate(text, name, "YAML", _as_yaml)


def migrate_json(text: str, name: str) -> Migration:
    """Return a JSON file in today's spelling."""
    try:
        json.loads(text)
    except ValueError as error:
        raise MigrationError(f"'{name}' is no JSON: {error}.") from error
    return _migrate(text, name, "JSON", json.dumps)


def _migrate(text: str, name: str, kind: str, written: Callable[[Any], str]) -> Migration:
    draft = Draft(text, trailing=False)
    try:
        # A tab is as wide as a space here, and YAML would not take it; positions stay as they are.
        documents = list(yaml.compose_all(text.replace("\t", " "), Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise MigrationError(f"'{name}' is no {kind}: {' '.join(str(error).split())}.") from error
    for mapping, path in (found for document in documents for found in _mappings(document)):
        _settings(draft, mapping, path, written)
    return draft.finish()


def _mappings(node: yaml.Node, path: str = "") -> Iterator[tuple[yaml.MappingNode, str]]:
    """Yield every mapping of a document, with the keys that lead to it."""
    if isinstance(node, yaml.MappingNode):
        yield node, path
        for key, value in node.value:
            yield from _mappings(value, f"{path}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value, path)


def _settings(draft: Draft, mapping: yaml.MappingNode, path: str, written: Callable[[Any], str]) -> None:
    pairs = [(key, value) for key, value in mapping.value if isinstance(key, yaml.ScalarNode)]
    names = [key.value for key, _ in pairs]
    if not looks_like_settings(names):
        for key in (key for key, _ in pairs if is_old(key.value)):
            place = f"below {path}" if path else "at the top"
            note = f"{key.value} {place} may be an older setting; nothing beside it is one, so that it is left"
            draft.leave(key.start_mark.index, note)
        return
    items = [(key.value, _value(value)) for key, value in pairs]
    for (key, value), fate in zip(pairs, fates(items), strict=True):
        if fate is None:
            continue
        if fate.problem:
            draft.leave(key.start_mark.index, fate.problem)
        elif value.start_mark.index < key.end_mark.index:
            draft.leave(key.start_mark.index, f"{fate.reason}; but its value is an alias (*) of another")
        elif fate.name:
            _rename(draft, key, value, fate, written)
        else:
            _leave_out(draft, key, value, fate.reason, flow=bool(mapping.flow_style))


def _rename(draft: Draft, key: yaml.Node, value: yaml.Node, fate: Fate, written: Callable[[Any], str]) -> None:
    start, end = key.start_mark.index, key.end_mark.index
    quote = draft.text[start] if draft.text[start] in "\"'" else ""
    draft.replace(start, end, f"{quote}{fate.name}{quote}", fate.reason)
    if fate.value is not NOTHING:
        draft.replace(value.start_mark.index, _end(draft.text, value), written(fate.value))


def _leave_out(draft: Draft, key: yaml.Node, value: yaml.Node, reason: str, *, flow: bool) -> None:
    text, start, end = draft.text, key.start_mark.index, max(_end(draft.text, value), key.end_mark.index + 1)
    line = text.rfind("\n", 0, start) + 1
    if flow:
        draft.remove(start, end, reason)
    elif text[line:start].strip():
        draft.leave(start, f"{reason}; take it out by hand, as it begins an item of a list")
    else:
        after = text.find("\n", end)
        draft.replace(line, len(text) if after < 0 else after + 1, "")
        draft.done.append(Note(draft.line(start), reason))


def _end(text: str, node: yaml.Node) -> int:
    """Return where a value ends: a block ends with its last value, and not where the next key begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return len(text[:end].rstrip()) if node.end_mark.index > node.start_mark.index else end


def _value(node: yaml.Node) -> Any:
    """Return the value of a node as a program would read it."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        return UNKNOWN
    finally:
        loader.dispose()


def _as_yaml(value: Any) -> str:
    written: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return written.removesuffix("\n").removesuffix("\n...")
