"""Every older spelling: what becomes of it, and what the warning says."""

import dataclasses
import inspect
import warnings

import pytest

from surestep.config.aliases import ALIASES, GUESSES, NOTHING, OLD_VALUES, NoEffect, Refused, Renamed
from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.construction import unknown_name
from surestep.config.unserved import UNSERVED
from surestep.errors import ArgumentError, UnknownArgumentError

# Old name, its value, the setting of today, its value.
RENAMED = [
    ("evaluation_strategy", "epoch", "eval_strategy", "epoch"),
    ("evaluate_during_training", True, "eval_strategy", "steps"),
    ("include_inputs_for_metrics", True, "include_for_metrics", ["inputs"]),
    ("per_gpu_train_batch_size", 4, "per_device_train_batch_size", 4),
    ("per_gpu_eval_batch_size", 4, "per_device_eval_batch_size", 4),
    ("warmup_ratio", 0.1, "warmup_steps", 0.1),
    ("label_smoothing", 0.1, "label_smoothing_factor", 0.1),
    ("lr_scheduler", "cosine", "lr_scheduler_type", "cosine"),
    ("group_by_length", True, "train_sampling_strategy", "group_by_length"),
    ("torchdynamo", "eager", "torch_compile_backend", "eager"),
    ("no_cuda", True, "use_cpu", True),
    ("logging_dir", "logs", "tensorboard_dir", "logs"),
    ("include_tokens_per_second", True, "include_num_input_tokens_seen", "all"),
    ("gradient_checkpointing", True, "activation_checkpointing", True),
    (
        "gradient_checkpointing_kwargs",
        {"use_reentrant": False},
        "activation_checkpointing_kwargs",
        {"use_reentrant": False},
    ),
    # Today's setting is not served yet, so it is looked at by name alone.
    ("adafactor", True, "optim", "adafactor"),
    ("xpu_backend", "gloo", "ddp_backend", "gloo"),
    ("fsdp_min_num_params", 5, "fsdp_config", {"min_num_params": 5}),
    ("fsdp_transformer_layer_cls_to_wrap", "Block", "fsdp_config", {"transformer_layer_cls_to_wrap": ["Block"]}),
    ("dispatch_batches", True, "accelerator_config", {"dispatch_batches": True}),
    ("split_batches", True, "accelerator_config", {"split_batches": True}),
    ("tpu_metrics_debug", True, "debug", "tpu_metrics_debug"),
    ("push_to_hub_model_id", "a/b", "hub_model_id", "a/b"),
    ("push_to_hub_token", "hf_secret", "hub_token", "hf_secret"),
    ("predict_from_generate", True, "predict_with_generate", True),
]
# Old name and a value that asks for nothing.
NOTHING_ASKED = [
    ("evaluation_strategy", None),
    ("evaluate_during_training", False),
    ("include_inputs_for_metrics", False),
    ("per_gpu_train_batch_size", None),
    ("warmup_ratio", 0.0),
    ("warmup_ratio", None),
    ("adafactor", False),
    ("group_by_length", False),
    ("no_cuda", False),
    ("fsdp_min_num_params", 0),
    ("fsdp_transformer_layer_cls_to_wrap", None),
    ("dispatch_batches", None),
    ("split_batches", False),
    ("tpu_metrics_debug", False),
    ("push_to_hub_model_id", None),
    ("push_to_hub_token", "<PUSH_TO_HUB_TOKEN>"),
    ("push_to_hub_token", None),
    ("include_tokens_per_second", False),
    # No effect, whatever they hold.
    ("use_legacy_prediction_loop", True),
    ("fp16_opt_level", "O2"),
    ("jit_mode_eval", True),
    ("use_ipex", True),
    ("use_mps_device", True),
    ("overwrite_output_dir", True),
    # Refused, but for these.
    ("past_index", -1),
    ("fp16_backend", "auto"),
    ("fp16_backend", "amp"),
    ("half_precision_backend", "cuda_amp"),
    ("sharded_ddp", ""),
    ("sharded_ddp", []),
    ("sharded_ddp", False),
    ("model_parallel", False),
    ("mp_parameters", ""),
    ("tp_size", 0),
    ("tp_size", 1),
    ("tpu_num_cores", None),
    ("save_safetensors", True),
    ("push_to_hub_organization", None),
    ("ray_scope", "last"),
]
REFUSED = [
    ("past_index", 1, "caches"),
    ("fp16_backend", "apex", "bf16=True"),
    ("half_precision_backend", "apex", "fp16=True"),
    ("sharded_ddp", "simple", "fsdp=True"),
    ("model_parallel", True, "device_map"),
    ("mp_parameters", "partitions=2", "fsdp=True"),
    ("tp_size", 2, "parallelism_config"),
    ("tpu_num_cores", 8, "launcher"),
    ("save_safetensors", False, "safetensors"),
    ("push_to_hub_organization", "org", 'hub_model_id="organisation/name"'),
    ("ray_scope", "all", "RAY_SCOPE"),
    ("warmup_ratio", 1.0, "warmup_steps"),
    ("warmup_ratio", -0.1, "warmup_steps"),
]
# Table a.2 of the inventory: names of settings, as the original's 4.x had them.
INVENTORY = [
    "evaluation_strategy",
    "logging_dir",
    "no_cuda",
    "use_mps_device",
    "per_gpu_train_batch_size",
    "per_gpu_eval_batch_size",
    "warmup_ratio",
    "overwrite_output_dir",
    "save_safetensors",
    "fp16_backend",
    "half_precision_backend",
    "fp16_opt_level",
    "include_inputs_for_metrics",
    "include_tokens_per_second",
    "group_by_length",
    "adafactor",
    "sharded_ddp",
    "fsdp_min_num_params",
    "fsdp_transformer_layer_cls_to_wrap",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "push_to_hub_model_id",
    "push_to_hub_organization",
    "push_to_hub_token",
    "torchdynamo",
    "ray_scope",
    "jit_mode_eval",
    "use_ipex",
    "dispatch_batches",
    "split_batches",
    "mp_parameters",
    "past_index",
    "tpu_num_cores",
    "tpu_metrics_debug",
    "use_legacy_prediction_loop",
]


def make(kind=Seq2SeqTrainingArguments, **given):
    """Make arguments; return them with the text of the one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        args = kind("out", **given)
    assert [one.category for one in caught] == [FutureWarning]
    lines, first = inspect.getsourcelines(make)
    assert first <= caught[0].lineno < first + len(lines)
    assert caught[0].filename == __file__
    return args, str(caught[0].message)


@pytest.fixture
def all_served(monkeypatch):
    for name in list(UNSERVED):
        monkeypatch.delitem(UNSERVED, name)


def test_the_table_holds_every_older_name_of_the_inventory():
    assert set(INVENTORY) <= set(ALIASES)
    shown = {name for name, *_ in RENAMED} | {name for name, _ in NOTHING_ASKED} | {name for name, *_ in REFUSED}
    assert set(ALIASES) == shown


def test_every_alias_leads_to_a_setting_that_exists():
    names = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    for alias in ALIASES.values():
        if isinstance(alias, Renamed):
            assert alias.to in names
        elif isinstance(alias, NoEffect):
            assert alias.why
        else:
            assert isinstance(alias, Refused)
            assert alias.instead
    assert {name for name, _ in OLD_VALUES} <= names


@pytest.mark.parametrize(("old", "value", "today", "new"), RENAMED)
@pytest.mark.usefixtures("all_served")
def test_a_renamed_setting_is_taken_with_one_warning(old, value, today, new):
    args, warning = make(**{old: value})
    expected = Seq2SeqTrainingArguments("out", **{today: new})
    assert args == expected
    assert warning.count("\n") == 1
    assert old in warning
    assert today in warning
    assert "hf_secret" not in warning
    assert today in args._given


@pytest.mark.parametrize(("old", "value"), NOTHING_ASKED)
def test_a_setting_that_asks_for_nothing_is_left_out(old, value):
    args, warning = make(**{old: value})
    assert args == Seq2SeqTrainingArguments("out")
    assert f"{old}: leave it out" in warning


@pytest.mark.parametrize(
    ("old", "value"),
    [
        ("use_legacy_prediction_loop", False),
        ("fp16_opt_level", "O1"),
        ("jit_mode_eval", False),
        ("use_ipex", False),
        ("use_mps_device", False),
        ("overwrite_output_dir", False),
        ("model_parallel", False),
        ("mp_parameters", ""),
        ("save_safetensors", True),
        ("ray_scope", "last"),
        ("fp16_backend", "auto"),
        ("half_precision_backend", "auto"),
        ("sharded_ddp", ""),
        ("push_to_hub_organization", None),
    ],
)
def test_a_setting_that_is_gone_reads_as_its_default_was(old, value):
    with pytest.warns(FutureWarning, match=f"{old} is gone and has no effect"):
        assert getattr(TrainingArguments("out"), old) == value


@pytest.mark.parametrize(("today", "old"), [("no", False), ("steps", True), ("epoch", True)])
def test_whether_to_evaluate_reads_from_the_strategy(today, old):
    with pytest.warns(FutureWarning, match="read eval_strategy"):
        assert TrainingArguments("out", eval_strategy=today).evaluate_during_training is old


@pytest.mark.parametrize(("old", "value", "fragment"), REFUSED)
def test_what_would_change_results_is_refused(old, value, fragment):
    with pytest.raises(ArgumentError) as error:
        TrainingArguments("out", **{old: value})
    assert old in str(error.value)
    assert fragment in str(error.value)


@pytest.mark.parametrize(("setting", "old"), OLD_VALUES)
@pytest.mark.usefixtures("all_served")
def test_an_older_word_becomes_todays(setting, old):
    args, warning = make(**{setting: old})
    assert args == Seq2SeqTrainingArguments("out", **{setting: OLD_VALUES[setting, old]})
    assert f"{setting}={old!r}: write {setting}={OLD_VALUES[setting, old]!r}" in warning


def test_one_warning_lists_all():
    args, warning = make(evaluation_strategy="epoch", no_cuda=True, overwrite_output_dir=True, optim="adamw_hf")
    assert (args.eval_strategy, args.use_cpu, args.optim) == ("epoch", True, "adamw_torch")
    assert warning.count("\n") == 4
    for fragment in (
        "eval_strategy='epoch'",
        "use_cpu=True",
        "overwrite_output_dir: leave it out",
        "optim='adamw_torch'",
    ):
        assert fragment in warning


def test_todays_names_warn_of_nothing():
    TrainingArguments("out", eval_strategy="epoch", activation_checkpointing=True)


@pytest.mark.parametrize(
    "given",
    [
        {"evaluation_strategy": "epoch", "eval_strategy": "epoch"},
        {"warmup_ratio": 0.1, "warmup_steps": 0},
        {"warmup_ratio": 0.0, "warmup_steps": 100},
        {"no_cuda": False, "use_cpu": True},
        {"per_gpu_train_batch_size": 4, "per_device_train_batch_size": 4},
        {"gradient_checkpointing": True, "activation_checkpointing": True},
        {"gradient_checkpointing": True, "activation_checkpointing": None},
        {"include_tokens_per_second": True, "include_num_input_tokens_seen": "all"},
    ],
    ids=str,
)
def test_old_and_new_that_agree_are_taken(given):
    make(**given)


@pytest.mark.parametrize(
    ("given", "fragments"),
    [
        (
            {"evaluation_strategy": "epoch", "eval_strategy": "steps"},
            ["evaluation_strategy='epoch'", "eval_strategy='steps'"],
        ),
        ({"warmup_ratio": 0.1, "warmup_steps": 100}, ["warmup_ratio=0.1", "warmup_steps=100"]),
        ({"no_cuda": True, "use_cpu": False}, ["no_cuda=True", "use_cpu=False"]),
        ({"adafactor": True, "optim": "sgd"}, ["adafactor=True", "optim='sgd'"]),
        (
            {"gradient_checkpointing": True, "activation_checkpointing": False},
            ["gradient_checkpointing=True", "activation_checkpointing=False"],
        ),
        (
            {"split_batches": True, "accelerator_config": {"split_batches": False}},
            ["split_batches=True", "accelerator_config={'split_batches': False}"],
        ),
        ({"push_to_hub_token": "hf_a", "hub_token": "hf_b"}, ["push_to_hub_token=<PUSH_TO_HUB_TOKEN>"]),
    ],
)
def test_old_and_new_that_differ_are_an_error(given, fragments):
    with pytest.raises(ArgumentError, match="say different things") as error:
        TrainingArguments("out", **given)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.usefixtures("all_served")
def test_keys_of_one_dictionary_join():
    args, _ = make(split_batches=True, dispatch_batches=True, accelerator_config={"non_blocking": True})
    config = args.accelerator_config
    assert (config.split_batches, config.dispatch_batches, config.non_blocking) == (True, True, True)
    args, _ = make(fsdp=True, fsdp_min_num_params=5, fsdp_transformer_layer_cls_to_wrap=["A", "B"])
    assert args.fsdp_config == {"min_num_params": 5, "transformer_layer_cls_to_wrap": ["A", "B"]}


@pytest.mark.parametrize(
    ("old", "given", "read"),
    [
        ("evaluation_strategy", {"eval_strategy": "epoch"}, "epoch"),
        ("evaluate_during_training", {"eval_strategy": "epoch"}, True),
        ("evaluate_during_training", {}, False),
        ("include_inputs_for_metrics", {"include_for_metrics": ["inputs"]}, True),
        ("per_gpu_train_batch_size", {}, 8),
        ("warmup_ratio", {"warmup_steps": 0.1}, 0.1),
        ("warmup_ratio", {"warmup_steps": 100}, 0.0),
        ("no_cuda", {"use_cpu": True}, True),
        ("group_by_length", {"train_sampling_strategy": "group_by_length"}, True),
        ("adafactor", {}, False),
        ("logging_dir", {"tensorboard_dir": "logs"}, "logs"),
        ("dispatch_batches", {}, None),
        ("split_batches", {}, False),
        ("fsdp_min_num_params", {}, 0),
        ("fsdp_transformer_layer_cls_to_wrap", {}, None),
        ("include_tokens_per_second", {"include_num_input_tokens_seen": True}, True),
        ("overwrite_output_dir", {}, False),
        ("save_safetensors", {}, True),
        ("fp16_backend", {}, "auto"),
        ("tpu_metrics_debug", {}, False),
        ("push_to_hub_model_id", {}, None),
    ],
)
def test_an_old_name_is_read_as_today(monkeypatch, old, given, read):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    args = TrainingArguments("out", **given)
    with pytest.warns(FutureWarning, match=old) as caught:
        assert getattr(args, old) == read
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_logging_dir_reads_the_environment(monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "elsewhere")
    with pytest.warns(FutureWarning):
        assert TrainingArguments("out").logging_dir == "elsewhere"


def test_logging_dir_is_settled_when_it_is_read(monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    args = TrainingArguments("out")
    with pytest.warns(FutureWarning, match="read tensorboard_dir"):
        folder = args.logging_dir
    assert folder.startswith("out/runs/")
    assert args.tensorboard_dir == folder


def test_a_setting_without_effect_reads_as_it_was_given():
    args, _ = make(overwrite_output_dir=True)
    with pytest.warns(FutureWarning, match="no effect"):
        assert args.overwrite_output_dir is True


def test_an_old_name_is_set_as_today():
    args = TrainingArguments("out")
    with pytest.warns(FutureWarning, match="eval_strategy='epoch'") as caught:
        args.evaluation_strategy = "epoch"
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert args.eval_strategy == "epoch"
    assert "eval_strategy" in args._given
    with pytest.warns(FutureWarning, match="no effect"):
        args.overwrite_output_dir = True
    with pytest.warns(FutureWarning):
        assert args.overwrite_output_dir is True
    with pytest.raises(ArgumentError, match="safetensors"), pytest.warns(FutureWarning):
        args.save_safetensors = False
    args.fsdp_config = {"xla": False}
    with pytest.warns(FutureWarning):
        args.fsdp_min_num_params = 5
    assert args.fsdp_config == {"xla": False, "min_num_params": 5}


def test_the_mirrors_follow_each_other():
    args = TrainingArguments("out")
    assert (args.activation_checkpointing, args.gradient_checkpointing) == (False, False)
    args.gradient_checkpointing = True
    assert args.activation_checkpointing is True
    args.activation_checkpointing = False
    assert args.gradient_checkpointing is False
    args.gradient_checkpointing_kwargs = {"use_reentrant": False}
    assert args.activation_checkpointing_kwargs == {"use_reentrant": False}


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("learnin_rate", "Did you mean learning_rate?"),
        ("Learning_Rate", "Did you mean learning_rate?"),
        ("per_device_batch_size", "Did you mean per_device_"),
        ("evaluation_stratgy", "Did you mean eval_strategy?"),
        ("overwrite_output_dirs", "Did you mean overwrite_output_dir?"),
        ("lr", "Did you mean learning_rate?"),
        ("tokenizer", "processing_class"),
        ("zzzzzz", "has no setting 'zzzzzz'."),
        ("predict_from_generate", "has no setting"),
    ],
)
def test_an_unknown_name_is_answered(name, fragment):
    with pytest.raises(UnknownArgumentError) as error:
        TrainingArguments("out", **{name: 1})
    assert isinstance(error.value, TypeError)
    assert f"TrainingArguments has no setting {name!r}" in str(error.value)
    assert fragment in str(error.value)


@pytest.mark.parametrize("guess", GUESSES)
def test_a_guess_is_no_setting(guess):
    assert guess not in {field.name for field in dataclasses.fields(TrainingArguments)} | set(ALIASES)
    assert GUESSES[guess] in unknown_name("X", guess, [])


def test_unknown_names_are_told_all_at_once():
    with pytest.raises(UnknownArgumentError) as error:
        TrainingArguments("out", learnin_rate=1, lr=2)
    assert str(error.value).count("has no setting") == 2


def test_a_misspelt_attribute_is_stopped_and_others_are_not():
    args = TrainingArguments("out")
    with pytest.raises(UnknownArgumentError, match="Did you mean 'num_train_epochs'"):
        args.num_train_epoch = 3
    assert not hasattr(args, "num_train_epoch")
    args.dataset_name = "mine"
    args.dataset_name = "yours"
    args._n_gpu = 1
    assert (args.dataset_name, args._n_gpu) == ("yours", 1)
    with pytest.raises(AttributeError):
        args.train_batch_size = 8


def test_an_absent_attribute_is_absent():
    args = TrainingArguments("out")
    assert not hasattr(args, "nothing_of_the_kind")
    with pytest.raises(AttributeError, match="'TrainingArguments' object has no attribute 'nothing'"):
        _ = args.nothing
    assert not hasattr(args, "_nothing")
    assert not hasattr(args, "predict_from_generate")
    assert getattr(object.__new__(TrainingArguments), "attached", None) is None


def test_the_signature_stays_as_it_was():
    parameters = list(inspect.signature(TrainingArguments).parameters)
    assert parameters[0] == "output_dir"
    assert parameters == [
        *[field.name for field in dataclasses.fields(TrainingArguments) if not field.kw_only],
        *[field.name for field in dataclasses.fields(TrainingArguments) if field.kw_only],
    ]


def test_nothing_shows_itself():
    assert repr(NOTHING) == "NOTHING"
