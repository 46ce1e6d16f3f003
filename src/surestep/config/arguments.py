"""The arguments of a run: all topics, flat, checked when they are made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from surestep.config import checks
from surestep.config.construction import OldNames
from surestep.config.export import Export
from surestep.config.fields import TOPICS, AllFields, rules_of
from surestep.config.place import Place
from surestep.config.rules import Rule, parse_settings
from surestep.config.setters import Setters
from surestep.config.topic import Topic
from surestep.config.topics.hardware import AcceleratorConfig, work_out_steps
from surestep.config.topics.seq2seq import SEQ2SEQ, GenerationArguments
from surestep.config.unserved import refuse_unserved
from surestep.errors import ArgumentError


@dataclass(repr=False)
class TrainingArguments(OldNames, Setters, Place, Export, AllFields):
    """Every setting of a run.

    Names, defaults and meanings are those of `transformers.TrainingArguments`; those that go by keyword only are ours.
    Making one reads the environment and changes nothing outside, but that a process joins the others that a launcher
    has started with it, and that accelerate learns the device where some library has imported it. What cannot be right
    raises `ArgumentError`, and what nothing serves yet `NotServedError`. Values may be changed afterwards;
    `validate_parameters` looks at them again.
    """

    # A subclass may add fields that take a JSON object as a string.
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        "accelerator_config",
        "fsdp_config",
        "deepspeed",
        "activation_checkpointing_kwargs",
        "gradient_checkpointing_kwargs",
        "lr_scheduler_kwargs",
    ]
    _argument_topics: ClassVar[tuple[Topic, ...]] = TOPICS
    _argument_rules: ClassVar[dict[str, Rule]] = rules_of(TOPICS)

    # What the original keeps beside the fields; nothing sets them yet.
    deepspeed_plugin = None
    fsdp_plugin_args = None

    def __post_init__(self) -> None:
        _settle(self)
        self._join_group()
        configured = cast("AcceleratorConfig", self.accelerator_config).use_configured_state
        # Libraries that have imported accelerate expect its state of the process to be there.
        if "accelerate.state" in sys.modules and not configured:
            from surestep.runtime.accelerate_state import tell_accelerate

            tell_accelerate(self.device)

    def validate_parameters(self) -> None:
        """Check every value again, after some were changed. Raises as construction does."""
        _settle(self)

    @property
    def mixed_precision(self) -> str:
        """The number format of training: "no", "fp16", "bf16" or "fp8"."""
        return checks.mixed_precision(self)


# Functions and not methods: libraries that subclass the arguments are free to use the names.


def _settle(args: TrainingArguments) -> None:
    """Put every value into its one form, work out what follows from others, and refuse what cannot be right."""
    args.__dict__["_settled"] = False
    try:
        _normalise(args)
    finally:
        args.__dict__["_settled"] = True
    _refuse(_check(args))
    refuse_unserved(args)


def _normalise(args: TrainingArguments) -> None:
    for name in args._VALID_DICT_FIELDS:
        value = getattr(args, name, None)
        if isinstance(value, str) and value.startswith("{"):
            setattr(args, name, parse_settings(name, value))
    _refuse(_apply_rules(args))
    checks.derive(args)
    for topic in args._argument_topics:
        topic.normalise(args)
    _refuse(work_out_steps(args))
    _refuse(checks.work_out_accumulation(args, args.__dict__.get("_accumulation")))
    args.__dict__["_accumulation"] = args.gradient_accumulation_steps


def _apply_rules(args: TrainingArguments) -> Iterator[str]:
    """Pass each value through the rule of its field; yield what is refused."""
    for name, rule in args._argument_rules.items():
        value = getattr(args, name)
        try:
            setattr(args, name, rule(name, value))
        except ArgumentError as error:
            # A subclass whose own default is None means something by it.
            if value is not None or type(args).__dataclass_fields__[name].default is not None:
                yield str(error)


def _check(args: TrainingArguments) -> Iterator[str]:
    """Yield what cannot be right between values."""
    for topic in args._argument_topics:
        yield from topic.check(args)
    yield from checks.check(args)


def _refuse(problems: Iterator[str]) -> None:
    """Raise for all problems at once."""
    found = list(problems)
    if len(found) == 1:
        raise ArgumentError(found[0])
    if found:
        raise ArgumentError("\n".join([f"{len(found)} settings cannot be right:", *(f"  - {line}" for line in found)]))


@dataclass(repr=False)
class Seq2SeqTrainingArguments(GenerationArguments, TrainingArguments):
    """Every setting of a run that evaluates by generating."""

    _argument_topics: ClassVar[tuple[Topic, ...]] = (*TOPICS, SEQ2SEQ)
    _argument_rules: ClassVar[dict[str, Rule]] = rules_of((*TOPICS, SEQ2SEQ))
