"""The fields are the original's: names, order, defaults, and what construction makes of them."""

import dataclasses
import subprocess
import sys

import pytest
import transformers
from transformers.training_args_seq2seq import Seq2SeqTrainingArguments as StockSeq2Seq

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.fields import TOPICS
from surestep.config.topics.seq2seq import SEQ2SEQ

OURS = {
    "global_batch_size",
    "max_time",
    "tensorboard_dir",
    "parameter_rules",
    "layerwise_lr_decay",
    "max_grad_value",
    "save_keep_best",
    "save_keep_every",
    "on_save_error",
    "save_async",
    "save_remote",
    "adaptive_clip_ratio",
    "fp8",
    "preflight",
    "sampling_weights",
    "data_seeding",
    "nonfinite",
    "track_best",
    "eval_spill_bytes",
    "resume_allow",
    "resume_strict",
    "on_signal",
    "save_on_exception",
    "preemption_grace",
}
# The original's object is of its own class.
OWN_CLASS = {"accelerator_config"}


def fields(kind):
    return {field.name: field for field in dataclasses.fields(kind)}


def default(field):
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def test_there_are_114_fields_of_the_original_and_few_of_ours():
    stock, ours = fields(transformers.TrainingArguments), fields(TrainingArguments)
    assert len(stock) == 114
    assert [name for name in ours if name not in OURS] == list(stock)
    assert set(ours) - set(stock) == OURS
    assert all(ours[name].kw_only for name in OURS)


@pytest.mark.parametrize("name", fields(transformers.TrainingArguments))
def test_each_default_is_the_originals(name):
    ours, theirs = default(fields(TrainingArguments)[name]), default(fields(transformers.TrainingArguments)[name])
    assert ours == theirs
    assert type(ours) is type(theirs)


def test_seq2seq_adds_its_five():
    stock = set(fields(StockSeq2Seq)) - set(fields(transformers.TrainingArguments))
    ours = set(fields(Seq2SeqTrainingArguments)) - set(fields(TrainingArguments))
    assert ours == stock
    assert len(ours) == 5
    for name in stock:
        assert default(fields(Seq2SeqTrainingArguments)[name]) == default(fields(StockSeq2Seq)[name])


@pytest.mark.parametrize("name", sorted(set(fields(transformers.TrainingArguments)) - OWN_CLASS))
def test_each_value_after_construction_is_the_originals(name):
    stock, ours = stock_and_ours()
    assert getattr(ours, name) == getattr(stock, name)


def stock_and_ours(cache={}):  # noqa: B006  (made once)
    if not cache:
        cache["pair"] = transformers.TrainingArguments("out"), TrainingArguments("out")
    return cache["pair"]


def test_accelerator_config_is_the_originals():
    stock, ours = stock_and_ours()
    # The original takes `use_configured_state` out of its object while it sets up the device.
    assert ours.accelerator_config.to_dict() == stock.accelerator_config.to_dict() | {"use_configured_state": False}


def test_the_first_argument_is_output_dir():
    assert TrainingArguments("somewhere").output_dir == "somewhere"
    assert TrainingArguments().output_dir == "trainer_output"


def test_every_field_has_help_and_a_rule_and_one_topic():
    names = [name for topic in TOPICS for name in topic.fields.__annotations__]
    assert sorted(names) == sorted(set(names)) == sorted(fields(TrainingArguments))
    assert set(TrainingArguments._argument_rules) == set(names)
    assert set(Seq2SeqTrainingArguments._argument_rules) == {*names, *SEQ2SEQ.fields.__annotations__}
    for field in fields(Seq2SeqTrainingArguments).values():
        assert len(field.metadata["help"]) > 10
        assert "%" not in field.metadata["help"]


def test_a_topic_knows_no_other_topic():
    import ast
    from pathlib import Path

    import surestep.config.arguments

    folder = Path(surestep.config.arguments.__file__).parent / "topics"
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("surestep.config.topics"), file


def test_construction_needs_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from surestep.config.arguments import TrainingArguments\n"
        "from surestep.config import parser\n"
        "import os; before = dict(os.environ)\n"
        "TrainingArguments('out', learning_rate=1e-3, use_cpu=True, eval_strategy='steps')\n"
        "assert dict(os.environ) == before\n"
        "loaded = {'torch', 'transformers', 'accelerate', 'pydantic', 'yaml', 'rich', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
