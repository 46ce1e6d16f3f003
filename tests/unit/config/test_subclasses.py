"""Subclasses as real libraries write them."""

import copy
import dataclasses
import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import transformers

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.errors import ArgumentError, UnknownArgumentError


@dataclass
class BaseConfig(TrainingArguments):
    """A library's base: defaults of its own, a looser type, a decision before ours."""

    _VALID_DICT_FIELDS: ClassVar = [*TrainingArguments._VALID_DICT_FIELDS, "model_init_kwargs"]

    logging_steps: float = field(default=10, metadata={"help": "Own default."})
    gradient_checkpointing: bool = field(default=True, metadata={"help": "On by default."})
    bf16: bool | None = field(default=None, metadata={"help": "Decided by fp16."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Own default."})
    model_init_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "For the model."})

    def __post_init__(self):
        self.bf16 = not self.fp16 if self.bf16 is None else self.bf16
        super().__post_init__()


@dataclass
class SFTConfig(BaseConfig):
    """A trainer's config."""

    max_length: int | None = field(default=1024, metadata={"help": "Longest sequence."})
    packing: bool = field(default=False, metadata={"help": "Pack samples."})
    dataset_text_field: str = "text"
    chunks: list[str] = field(default_factory=lambda: ["a"])
    group_by_length: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.prepared = True


@dataclass
class LooseConfig(TrainingArguments):
    """A config whose own None means something."""

    learning_rate: float | None = None
    seed: int | None = field(default=None)


@dataclass
class Mixin:
    """Another dataclass, mixed in."""

    beam: int = 4


@dataclass
class Mixed(Mixin, TrainingArguments):
    """Two dataclasses."""


class Abstract(ABC):
    """An abstract base."""

    @abstractmethod
    def name(self) -> str:
        """Return a name."""


@dataclass
class Concrete(TrainingArguments, Abstract):
    """A dataclass with an abstract base."""

    def name(self) -> str:
        return self.run_name or "none"


class Plain(TrainingArguments):
    """No dataclass: its own constructor."""

    def __init__(self, *args, flavour="plain", **kwargs):
        super().__init__(*args, evaluation_strategy="epoch", **kwargs)
        self.flavour = flavour


class Bare(TrainingArguments):
    """No dataclass, and nothing of its own."""

    place_model_on_device = False


def test_defaults_and_decisions_of_a_subclass():
    args = SFTConfig("out")
    assert (args.logging_steps, args.learning_rate, args.bf16, args.max_length) == (10, 2e-5, True, 1024)
    assert (args.activation_checkpointing, args.gradient_checkpointing, args.prepared) == (True, True, True)
    assert SFTConfig("out", fp16=True).bf16 is False
    assert args.to_dict()["max_length"] == 1024
    assert "max_length=1024" in str(args)


@pytest.mark.parametrize("given", [{"activation_checkpointing": False}, {"gradient_checkpointing": False}])
def test_a_default_of_the_older_name_gives_way(given):
    if "gradient_checkpointing" in given:
        with pytest.warns(FutureWarning, match="write activation_checkpointing=False"):
            args = SFTConfig("out", **given)
    else:
        args = SFTConfig("out", **given)
    assert (args.activation_checkpointing, args.gradient_checkpointing) == (False, False)


def test_older_names_and_misspelt_ones_in_a_subclass():
    with pytest.warns(FutureWarning, match="SFTConfig was given older names") as caught:
        args = SFTConfig("out", evaluation_strategy="epoch", max_length=3)
    assert len(caught) == 1
    assert (args.eval_strategy, args.max_length) == ("epoch", 3)
    with pytest.raises(UnknownArgumentError, match=r"SFTConfig has no setting 'max_lenght'. Did you mean max_length\?"):
        SFTConfig("out", max_lenght=3)
    with pytest.raises(UnknownArgumentError, match="Did you mean 'packing'"):
        args.packin = True


def test_a_subclass_may_bring_an_older_name_back():
    args = SFTConfig("out", group_by_length=True)
    assert args.group_by_length is True
    assert args.train_sampling_strategy == "random"
    args.group_by_length = False
    assert args.group_by_length is False


def test_fields_of_a_subclass_take_json_and_no_rule():
    args = SFTConfig("out", model_init_kwargs='{"bits": "4"}', packing="anything")
    assert args.model_init_kwargs == {"bits": 4}
    assert args.packing == "anything"


def test_our_fields_are_checked_in_a_subclass():
    with pytest.raises(ArgumentError, match="learning_rate=-1"):
        SFTConfig("out", learning_rate=-1)


def test_none_is_taken_where_the_subclass_has_it_as_default():
    args = LooseConfig("out")
    assert (args.learning_rate, args.seed) == (None, None)
    assert LooseConfig("out", learning_rate=1.0).learning_rate == 1.0
    with pytest.raises(ArgumentError, match="learning_rate='fast'"):
        LooseConfig("out", learning_rate="fast")


def test_two_dataclasses_mix():
    args = Mixed("out", beam=2, eval_strategy="epoch")
    assert (args.output_dir, args.beam, args.do_eval) == ("out", 2, True)
    assert next(iter(Mixed.__dataclass_fields__)) == "output_dir"


def test_an_abstract_base_mixes():
    assert Concrete("out", run_name="a").name() == "a"

    @dataclass
    class Unfinished(TrainingArguments, Abstract):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Unfinished("out")


def test_a_constructor_of_its_own():
    with pytest.warns(FutureWarning) as caught:
        args = Plain("out", flavour="sweet", warmup_ratio=0.1)
    assert len(caught) == 1
    assert (args.output_dir, args.flavour, args.warmup_steps, args.eval_strategy) == ("out", "sweet", 0.1, "epoch")
    with pytest.raises(UnknownArgumentError, match="Plain has no setting 'flavor'"):
        Plain("out", flavor="sweet")


def test_nothing_of_its_own():
    args = Bare("out", seed=3)
    assert (args.seed, args.place_model_on_device) == (3, False)
    assert args._given == {"output_dir", "seed"}


def test_a_constructor_replaced_afterwards():
    @dataclass
    class Patched(TrainingArguments):
        extra: int = 1

    inner = Patched.__init__

    def patched(self, *args, **kwargs):
        inner(self, *args, seed=7, **kwargs)

    Patched.__init__ = patched
    with pytest.warns(FutureWarning) as caught:
        args = Patched("out", no_cuda=True, extra=2)
    assert len(caught) == 1
    assert (args.seed, args.use_cpu, args.extra) == (7, True, 2)


@pytest.mark.parametrize("kind", [SFTConfig, LooseConfig, Mixed, Concrete, Bare])
def test_copies(kind):
    args = kind("out", max_steps=5)
    for twin in (copy.deepcopy(args), pickle.loads(pickle.dumps(args)), dataclasses.replace(args)):
        assert twin == args
        assert type(twin) is kind
    assert dataclasses.replace(args, max_steps=6).max_steps == 6


@pytest.mark.parametrize("kind", [TrainingArguments, Seq2SeqTrainingArguments, SFTConfig, Mixed])
def test_the_originals_parser_makes_them(kind):
    parser = transformers.HfArgumentParser(kind)
    (args,) = parser.parse_args_into_dataclasses(
        ["--output_dir", "out", "--learning_rate", "1e-3", "--eval_strategy", "steps", "--report_to", "none"]
    )
    assert type(args) is kind
    assert (args.output_dir, args.learning_rate, args.eval_strategy) == ("out", 1e-3, "steps")
    assert "logging_nan_inf_filter" not in args._given
    assert {"output_dir", "learning_rate", "eval_strategy"} <= args._given
    (args,) = transformers.HfArgumentParser(kind).parse_dict({"output_dir": "out", "seed": 3})
    assert args.seed == 3


def test_the_originals_parser_shows_help(capsys):
    with pytest.raises(SystemExit):
        transformers.HfArgumentParser(Seq2SeqTrainingArguments).parse_args(["--help"])
    assert "--max_time" in capsys.readouterr().out


def test_none_where_a_subclass_has_another_default():
    @dataclass
    class Timed(TrainingArguments):
        max_time: float | str | None = "2h"

    assert Timed("out").max_time == 7200.0
    assert Timed("out", max_time=None).max_time is None
