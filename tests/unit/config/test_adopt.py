"""Arguments of the original, taken as ours."""

import dataclasses

import pytest
import transformers

from surestep.config.adopt import adopt_arguments
from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.errors import ArgumentError, NotServedError


def test_ours_stay_as_they_are():
    args = TrainingArguments("out")
    assert adopt_arguments(args) is args


def test_values_of_the_original_are_taken():
    stock = transformers.TrainingArguments(
        "out", learning_rate=1e-3, eval_strategy="epoch", activation_checkpointing=True
    )
    ours = adopt_arguments(stock)
    assert type(ours) is TrainingArguments
    assert (ours.output_dir, ours.learning_rate, ours.eval_strategy) == ("out", 1e-3, "epoch")
    assert (ours.activation_checkpointing, ours.gradient_checkpointing, ours.do_eval) == (True, True, True)
    assert ours._given == frozenset()


def test_what_a_subclass_of_the_original_added_is_carried_over():
    @dataclasses.dataclass
    class Own(transformers.TrainingArguments):
        max_length: int = 7

    stock = Own("out")
    stock.attached = "a"
    ours = adopt_arguments(stock)
    assert (ours.max_length, ours.attached) == (7, "a")


def test_seq2seq_arguments_stay_seq2seq():
    assert type(adopt_arguments(transformers.Seq2SeqTrainingArguments("out"))) is Seq2SeqTrainingArguments


def test_what_nothing_serves_yet_is_refused_here_too():
    with pytest.raises(NotServedError, match="fsdp"):
        adopt_arguments(transformers.TrainingArguments("out", fsdp="full_shard"))


@dataclasses.dataclass
class Other:
    """A dataclass, but of other settings."""

    learning_rate: float = 0.1


class Lookalike:
    """A setting's name on what is no dataclass."""

    per_device_train_batch_size = 8


@pytest.mark.parametrize("other", [None, {}, object(), AssertionError, Other(), Lookalike()])
def test_anything_else_is_refused(other):
    with pytest.raises(ArgumentError, match="args is a"):
        adopt_arguments(other)
