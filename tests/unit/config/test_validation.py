"""Values that cannot be right, and what the message about each must say."""

import json
import math

import numpy as np
import pytest

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.errors import ArgumentError, SurestepError

# The bad input, and fragments that the message must hold: the setting, the value, what to write instead.
BAD = [
    # Batches and duration
    ({"per_device_train_batch_size": 0}, ["per_device_train_batch_size=0", "at least 1", "default is 8"]),
    ({"per_device_train_batch_size": -4}, ["per_device_train_batch_size=-4", "whole number"]),
    ({"per_device_train_batch_size": 2.5}, ["per_device_train_batch_size=2.5", "whole number"]),
    ({"per_device_train_batch_size": "8"}, ["per_device_train_batch_size='8'", "write per_device_train_batch_size=8 "]),
    ({"per_device_train_batch_size": True}, ["per_device_train_batch_size=True", "whole number"]),
    ({"per_device_train_batch_size": None}, ["per_device_train_batch_size=None", "whole number"]),
    ({"per_device_eval_batch_size": 0}, ["per_device_eval_batch_size=0", "at least 1"]),
    ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps=0", "Write 1"]),
    ({"gradient_accumulation_steps": -1}, ["gradient_accumulation_steps=-1", "at least 1"]),
    ({"num_train_epochs": 0}, ["num_train_epochs=0", "unless max_steps", "3.0"]),
    ({"num_train_epochs": -1}, ["num_train_epochs=-1", "above 0"]),
    ({"num_train_epochs": math.nan}, ["num_train_epochs=nan", "a number"]),
    ({"num_train_epochs": math.inf}, ["num_train_epochs=inf", "a number"]),
    ({"max_steps": 0}, ["max_steps=0", "Write -1"]),
    ({"max_steps": -2}, ["max_steps=-2", "Write -1"]),
    ({"max_steps": 10.5}, ["max_steps=10.5", "whole number"]),
    ({"global_batch_size": 0}, ["global_batch_size=0", "at least 1"]),
    ({"global_batch_size": 20}, ["global_batch_size=20", "16 or 24", "per_device_train_batch_size=5"]),
    ({"global_batch_size": 7}, ["global_batch_size=7", "Write global_batch_size=8", "per_device_train_batch_size=7"]),
    (
        {"global_batch_size": 64, "gradient_accumulation_steps": 2},
        ["gradient_accumulation_steps=2", "global_batch_size=64", "means 8"],
    ),
    ({"max_time": 0}, ["max_time=0", "1h30m"]),
    ({"max_time": -5}, ["max_time=-5", "1h30m"]),
    ({"max_time": "soon"}, ["max_time='soon'", "1h30m"]),
    ({"max_time": "2x"}, ["max_time='2x'", "length of time"]),
    ({"max_time": ""}, ["max_time=''", "length of time"]),
    ({"max_time": [1]}, ["max_time=[1]", "length of time"]),
    ({"max_time": True}, ["max_time=True", "length of time"]),
    # Schedule and optimizer
    ({"learning_rate": math.nan}, ["learning_rate=nan", "5e-5"]),
    ({"learning_rate": -1e-3}, ["learning_rate=-0.001", "at least 0"]),
    ({"learning_rate": math.inf}, ["learning_rate=inf", "a number"]),
    ({"learning_rate": "3e-5"}, ["learning_rate='3e-5'", "without quotes", "learning_rate=3e-5"]),
    ({"learning_rate": "fast"}, ["learning_rate='fast'", "5e-5"]),
    ({"learning_rate": True}, ["learning_rate=True", "a number"]),
    ({"learning_rate": [1e-3]}, ["learning_rate=[0.001]", "a number"]),
    ({"lr_scheduler_type": "cosin"}, ["lr_scheduler_type='cosin'", "Did you mean 'cosine'?"]),
    ({"lr_scheduler_type": 3}, ["lr_scheduler_type=3", "linear"]),
    ({"lr_scheduler_kwargs": "num_cycles=2"}, ["lr_scheduler_kwargs", "JSON object"]),
    ({"lr_scheduler_kwargs": "{num_cycles"}, ["lr_scheduler_kwargs", "does not parse"]),
    ({"lr_scheduler_kwargs": [1]}, ["lr_scheduler_kwargs=[1]", "dictionary"]),
    ({"lr_scheduler_type": "reduce_lr_on_plateau"}, ["reduce_lr_on_plateau", 'eval_strategy="epoch"']),
    ({"lr_scheduler_type": "greedy"}, ["greedy", 'eval_strategy="epoch"']),
    ({"warmup_steps": -1}, ["warmup_steps=-1", "at least 0"]),
    ({"warmup_steps": 10.5}, ["warmup_steps=10.5", "Write 10"]),
    ({"warmup_steps": math.nan}, ["warmup_steps=nan"]),
    ({"optim": "adamm"}, ["optim='adamm'", "adamw_torch", "Did you mean"]),
    ({"optim_target_modules": 3}, ["optim_target_modules=3", "list of strings"]),
    ({"weight_decay": -0.1}, ["weight_decay=-0.1", "0.01"]),
    ({"weight_decay": math.nan}, ["weight_decay=nan"]),
    ({"adam_beta1": 1.0}, ["adam_beta1=1.0", "below 1", "0.9"]),
    ({"adam_beta1": -0.1}, ["adam_beta1=-0.1", "at least 0"]),
    ({"adam_beta2": 1.5}, ["adam_beta2=1.5", "below 1"]),
    ({"adam_epsilon": -1e-8}, ["adam_epsilon=-1e-08", "1e-8"]),
    # Stability and precision
    ({"max_grad_norm": -1.0}, ["max_grad_norm=-1.0", "0 to leave gradients unclipped"]),
    ({"max_grad_norm": math.nan}, ["max_grad_norm=nan", "Write 1.0"]),
    ({"max_grad_value": 0}, ["max_grad_value=0", "above 0", "0.5", "None to clip by norm"]),
    ({"fp8": True, "fp16": True}, ["fp8=True and fp16=True cannot both be", "Write fp8=True alone"]),
    ({"sampling_weights": "balanced"}, ["train_sampling_strategy='random'", "sampling_weights='balanced'", "both"]),
    ({"train_sampling_strategy": "weighted"}, ["'weighted'", "sampling_weights=None", "'balanced' or a column"]),
    ({"adaptive_clip_ratio": -0.01}, ["adaptive_clip_ratio=-0.01", "above 0", "0.01"]),
    ({"max_grad_value": 1.0, "adaptive_clip_ratio": 0.1}, ["max_grad_value=1.0 and adaptive_clip_ratio=0.1", "one of"]),
    (
        {"max_grad_value": 0.5, "max_grad_norm": 1.0},
        ["max_grad_norm=1.0 and max_grad_value=0.5", "with max_grad_value alone there is none by norm"],
    ),
    ({"adaptive_clip_ratio": 0.1, "max_grad_norm": 2}, ["max_grad_norm=2 and adaptive_clip_ratio=0.1", "Write one"]),
    # Parameters apart
    ({"layerwise_lr_decay": 0.0}, ["layerwise_lr_decay=0.0", "above 0 and at most 1", "0.9"]),
    ({"layerwise_lr_decay": 1.1}, ["layerwise_lr_decay=1.1", "at most 1"]),
    (
        {"layerwise_lr_decay": 0.9, "parameter_rules": [{"pattern": "a", "freeze": True}]},
        ["parameter_rules and layerwise_lr_decay=0.9", "Write one of them", "FreezeCallback"],
    ),
    ({"parameter_rules": {"pattern": "a", "freeze": True}}, ["parameter_rules={", "a list", 'parameter_rules=[{"patt']),
    ({"parameter_rules": "[{"}, ["parameter_rules='[{'", "does not parse", '\'[{"pattern"']),
    ({"parameter_rules": '{"pattern": "a", "freeze": true}'}, ["a list of rules"]),
    ({"parameter_rules": ["a"]}, ["parameter_rules[0]='a'", "a dictionary"]),
    ({"parameter_rules": [{"freeze": True}]}, ["parameter_rules[0]['pattern']=None", "a regular expression"]),
    ({"parameter_rules": [{"pattern": 3, "freeze": True}]}, ["parameter_rules[0]['pattern']=3"]),
    ({"parameter_rules": [{"pattern": "a(", "freeze": True}]}, ["['pattern']='a('", "It is none: missing )"]),
    (
        {"parameter_rules": [{"pattern": "a", "freeze": False}, {"pattern": "b", "learnin_rate": 1}]},
        ["parameter_rules[1]=", "has 'learnin_rate'", "weight_decay, freeze", "Did you mean 'learning_rate'?"],
    ),
    ({"parameter_rules": [{"pattern": "a", "lr": 1}]}, ["has 'lr'; a rule takes pattern, learning_rate"]),
    ({"parameter_rules": [{"pattern": "a"}]}, ["parameter_rules[0]=", "what holds for it", '"freeze": False']),
    ({"parameter_rules": [{"pattern": "a", "learning_rate": -1}]}, ["parameter_rules[0]['learning_rate']=-1", "1e-5"]),
    ({"parameter_rules": [{"pattern": "a", "learning_rate_scale": math.nan}]}, ["['learning_rate_scale']=nan", "0.1"]),
    ({"parameter_rules": [{"pattern": "a", "weight_decay": "0"}]}, ["['weight_decay']='0'", "without quotes"]),
    ({"parameter_rules": [{"pattern": "a", "freeze": "yes"}]}, ["['freeze']='yes'", "True"]),
    (
        {"parameter_rules": [{"pattern": "a", "freeze": True, "weight_decay": 0}]},
        ["parameter_rules[0]=", "no use for weight_decay", "write freeze alone"],
    ),
    (
        {"parameter_rules": [{"pattern": "a", "learning_rate": 1, "learning_rate_scale": 1}]},
        ["parameter_rules[0]=", "Write learning_rate or learning_rate_scale"],
    ),
    ({"label_smoothing_factor": 1.0}, ["label_smoothing_factor=1.0", "below 1", "0.1"]),
    ({"label_smoothing_factor": -0.1}, ["label_smoothing_factor=-0.1", "at least 0"]),
    ({"fp16": True, "bf16": True}, ["fp16=True", "bf16=True", "cannot both"]),
    ({"fp16_full_eval": True, "bf16_full_eval": True}, ["fp16_full_eval", "bf16_full_eval", "cannot both"]),
    ({"neftune_noise_alpha": -5}, ["neftune_noise_alpha=-5", "None"]),
    ({"torch_empty_cache_steps": 0}, ["torch_empty_cache_steps=0", "None"]),
    ({"torch_empty_cache_steps": 1.5}, ["torch_empty_cache_steps=1.5", "whole number"]),
    ({"activation_checkpointing_kwargs": 1}, ["activation_checkpointing_kwargs=1", "dictionary"]),
    ({"liger_kernel_config": "rope"}, ["liger_kernel_config='rope'", "dictionary"]),
    # Truth values
    ({"fp16": "true"}, ["fp16='true'", "Write fp16=True"]),
    ({"fp16": "no"}, ["fp16='no'", "Write fp16=False"]),
    ({"fp16": 1}, ["fp16=1", "Write fp16=True"]),
    ({"dataloader_drop_last": 0}, ["dataloader_drop_last=0", "Write dataloader_drop_last=False"]),
    ({"do_train": "maybe"}, ["do_train='maybe'", "True or False"]),
    ({"bf16": None}, ["bf16=None", "True or False"]),
    ({"tf32": "sometimes"}, ["tf32='sometimes'", "None"]),
    ({"load_best_model_at_end": np.array([True])}, ["load_best_model_at_end", "True or False"]),
    # Logging and tracking
    ({"logging_steps": 0}, ["logging_steps=0", 'logging_strategy="no"']),
    ({"logging_steps": -10}, ["logging_steps=-10", "at least 0"]),
    ({"logging_steps": 1.5}, ["logging_steps=1.5", "fraction", "Write 1"]),
    ({"logging_strategy": "batch"}, ["logging_strategy='batch'", "no, steps, epoch"]),
    ({"logging_strategy": True}, ["logging_strategy=True", "no, steps, epoch"]),
    ({"log_level": "warn"}, ["log_level='warn'", "Did you mean 'warning'?"]),
    ({"log_level_replica": 10}, ["log_level_replica=10", "passive"]),
    ({"include_num_input_tokens_seen": "yes"}, ["include_num_input_tokens_seen='yes'", "non_padding"]),
    ({"report_to": "tensorbord"}, ["report_to='tensorbord'", "Did you mean 'tensorboard'?"]),
    ({"report_to": ["tensorboard", 3]}, ["report_to", "list of strings"]),
    ({"run_name": 7}, ["run_name=7", "Write run_name='7'"]),
    # Evaluation and checkpoints
    ({"eval_strategy": "step"}, ["eval_strategy='step'", "Did you mean 'steps'?"]),
    ({"eval_strategy": "steps", "eval_steps": 2.5}, ["eval_steps=2.5", "Write 2"]),
    ({"eval_strategy": "steps", "logging_strategy": "no", "logging_steps": 0}, ["eval_steps=0", "above 0"]),
    ({"eval_steps": -5}, ["eval_steps=-5", "at least 0"]),
    ({"eval_delay": -1}, ["eval_delay=-1", "Write 0"]),
    ({"eval_accumulation_steps": 0}, ["eval_accumulation_steps=0", "None"]),
    ({"include_for_metrics": ["input"]}, ["include_for_metrics=['input']", "Did you mean 'inputs'?"]),
    ({"include_for_metrics": "inputs"}, ["include_for_metrics='inputs'", 'Write include_for_metrics=["inputs"]']),
    ({"save_strategy": "epochs"}, ["save_strategy='epochs'", "Did you mean 'epoch'?"]),
    ({"save_steps": 0}, ["save_steps=0", 'save_strategy="no"']),
    ({"save_steps": 7.5}, ["save_steps=7.5", "Write 7"]),
    ({"save_total_limit": 0}, ["save_total_limit=0", "None to keep every"]),
    ({"save_total_limit": -1}, ["save_total_limit=-1", "None to keep every"]),
    ({"load_best_model_at_end": True}, ["load_best_model_at_end=True", 'eval_strategy="epoch"']),
    (
        {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "no"},
        ["load_best_model_at_end=True", 'save_strategy="best"'],
    ),
    (
        {"save_strategy": "best", "metric_for_best_model": "loss"},
        ['save_strategy="best"', 'eval_strategy="epoch"'],
    ),
    ({"save_strategy": "best", "eval_strategy": "epoch"}, ['metric_for_best_model="loss"']),
    ({"metric_for_best_model": 3}, ["metric_for_best_model=3", "a string or None"]),
    ({"hub_strategy": "every-save"}, ["hub_strategy='every-save'", "Did you mean 'every_save'?"]),
    # Reproducibility and data
    ({"seed": -1}, ["seed=-1", "at least 0"]),
    ({"seed": 2**32}, ["seed=4294967296", "at most"]),
    ({"seed": None}, ["seed=None", "42"]),
    ({"data_seed": -3}, ["data_seed=-3", "None"]),
    ({"dataloader_num_workers": -1}, ["dataloader_num_workers=-1", "Write 0"]),
    ({"dataloader_prefetch_factor": 2}, ["dataloader_prefetch_factor=2", "dataloader_num_workers=1"]),
    ({"dataloader_prefetch_factor": 0, "dataloader_num_workers": 1}, ["dataloader_prefetch_factor=0", "None"]),
    ({"dataloader_persistent_workers": True}, ["dataloader_persistent_workers=True", "dataloader_num_workers=1"]),
    ({"dataloader_multiprocessing_context": "spawn"}, ["dataloader_multiprocessing_context='spawn'", "=None"]),
    (
        {"dataloader_multiprocessing_context": "forks", "dataloader_num_workers": 1},
        ["fork, spawn, forkserver, None", "Did you mean"],
    ),
    ({"train_sampling_strategy": "shuffle"}, ["train_sampling_strategy='shuffle'", "random, sequential"]),
    ({"train_sampling_strategy": ["random"]}, ["train_sampling_strategy=['random']", "random, sequential"]),
    ({"label_names": "labels"}, ["label_names='labels'", 'Write label_names=["labels"]']),
    ({"length_column_name": None}, ["length_column_name=None", "a string"]),
    # Devices
    ({"accelerator_config": {"split_batch": True}}, ["accelerator_config", "Did you mean 'split_batches'?"]),
    ({"accelerator_config": "nowhere.json"}, ["nowhere.json", "cannot be read"]),
    ({"accelerator_config": 3}, ["accelerator_config=3", "dictionary"]),
    (
        {"accelerator_config": {"gradient_accumulation_kwargs": {"num_step": 2}}},
        ["no 'num_step'", "Did you mean 'num_steps'?"],
    ),
    ({"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 0}}}, ["num_steps=0", "at least 1"]),
    (
        {"gradient_accumulation_steps": 3, "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}}},
        ["gradient_accumulation_steps=3 contradicts num_steps=2", "Write one of the two"],
    ),
    ({"ddp_backend": "ncl"}, ["ddp_backend='ncl'", "Did you mean 'nccl'?"]),
    ({"ddp_timeout": 0}, ["ddp_timeout=0", "1800"]),
    ({"ddp_bucket_cap_mb": -1}, ["ddp_bucket_cap_mb=-1", "None"]),
    ({"fsdp": 3}, ["fsdp=3", "fsdp=True"]),
    ({"deepspeed": 3}, ["deepspeed=3", "path of a JSON file"]),
    ({"debug": "underflow"}, ["debug='underflow'", "Did you mean 'underflow_overflow'?"]),
    ({"debug": 3}, ["debug=3", "underflow_overflow"]),
    ({"output_dir": 3}, ["output_dir=3", "a string"]),
    ({"resume_from_checkpoint": 3}, ["resume_from_checkpoint=3", "a string"]),
    ({"local_rank": "a"}, ["local_rank='a'", "whole number"]),
]


def test_the_table_is_long_enough():
    assert len(BAD) >= 60


@pytest.mark.parametrize(("given", "fragments"), BAD, ids=lambda value: str(value)[:60])
def test_what_cannot_be_right_is_refused(given, fragments):
    with pytest.raises(ArgumentError) as error:
        TrainingArguments(**given)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, SurestepError)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(("given", "fragments"), BAD, ids=lambda value: str(value)[:60])
def test_it_is_refused_after_a_change_too(given, fragments):
    args = TrainingArguments("out")
    for name, value in given.items():
        setattr(args, name, value)
    with pytest.raises(ArgumentError) as error:
        args.validate_parameters()
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"generation_max_length": 0}, "generation_max_length=0"),
        ({"generation_num_beams": 1.5}, "generation_num_beams=1.5"),
        ({"predict_with_generate": "yes"}, "predict_with_generate=True"),
    ],
)
def test_what_cannot_be_right_in_generation(given, fragment):
    with pytest.raises(ArgumentError, match=fragment):
        Seq2SeqTrainingArguments("out", **given)


def test_all_problems_are_told_at_once():
    with pytest.raises(ArgumentError) as error:
        TrainingArguments("out", learning_rate=-1, seed=-1, eval_strategy="x")
    assert str(error.value).startswith("3 settings cannot be right:\n  - ")
    for name in ("learning_rate", "seed", "eval_strategy"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        {"num_train_epochs": 0, "max_steps": 5},
        {"num_train_epochs": 0.5},
        {"learning_rate": 0.0},
        {"warmup_steps": 1.0},
        {"warmup_steps": 0.999},
        {"logging_strategy": "no", "logging_steps": 0},
        {"logging_strategy": "epoch", "logging_steps": 1.5},
        {"save_strategy": "no", "save_steps": 0},
        {"save_strategy": "best", "metric_for_best_model": "loss", "eval_strategy": "epoch"},
        {"max_grad_norm": 0},
        {"max_grad_norm": 0, "max_grad_value": 0.5},
        {"max_grad_norm": 1.0, "max_grad_value": None},
        {"layerwise_lr_decay": 1.0, "parameter_rules": []},
        {"adam_beta1": 0.0},
        {"seed": 0},
        {"seed": 2**32 - 1},
        {"save_total_limit": 1},
        {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1, "dataloader_persistent_workers": True},
        {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "spawn"},
        {"global_batch_size": 64, "gradient_accumulation_steps": 8},
    ],
    ids=str,
)
def test_what_is_at_the_edge_is_taken(given):
    TrainingArguments("out", **given)


def refuses(**given):
    """Say whether these settings are refused."""
    try:
        TrainingArguments("out", **given)
    except ArgumentError:
        return True
    return False


@pytest.mark.parametrize("eval_strategy", ["no", "steps", "epoch"])
def test_what_follows_a_metric_needs_evaluations_of_any_kind(eval_strategy):
    none = eval_strategy == "no"
    assert refuses(eval_strategy=eval_strategy, lr_scheduler_type="reduce_lr_on_plateau") == none
    assert refuses(eval_strategy=eval_strategy, lr_scheduler_type="greedy") == none
    assert refuses(eval_strategy=eval_strategy, save_strategy="best", metric_for_best_model="loss") == none
    assert refuses(eval_strategy=eval_strategy, save_strategy="best")
    assert not refuses(eval_strategy=eval_strategy, lr_scheduler_type="cosine")


@pytest.mark.parametrize("save_strategy", ["no", "steps", "epoch", "best"])
@pytest.mark.parametrize("eval_strategy", ["no", "steps", "epoch"])
def test_the_best_model_needs_evaluations_and_checkpoints_of_any_kind(eval_strategy, save_strategy):
    none = "no" in {eval_strategy, save_strategy}
    assert refuses(eval_strategy=eval_strategy, save_strategy=save_strategy, load_best_model_at_end=True) == none


@pytest.mark.parametrize(
    ("eval_strategy", "evaluates", "steps"), [("no", False, None), ("steps", True, 7), ("epoch", True, None)]
)
def test_what_follows_from_the_strategy_of_evaluation(eval_strategy, evaluates, steps):
    args = TrainingArguments("out", eval_strategy=eval_strategy, logging_steps=7)
    assert (args.do_eval, args.eval_steps) == (evaluates, steps)


def test_a_json_file_of_strings_is_answered(tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"fp16": "true", "seed": "3"}), encoding="utf-8")
    with pytest.raises(ArgumentError) as error:
        TrainingArguments.load_json(tmp_path / "args.json")
    assert "Write fp16=True" in str(error.value)
    assert "write seed=3 without quotes" in str(error.value)


def test_a_global_batch_that_the_devices_cannot_share(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ArgumentError) as error:
        TrainingArguments("out", global_batch_size=6, per_device_train_batch_size=1)
    assert "on 4 device(s). Write global_batch_size=4 or 8." in str(error.value)


# The lowest value of a setting that is taken, and the highest that is refused below it.
LOWEST = {
    "per_device_train_batch_size": (1, 0),
    "per_device_eval_batch_size": (1, 0),
    "eval_accumulation_steps": (1, 0),
    "gradient_accumulation_steps": (1, 0),
    "torch_empty_cache_steps": (1, 0),
    "save_total_limit": (1, 0),
    "num_train_epochs": (1e-6, 0),
    "max_steps": (-1, -2),
    "seed": (0, -1),
    "data_seed": (0, -1),
    "dataloader_num_workers": (0, -1),
    "learning_rate": (0.0, -1e-9),
    "warmup_steps": (0, -1e-9),
    "weight_decay": (0.0, -1e-9),
    "adam_beta1": (0.0, -1e-9),
    "adam_beta2": (0.0, -1e-9),
    "adam_epsilon": (0.0, -1e-9),
    "label_smoothing_factor": (0.0, -1e-9),
    "neftune_noise_alpha": (0.0, -1e-9),
    "max_grad_norm": (0.0, -1e-9),
}
# The highest that is taken, and the lowest that is refused above it.
HIGHEST = {
    "seed": (2**32 - 1, 2**32),
    "data_seed": (2**63 - 1, 2**63),
    "adam_beta1": (0.999999, 1.0),
    "adam_beta2": (0.999999, 1.0),
    "label_smoothing_factor": (0.999999, 1.0),
    "layerwise_lr_decay": (1.0, 1.000001),
}


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [(name, *values) for table in (LOWEST, HIGHEST) for name, values in table.items()],
)
def test_a_setting_ends_where_it_says(name, taken, refused):
    assert getattr(Seq2SeqTrainingArguments("out", **{name: taken}), name) == taken
    with pytest.raises(ArgumentError, match=name):
        Seq2SeqTrainingArguments("out", **{name: refused})


@pytest.mark.parametrize(
    "name",
    [
        "adaptive_clip_ratio",
        "data_seed",
        "dataloader_prefetch_factor",
        "ddp_bucket_cap_mb",
        "eval_accumulation_steps",
        "eval_steps",
        "generation_max_length",
        "generation_num_beams",
        "global_batch_size",
        "layerwise_lr_decay",
        "max_grad_value",
        "neftune_noise_alpha",
        "save_total_limit",
        "torch_empty_cache_steps",
    ],
)
def test_what_may_be_left_open_may_be_none(name):
    assert getattr(Seq2SeqTrainingArguments("out", **{name: None}), name) is None


@pytest.mark.parametrize("steps", [1.001, 1.5, 2.5, 100.25])
def test_warm_up_is_whole_steps_or_a_share(steps):
    with pytest.raises(ArgumentError, match=f"warmup_steps={steps}"):
        TrainingArguments("out", warmup_steps=steps)
