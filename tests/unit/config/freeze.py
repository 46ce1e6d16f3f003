"""The public surface of the arguments, as data. `python -m tests.unit.config.freeze` writes it down anew."""

import dataclasses
import enum
import inspect
import json
import re
from pathlib import Path
from typing import get_type_hints

from surestep.config import enums
from surestep.config.aliases import ALIASES
from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.parser import HfArg, HfArgumentParser

SURFACE = Path(__file__).with_name("surface.json")


def _fields(kind):
    hints = get_type_hints(kind)
    return {
        field.name: {"type": _type(hints[field.name]), "default": _default(field)} for field in dataclasses.fields(kind)
    }


def _type(hint):
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _default(field):
    return field.default if field.default is not dataclasses.MISSING else f"{field.default_factory.__name__}()"


def _members(kind):
    """Return the signatures of public methods and the names of properties, those of argparse left out."""
    members = {}
    for name in dir(kind):
        if name.startswith("_") or (issubclass(kind, HfArgumentParser) and name not in vars(kind)):
            continue
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property):
            members[name] = "property"
        elif callable(getattr(kind, name)):
            members[name] = _signature(getattr(kind, name))
    return members


def _signature(one):
    return re.sub(r"<(\S+) object at 0x[0-9a-f]+>", r"<\1>", str(inspect.signature(one)))


def surface():
    """Return names, types, defaults and signatures that users rely on."""
    kinds = [kind for kind in vars(enums).values() if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    return {
        "TrainingArguments": {"fields": _fields(TrainingArguments), "members": _members(TrainingArguments)},
        "Seq2SeqTrainingArguments": {
            "fields": {
                name: field
                for name, field in _fields(Seq2SeqTrainingArguments).items()
                if name not in _fields(TrainingArguments)
            }
        },
        "HfArgumentParser": {
            "signature": _signature(HfArgumentParser),
            "members": _members(HfArgumentParser),
        },
        "HfArg": _signature(HfArg),
        "enums": {kind.__name__: {one.name: one.value for one in kind} for kind in kinds if len(kind)},
        "older names": sorted(ALIASES),
    }


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface(), indent=1) + "\n", encoding="utf-8")
