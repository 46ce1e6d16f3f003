"""docs/compatibility.md, written from the tables that the code itself reads: `python -m tests.unit.compat.page`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import transformers
from tests.parity.differences import DOCUMENT, rows
from tests.unit.compat.names import public_names
from tests.unit.compat.paths import modules

import surestep
from surestep.compat.homes import HOMES, KEPT, MOVED, REFUSED
from surestep.config.aliases import ALIASES, NoEffect, Refused, Renamed
from surestep.config.unserved import UNSERVED
from surestep.trainer.older_names import GONE_METHODS, OLD_ARGUMENTS, UNCALLED
from surestep.training.callback import EVENTS

PAGE = Path(__file__).parents[3] / "docs" / "compatibility.md"
EXEC = "guides/running-existing-scripts.md"
COMMAND = "python -m tests.unit.compat.page"

SERVED, DIFFERENTLY, OLDER = "served", "differently", "older name"
ORIGINAL, NOT_YET, REFUSED_WORD = "the original's", "not yet", "refused"
# Rows of the differences that do not call what they are about by its name.
SILENT = {
    "_save_checkpoint": ("C1", "C2"),
    "_load_rng_state": ("C1",),
    "greater_is_better": ("L8",),
    "length_column_name": ("A3",),
    "logging_nan_inf_filter": ("L1", "L2"),
    "remove_unused_columns": ("A4",),
    "train": ("C3", "C4", "C7", "C10", "C11"),
    "training_step": ("T5",),
}
# What else is to know of a name.
NOTES = {
    "AdamW": "the arithmetic of those years; torch's own is the one to take today",
    "CallbackHandler": "assigned to `trainer.callback_handler`, it hears the trainer's events",
    "DataCollatorForWholeWordMask": "today `whole_word_mask`, which goes by the samples' `offset_mapping`",
    "DistributedTensorGatherer": "joins what `distributed_concat` gathers",
    "find_executable_batch_size": "nothing is reset between the attempts; the trainer's own search starts each anew",
    "load_sharded_checkpoint": "pickled shards are read as data only",
    "set_seed": "`seed_everything` with the original's name",
}


class Row(NamedTuple):
    """A line of a table: what is asked for, the answer, and where, how or why."""

    name: str
    answer: str
    more: str = ""

    def __str__(self) -> str:
        return f"| `{self.name}` | {self.answer} | {self.more} |"


@cache
def _differences() -> dict[str, list[str]]:
    """Return links to the rows of the differences that speak of a name: in code marks, first or after its owner."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").lower().replace(" ", "-")
        elif (id_ := line.strip("| ").partition(" ")[0]) in rows():
            theirs, ours, *_ = rows()[id_]
            named = set(re.findall(r"`(?:trainer\.|args\.|Trainer\.)?(\w+)", f"{theirs} {ours}"))
            for name in named | {name for name, ids in SILENT.items() if id_ in ids}:
                found.setdefault(name, []).append(f"[{id_}](differences.md#{section})")
    return found


def _plain(name: str, more: str = "") -> Row:
    """Return the row of what is served, with what is different about it."""
    links = _differences().get(name, [])
    parts = [part for part in (more, NOTES.get(name, ""), ", ".join(links)) if part]
    return Row(name, DIFFERENTLY if links else SERVED, "; ".join(parts))


def names_of(module: str) -> Iterator[Row]:
    """Yield the names of a module of the original, and those that older versions of it had."""
    today = public_names(module)
    for name in dict.fromkeys([*today, *HOMES[module]]):
        if name in HOMES[module]:
            row = _plain(name, f"`{HOMES[module][name]}`")
            private = name.startswith("_")
            yield row if name in today or private else row._replace(answer=OLDER)
        elif name in REFUSED.get(module, ()):
            yield Row(name, REFUSED_WORD, REFUSED[module][name])
        else:
            yield Row(name, ORIGINAL, KEPT[module][name])
    yield from (Row(name, OLDER, f"`{home}`") for name, home in MOVED.get(module, {}).items())


def methods() -> Iterator[Row]:
    """Yield the methods and properties of the original's trainers, private ones with them, and those of older years."""
    theirs = {**vars(transformers.Trainer), **vars(transformers.Seq2SeqTrainer)}
    for name in sorted(name for name in theirs if not name.startswith("__")):
        if name in UNCALLED:
            yield Row(name, REFUSED_WORD, f"nothing calls it: {UNCALLED[name]}")
        else:
            assert hasattr(surestep.Seq2SeqTrainer, name), f"{name} is neither there nor in older_names.UNCALLED"
            yield _plain(name)
    for name in sorted(name for name in {*UNCALLED, *GONE_METHODS} - theirs.keys()):
        why = UNCALLED.get(name) or GONE_METHODS[name]
        yield Row(name, OLDER, f"nothing calls it: {why}")


def events() -> Iterator[Row]:
    """Yield the events of callbacks."""
    theirs = [name for name in vars(transformers.TrainerCallback) if name.startswith("on_")]
    assert sorted(theirs) == sorted(EVENTS), "the events are not the original's"
    return (_plain(name) for name in theirs)


def arguments() -> Iterator[Row]:
    """Yield the fields of the original's arguments."""
    ours = {field.name for field in dataclasses.fields(surestep.Seq2SeqTrainingArguments)}
    for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments):
        assert field.name in ours, f"{field.name} is no field here"
        if field.name in UNSERVED:
            yield Row(field.name, NOT_YET, UNSERVED[field.name].what)
        else:
            yield _plain(field.name)


def constructor() -> Iterator[Row]:
    """Yield the arguments of the trainers themselves, today's and older ones."""
    today = list(inspect.signature(transformers.Trainer.__init__).parameters)[1:]
    known = inspect.signature(surestep.Trainer.__init__).parameters
    assert set(today) <= set(known), "an argument of the trainer is missing"
    yield from (_plain(name) for name in today)
    yield from (Row(name, OLDER, f"`{instead}`") for name, instead in OLD_ARGUMENTS.items())


def older_arguments() -> Iterator[Row]:
    """Yield the names of settings that older versions had."""
    fields = {field.name for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments)}
    for name, alias in ALIASES.items():
        if name in fields:
            continue
        if isinstance(alias, Renamed):
            yield Row(name, OLDER, f"`{alias.to}`")
        elif isinstance(alias, NoEffect):
            yield Row(name, OLDER, f"taken, without effect: {alias.why}")
        elif isinstance(alias, Refused):
            yield Row(name, REFUSED_WORD, f"other values than the default. {alias.instead}")


def _table(head: str, found: Iterable[Row]) -> str:
    return "\n".join([f"| {head} | answer | |", "|---|---|---|", *map(str, found)])


def _title(module: str) -> str:
    """Return the heading of a module: its path there, and the one here."""
    here = next((name for name, originals in modules().items() if module in originals), "")
    here = {"transformers.trainer": "trainer"}.get(module, here)
    return f"### `{module}`" + (f", here `surestep.{here}`" if here else "")


def text() -> str:
    """Return the page."""
    names = "\n\n".join(f"{_title(module)}\n\n{_table('name', names_of(module))}" for module in HOMES)
    return f"""<!-- Written by `{COMMAND}` from the tables of the code. Change those, and run it. -->
# Compatibility

What becomes of everything that transformers {transformers.__version__} offers around training: each public name of its
training modules, each method of its trainers, each event and each argument.

| answer | means |
|---|---|
| {SERVED} | the same here, under the same name |
| {DIFFERENTLY} | served, and in some case not the same: the rows of [Differences](differences.md) say how |
| {OLDER} | a name that only older versions have, and that scripts still use |
| {ORIGINAL} | not offered here; the original's own answers under [`surestep exec`]({EXEC}) |
| {NOT_YET} | taken at its default; what else it can switch on is an error |
| {REFUSED_WORD} | an error that says why, when it is asked for |

Every name can be imported from `surestep` and, where a module of that name is given, from there: `from surestep import
set_seed`, `from surestep.trainer_utils import set_seed`. Beside a name stands the module that holds it.

## Names

{names}

## Methods of `Trainer` and `Seq2SeqTrainer`

They can be called and overridden, private ones too.

{_table("method", methods())}

## Events of `TrainerCallback`

{_table("event", events())}

## Arguments of `Trainer`

{_table("argument", constructor())}

## `TrainingArguments` and `Seq2SeqTrainingArguments`

{_table("argument", arguments())}

### Names of older versions

{_table("argument", older_arguments())}
"""


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(f"wrote {PAGE}")
