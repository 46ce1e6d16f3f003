"""docs/arguments.md, written from the fields of the arguments: `python -m tests.unit.config.page`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surestep.config.fields import TOPICS
from surestep.config.rules import Member
from surestep.config.topic import Topic
from surestep.config.topics.seq2seq import SEQ2SEQ
from surestep.config.unserved import UNSERVED

PAGE = Path(__file__).parents[3] / "docs" / "arguments.md"
COMMAND = "python -m tests.unit.config.page"

HEAD = f"""<!-- Written by `{COMMAND}` from the fields of the arguments. Change those, and run it. -->
# Arguments

Every setting of `TrainingArguments`, by topic, with its default. Names, defaults and meaning are those of transformers;
the settings in **bold** are this library's own, and go by keyword only. What a value cannot be is refused when it is
written, with what to write instead.

The same names are flags of a script that uses `HfArgumentParser` (`--learning_rate 1e-4`) and keys under `arguments` in
a [job file](guides/jobs.md). `surestep schema` prints them with their types, for editors.
"""


def title(topic: Topic) -> str:
    """Return the heading of a topic: the first words of its module."""
    return (sys.modules[topic.fields.__module__].__doc__ or "").partition(":")[0].strip()


def default(field: dataclasses.Field[Any]) -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return f"`{getattr(value, 'value', value)!r}`"


def words(field: dataclasses.Field[Any], topic: Topic) -> str:
    """Return the words that a setting can be, unless the help has named them."""
    rule = topic.rules.get(field.name)
    known = [member.value for member in rule.enum] if isinstance(rule, Member) else field.metadata.get("choices", ())
    unnamed = any(str(word) not in field.metadata["help"] for word in known)
    return f" One of {', '.join(f'`{word}`' for word in known)}." if unnamed else ""


def row(field: dataclasses.Field[Any], topic: Topic) -> str:
    name = f"**`{field.name}`**" if field.kw_only else f"`{field.name}`"
    unserved = UNSERVED.get(field.name)
    served = f" Not served yet: {unserved.what}." if unserved else ""
    return f"| {name} | {default(field)} | {field.metadata['help']}{words(field, topic)}{served} |"


def sections() -> Iterator[str]:
    for topic in (*TOPICS, SEQ2SEQ):
        rows = "\n".join(row(field, topic) for field in dataclasses.fields(topic.fields))
        yield f"## {title(topic)}\n\n{topic.fields.__doc__}\n\n| argument | default | |\n|---|---|---|\n{rows}\n"


def text() -> str:
    """Return the page."""
    return "\n".join([HEAD, *sections()])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
