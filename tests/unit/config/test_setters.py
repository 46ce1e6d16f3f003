"""The setters of the original: the same signatures, the same effects."""

import inspect

import pytest
import transformers

from surestep.config.arguments import TrainingArguments
from surestep.errors import ArgumentError

SETTERS = [
    "set_training",
    "set_evaluate",
    "set_testing",
    "set_save",
    "set_logging",
    "set_push_to_hub",
    "set_optimizer",
    "set_lr_scheduler",
    "set_dataloader",
]
CALLS = [
    ("set_training", {}),
    ("set_training", {"learning_rate": 1e-4, "batch_size": 32, "weight_decay": 0.1, "num_epochs": 1, "max_steps": 7}),
    ("set_training", {"gradient_accumulation_steps": 4, "seed": 3, "activation_checkpointing": True}),
    ("set_evaluate", {"delay": 2}),
    ("set_evaluate", {"strategy": "steps", "steps": 10, "batch_size": 4, "accumulation_steps": 2, "delay": 1}),
    ("set_evaluate", {"strategy": "epoch", "loss_only": True, "delay": 0}),
    ("set_testing", {}),
    ("set_testing", {"batch_size": 32, "loss_only": True}),
    ("set_save", {}),
    ("set_save", {"strategy": "best", "steps": 0, "total_limit": 3, "on_each_node": True}),
    ("set_logging", {}),
    (
        "set_logging",
        {"strategy": "epoch", "steps": 3, "report_to": ["tensorboard"], "level": "info", "first_step": True},
    ),
    ("set_logging", {"nan_inf_filter": True, "on_each_node": True, "replica_level": "error"}),
    ("set_push_to_hub", {"model_id": "a/b"}),
    ("set_push_to_hub", {"model_id": "a/b", "strategy": "end", "token": "x", "private_repo": True, "revision": "r"}),
    ("set_optimizer", {}),
    (
        "set_optimizer",
        {"name": "sgd", "learning_rate": 1.0, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "args": "a=1"},
    ),
    ("set_lr_scheduler", {}),
    ("set_lr_scheduler", {"name": "cosine", "num_epochs": 2, "max_steps": 9, "warmup_steps": 0.05}),
    ("set_dataloader", {}),
    (
        "set_dataloader",
        {
            "train_batch_size": 16,
            "eval_batch_size": 64,
            "drop_last": True,
            "num_workers": 2,
            "pin_memory": False,
            "persistent_workers": True,
            "prefetch_factor": 3,
            "multiprocessing_context": "spawn",
            "in_order": False,
            "auto_find_batch_size": True,
            "ignore_data_skip": True,
            "sampler_seed": 5,
        },
    ),
]


@pytest.mark.parametrize("name", SETTERS)
def test_signatures_are_the_originals(name):
    ours = inspect.signature(getattr(TrainingArguments, name)).parameters
    theirs = inspect.signature(getattr(transformers.TrainingArguments, name)).parameters
    assert list(ours) == list(theirs)
    for parameter, their in theirs.items():
        assert ours[parameter].default == their.default
        assert ours[parameter].kind == their.kind


@pytest.mark.parametrize(("name", "given"), CALLS)
def test_effects_are_the_originals(name, given):
    stock, ours = transformers.TrainingArguments("out"), TrainingArguments("out")
    assert getattr(ours, name)(**given) is ours
    getattr(stock, name)(**given)
    theirs, mine = stock.to_dict(), ours.to_dict()
    assert {key: mine[key] for key in theirs if key != "accelerator_config"} == {
        key: value for key, value in theirs.items() if key != "accelerator_config"
    }
    assert ours.hub_token == stock.hub_token


def test_no_delay_is_a_delay_of_zero():
    # The original leaves None, which its callback then compares with a number.
    assert transformers.TrainingArguments("out").set_evaluate("epoch").eval_delay is None
    assert TrainingArguments("out").set_evaluate("epoch").eval_delay == 0


def test_calls_chain_and_what_they_set_is_checked():
    args = TrainingArguments("out").set_lr_scheduler("reduce_lr_on_plateau").set_evaluate("epoch").set_logging(steps=5)
    args.validate_parameters()
    assert (args.metric_for_best_model, args.greater_is_better, args.report_to) == ("loss", False, [])
    args.set_training(learning_rate=-1)
    with pytest.raises(ArgumentError, match="learning_rate"):
        args.validate_parameters()


@pytest.mark.parametrize("name", ["set_evaluate", "set_save", "set_logging"])
def test_an_interval_of_no_steps_is_refused(name):
    with pytest.raises(ArgumentError, match="steps=0"):
        getattr(TrainingArguments("out"), name)(strategy="steps", steps=0)
    with pytest.raises(ArgumentError, match="Did you mean 'steps'"):
        getattr(TrainingArguments("out"), name)(strategy="step")


def test_the_older_name_in_set_training():
    with pytest.warns(FutureWarning, match="activation_checkpointing") as caught:
        args = TrainingArguments("out").set_training(gradient_checkpointing=True)
    assert len(caught) == 1
    assert (args.activation_checkpointing, args.gradient_checkpointing) == (True, True)
