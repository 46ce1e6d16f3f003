import copy
import dataclasses
import json
import logging
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.enums import DebugOption, IntervalStrategy, OptimizerNames, SaveStrategy, SchedulerType
from surestep.config.topics.best import grows_better
from surestep.config.topics.hardware import AcceleratorConfig
from surestep.errors import ArgumentError, UnknownArgumentError

# Our own settings.
OURS = (
    "global_batch_size",
    "max_time",
    "tensorboard_dir",
    "parameter_rules",
    "layerwise_lr_decay",
    "max_grad_value",
    "adaptive_clip_ratio",
    "fp8",
    "preflight",
    "sampling_weights",
    "data_seeding",
    "nonfinite",
    "track_best",
    "eval_spill_bytes",
    "resume_allow",
    "save_keep_best",
    "save_keep_every",
    "on_save_error",
    "save_async",
    "save_remote",
    "resume_strict",
    "on_signal",
    "save_on_exception",
    "preemption_grace",
)

# What both classes make of the same keyword arguments.
SAME = [
    {},
    {"eval_strategy": "steps"},
    {"eval_strategy": "steps", "eval_steps": 0},
    {"eval_strategy": "steps", "eval_steps": 50.0, "logging_steps": 20.0, "save_steps": 100.0},
    {"eval_strategy": "steps", "logging_steps": 0.1},
    {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    {"save_strategy": "best", "metric_for_best_model": "accuracy", "eval_strategy": "epoch"},
    {"metric_for_best_model": "eval_loss"},
    {"metric_for_best_model": "f1"},
    {"metric_for_best_model": "eval_xloss", "greater_is_better": True},
    {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
    {"lr_scheduler_type": "greedy", "eval_strategy": "epoch"},
    {"lr_scheduler_kwargs": '{"num_cycles": "2", "power": "0.5", "deep": {"on": "true", "name": "x"}}'},
    {"torch_compile": True},
    {"torch_compile_mode": "max-autotune"},
    {"torch_compile_backend": "eager"},
    {"use_cpu": True},
    {"lr_scheduler_kwargs": '{"num_cycles": 2}'},
    {"activation_checkpointing": True, "activation_checkpointing_kwargs": '{"use_reentrant": "false"}'},
    {"include_num_input_tokens_seen": True},
    {"include_num_input_tokens_seen": False},
    {"include_num_input_tokens_seen": "non_padding"},
    {"report_to": "tensorboard"},
    {"report_to": ["tensorboard"]},
    {"report_to": ["none"]},
    {"debug": ""},
    {"debug": None},
    {"output_dir": "~/somewhere"},
    {"warmup_steps": 0.1},
    {"disable_tqdm": True},
    {"fp16": True},
    {"label_names": ["labels"]},
    {"optim": OptimizerNames.SGD.value, "optim_args": "momentum=0.9"},
]


@pytest.mark.parametrize("given", SAME, ids=str)
def test_what_construction_makes_of_values_is_the_originals(given):
    stock, ours = transformers.TrainingArguments(**{"output_dir": "out", **given}), TrainingArguments(**given)
    if "output_dir" not in given:
        ours.output_dir = "out"
    theirs, mine = stock.to_dict(), ours.to_dict()
    for name in set(theirs) - {"accelerator_config"}:
        assert mine[name] == theirs[name], name
    assert ours.mixed_precision == stock.mixed_precision


def test_to_dict_and_json_are_the_originals_and_ours():
    stock, ours = transformers.TrainingArguments("out"), TrainingArguments("out")
    theirs, mine = json.loads(stock.to_json_string()), json.loads(ours.to_json_string())
    theirs["accelerator_config"]["use_configured_state"] = False
    set_ = {
        "fp8": False,
        "data_seeding": "batch",
        "preflight": False,
        "nonfinite": "stop",
        "eval_spill_bytes": 2**30,
        "resume_strict": False,
        "save_on_exception": True,
        "on_save_error": "continue",
        "save_async": False,
    }
    assert mine == theirs | dict.fromkeys(OURS) | set_
    assert ours.to_json_string() == json.dumps(ours.to_dict(), indent=2)


def test_to_sanitized_dict_is_the_originals():
    stock, ours = (
        transformers.TrainingArguments("out").to_sanitized_dict(),
        TrainingArguments("out").to_sanitized_dict(),
    )
    for name in set(stock) - {"accelerator_config"}:
        assert ours[name] == stock[name], name
        assert type(ours[name]) is type(stock[name]), name
    assert set(ours) - set(stock) == set(OURS)


def test_text_is_the_originals():
    stock, ours = str(transformers.TrainingArguments("out")), TrainingArguments("out")
    lines = [line for line in str(ours).splitlines() if not line.startswith(tuple(f"{name}=" for name in OURS))]
    different = [pair for pair in zip(lines, stock.splitlines(), strict=True) if pair[0] != pair[1]]
    assert different == []
    assert repr(ours) == str(ours)


def test_plain_forms_of_unusual_values():
    @dataclasses.dataclass
    class Wide(TrainingArguments):
        model_init_kwargs: dict | None = None
        path: Path | None = None
        access_token: str | None = None
        tensor: object = None

    quantization = types.SimpleNamespace(to_dict=lambda: {"bits": 4})
    parallel = types.SimpleNamespace(to_json=lambda: {"tp_size": 2})
    args = Wide(
        model_init_kwargs={"dtype": torch.bfloat16, "quantization_config": quantization, "nested": {"dtype": "auto"}},
        path=Path("a"),
        access_token="secret",
        tensor=torch.tensor(1),
    )
    args.parallelism_config = parallel
    args.debug = [DebugOption.UNDERFLOW_OVERFLOW]
    values = args.to_dict()
    assert values["model_init_kwargs"] == {
        "dtype": "bfloat16",
        "quantization_config": {"bits": 4},
        "nested": {"dtype": "auto"},
    }
    assert values["parallelism_config"] == {"tp_size": 2}
    assert values["path"] == "a"
    assert values["debug"] == ["underflow_overflow"]
    assert values["access_token"] == "<ACCESS_TOKEN>"
    assert "secret" not in str(args)
    assert isinstance(args.to_sanitized_dict()["tensor"], torch.Tensor)


def test_secrets_are_shown_nowhere():
    args = TrainingArguments("out")
    args.hub_token = "hf_secret"

    @dataclasses.dataclass
    class Sub(TrainingArguments):
        pass

    sub = Sub("out")
    sub.hub_token = "hf_secret"
    for shown in (str(args), repr(args), str(args.to_dict()), args.to_json_string(), repr(sub), str(sub)):
        assert "hf_secret" not in shown
    assert args.to_dict()["hub_token"] == "<HUB_TOKEN>"
    with pytest.raises(ArgumentError) as error:
        TrainingArguments(hub_token=["hf_secret"])
    assert "hf_secret" not in str(error.value)


def test_seq2seq_writes_its_generation_config():
    args = Seq2SeqTrainingArguments("out")
    args.generation_config = transformers.GenerationConfig(num_beams=3)
    assert args.to_dict()["generation_config"]["num_beams"] == 3
    assert isinstance(json.loads(args.to_json_string()), dict)


def test_json_brings_the_arguments_back(tmp_path):
    args = TrainingArguments("out", learning_rate=1e-3, eval_strategy="steps", label_names=["a"], max_time="2h")
    args.hub_token = "hf_secret"
    args.save_json(tmp_path / "args.json")
    text = (tmp_path / "args.json").read_text(encoding="utf-8")
    assert json.loads(text)["hub_token"] is None
    args.hub_token = None
    assert TrainingArguments.load_json(tmp_path / "args.json") == args


@pytest.mark.parametrize(
    ("text", "kind", "fragment"),
    [
        ("{", ArgumentError, "holds no arguments"),
        ("[1]", ArgumentError, "no object"),
        ('{"from_the_future": 1, "learnin_rate": 2}', UnknownArgumentError, "from_the_future"),
        ('{"from_the_future": 1, "learnin_rate": 2}', UnknownArgumentError, "Did you mean learning_rate?"),
    ],
)
def test_json_that_holds_no_arguments(tmp_path, text, kind, fragment):
    (tmp_path / "args.json").write_text(text, encoding="utf-8")
    with pytest.raises(kind, match=fragment.replace("?", r"\?")):
        TrainingArguments.load_json(tmp_path / "args.json")


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(ArgumentError, match=r"absent\.json"):
        TrainingArguments.load_json(tmp_path / "absent.json")


def test_json_of_an_older_version(tmp_path):
    (tmp_path / "args.json").write_text('{"evaluation_strategy": "epoch"}', encoding="utf-8")
    with pytest.warns(FutureWarning, match="eval_strategy"):
        assert TrainingArguments.load_json(tmp_path / "args.json").eval_strategy == "epoch"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda args: pickle.loads(pickle.dumps(args))])
@pytest.mark.parametrize("kind", [TrainingArguments, Seq2SeqTrainingArguments])
def test_copies_are_equal_and_remember_what_was_written(again, kind):
    args = kind("out", logging_nan_inf_filter=True, seed=3)
    args.attached = {"a": 1}
    twin = again(args)
    assert twin == args
    assert type(twin) is kind
    assert twin.attached == {"a": 1}
    assert twin._given == args._given == {"output_dir", "logging_nan_inf_filter", "seed"}


def test_replace_changes_what_it_is_told():
    args = TrainingArguments("out", seed=3, eval_strategy="epoch", activation_checkpointing=True, report_to="none")
    twin = dataclasses.replace(args, learning_rate=1.0, activation_checkpointing=False)
    assert (twin.seed, twin.learning_rate, twin.eval_strategy) == (3, 1.0, "epoch")
    assert (twin.activation_checkpointing, twin.gradient_checkpointing) == (False, False)
    assert {"seed", "learning_rate", "eval_strategy", "output_dir"} <= twin._given
    # What equals its default was not necessarily written by anyone.
    assert "logging_nan_inf_filter" not in twin._given


def test_the_originals_arguments_as_a_dictionary_are_taken():
    stock = transformers.TrainingArguments("out", learning_rate=1e-3, eval_strategy="epoch")
    ours = TrainingArguments(**stock.to_dict())
    assert ours.learning_rate == 1e-3
    assert ours.eval_strategy == IntervalStrategy.EPOCH
    assert "logging_nan_inf_filter" not in ours._given


def test_given_follows_setting_and_setters_but_not_what_is_worked_out():
    args = TrainingArguments("out", eval_strategy="steps", lr_scheduler_type="cosine", use_cpu=True)
    given = {"output_dir", "eval_strategy", "lr_scheduler_type", "use_cpu"}
    assert args._given == given
    args.validate_parameters()
    assert args._given == given
    args.logging_nan_inf_filter = True
    assert args._given == given | {"logging_nan_inf_filter"}
    assert "logging_nan_inf_filter" in TrainingArguments().set_logging(nan_inf_filter=True)._given
    assert "_given" not in args.to_dict()


def test_values_changed_afterwards_are_looked_at_again():
    args = TrainingArguments("out")
    args.eval_strategy = "epoch"
    args.learning_rate = np.float64(0.5)
    args.validate_parameters()
    assert args.eval_strategy is IntervalStrategy.EPOCH
    assert args.do_eval is True
    assert type(args.learning_rate) is float
    args.learning_rate = -1.0
    with pytest.raises(ArgumentError, match="learning_rate"):
        args.validate_parameters()
    args.learning_rate = 1.0
    args.validate_parameters()


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("per_device_train_batch_size", 8.0, 8),
        ("max_steps", 1e3, 1000),
        ("seed", np.int64(7), 7),
        ("learning_rate", np.float32(0.5), 0.5),
        ("bf16", np.True_, True),
        ("learning_rate", 1, 1),
        ("max_grad_norm", None, 0.0),
        ("max_grad_norm", float("inf"), float("inf")),
        ("eval_delay", None, 0),
        ("output_dir", Path("a") / "b", "a/b"),
        ("run_name", Path("a"), "a"),
        ("label_names", ("a", "b"), ["a", "b"]),
        ("eval_strategy", False, "no"),
        ("save_strategy", False, "no"),
        ("optim", transformers.training_args.OptimizerNames.SGD, OptimizerNames.SGD),
        ("lr_scheduler_type", transformers.trainer_utils.SchedulerType.COSINE, SchedulerType.COSINE),
        ("save_strategy", transformers.trainer_utils.IntervalStrategy.EPOCH, SaveStrategy.EPOCH),
        ("report_to", None, []),
        ("debug", False, []),
        ("log_level", "detail", "detail"),
        ("resume_from_checkpoint", True, True),
        ("resume_from_checkpoint", "path", "path"),
        ("deepspeed", "", None),
        ("fsdp", False, False),
        ("fsdp", "", ""),
        ("fsdp", (), []),
        ("fsdp_config", {"min_num_params": 0, "xla": False}, {"min_num_params": 0, "xla": False}),
        ("liger_kernel_config", {}, {}),
        ("hub_token", "<HUB_TOKEN>", None),
        ("accelerator_config", {"even_batches": True}, AcceleratorConfig()),
        ("accelerator_config", '{"split_batches": "false"}', AcceleratorConfig()),
        ("max_time", 90, 90.0),
        ("max_time", "90", 90.0),
        ("max_time", "90s", 90.0),
        ("max_time", "90m", 5400.0),
        ("max_time", "2h", 7200.0),
        ("max_time", "1h30m", 5400.0),
        ("max_time", " 1D 2h 0.5m ", 93630.0),
        ("dataloader_num_workers", np.float64(2.0), 2),
    ],
)
def test_values_take_their_one_form(name, value, kept):
    args = TrainingArguments(**{name: value})
    assert getattr(args, name) == kept
    assert isinstance(getattr(args, name), type(kept))
    args.validate_parameters()
    assert getattr(args, name) == kept


def test_the_originals_accelerator_config_is_taken(tmp_path):
    from transformers.trainer_pt_utils import AcceleratorConfig as Stock

    assert TrainingArguments(accelerator_config=Stock()).accelerator_config == AcceleratorConfig()
    (tmp_path / "accelerator.json").write_text('{"even_batches": true}', encoding="utf-8")
    assert TrainingArguments(accelerator_config=tmp_path / "accelerator.json").accelerator_config == AcceleratorConfig()


@pytest.mark.parametrize(
    ("level", "expected"), [(logging.DEBUG, False), (logging.WARNING, False), (logging.ERROR, True)]
)
def test_the_bar_follows_the_log_level(level, expected):
    logger = logging.getLogger("surestep")
    before = logger.level
    logger.setLevel(level)
    try:
        assert TrainingArguments().disable_tqdm is expected
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize(("value", "mixed"), [("no", "no"), ("bf16", "bf16"), ("fp16", "fp16"), ("fp8", "fp8")])
def test_mixed_precision_reads_the_environment(monkeypatch, value, mixed):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
    assert TrainingArguments().mixed_precision == mixed
    assert TrainingArguments(bf16=True).mixed_precision == "bf16"
    assert TrainingArguments(fp16=True).mixed_precision == "fp16"
    assert (
        TrainingArguments(fp8=True).mixed_precision == TrainingArguments(fp8=True, bf16=True).mixed_precision == "fp8"
    )


def test_all_trackers_are_those_installed(monkeypatch):
    from surestep.config.topics import tracking

    monkeypatch.setattr(tracking, "installed", lambda module: module in {"tensorboardX"})
    assert TrainingArguments(report_to="all").report_to == ["tensorboard"]
    assert TrainingArguments(report_to=["all"]).report_to == ["tensorboard"]


@pytest.mark.parametrize(
    ("metric", "grows"),
    [
        ("loss", False),
        ("eval_loss", False),
        ("eval_dev_loss", False),
        ("closs", False),
        ("accuracy", True),
        ("eval_f1", True),
        ("perplexity", False),
        ("eval_perplexity", False),
        ("wer", False),
        ("eval_test_wer", False),
        ("cer", False),
        ("ter", False),
        ("error", False),
        ("error_rate", False),
        ("mean_squared_error", False),
        ("mse", False),
        ("rmse", False),
        ("eval_MAE", False),
        ("precision", True),
        ("chapter", True),
        ("power", True),
        ("bleu", True),
    ],
)
def test_a_metric_knows_its_direction(metric, grows):
    assert grows_better(metric) is grows
    assert TrainingArguments(metric_for_best_model=metric).greater_is_better is grows
    assert TrainingArguments(metric_for_best_model=metric, greater_is_better=not grows).greater_is_better is not grows


def test_a_known_direction_differs_from_the_originals_suffix():
    stock = transformers.TrainingArguments("out", metric_for_best_model="perplexity")
    assert stock.greater_is_better is True
    assert TrainingArguments("out", metric_for_best_model="perplexity").greater_is_better is False


def test_saving_and_evaluating_need_not_share_a_schedule():
    given = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps"}
    with pytest.raises(ValueError, match="strategy to match"):
        transformers.TrainingArguments("out", **given)
    assert TrainingArguments("out", **given).metric_for_best_model == "loss"


@pytest.mark.parametrize(("per_device", "total", "steps"), [(8, 8, 1), (8, 64, 8), (3, 27, 9), (1, 5, 5)])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_accumulation_is_worked_out(monkeypatch, per_device, total, steps, world):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    args = TrainingArguments(per_device_train_batch_size=per_device, global_batch_size=total * world)
    assert args.gradient_accumulation_steps == steps
    assert type(args.gradient_accumulation_steps) is int
    assert args.calculate_effective_batch_size() == total * world
    assert args.get_device_count() == world


def test_accumulation_is_worked_out_again_after_a_change():
    args = TrainingArguments(global_batch_size=32)
    args.per_device_train_batch_size = 4
    args.validate_parameters()
    assert args.gradient_accumulation_steps == 8
    args.gradient_accumulation_steps = 2
    with pytest.raises(ArgumentError, match="contradicts global_batch_size=32"):
        args.validate_parameters()
    assert dataclasses.replace(TrainingArguments(global_batch_size=32), seed=1).gradient_accumulation_steps == 4


def test_workers_beside_apples_gpu_are_forked(monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert TrainingArguments(dataloader_num_workers=2).dataloader_multiprocessing_context == "fork"
    assert TrainingArguments(dataloader_num_workers=1).dataloader_multiprocessing_context is None
    spawned = TrainingArguments(dataloader_num_workers=2, dataloader_multiprocessing_context="spawn")
    assert spawned.dataloader_multiprocessing_context == "spawn"


def test_bf16_needs_no_use_cpu_on_a_cpu(monkeypatch):
    monkeypatch.setattr("surestep.runtime.device.choose_device", lambda world, *, use_cpu: torch.device("cpu"))
    assert TrainingArguments(bf16=True, bf16_full_eval=True).mixed_precision == "bf16"


@pytest.mark.parametrize("name", ["bf16", "bf16_full_eval"])
def test_bf16_that_the_device_lacks(monkeypatch, name):
    monkeypatch.setattr("surestep.runtime.device.supports_bf16", lambda device: False)
    with pytest.raises(ArgumentError, match=f"{name}=True.*bfloat16"):
        TrainingArguments(**{name: True})


def test_tf32(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert TrainingArguments(tf32=False).tf32 is False
    with pytest.raises(ArgumentError, match="TF32"):
        TrainingArguments(tf32=True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    assert TrainingArguments(tf32=True).tf32 is True
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    with pytest.raises(ArgumentError, match="TF32"):
        TrainingArguments(tf32=True)


def test_the_accelerators_settings_may_say_how_many_micro_batches_a_step_has():
    config = {"gradient_accumulation_kwargs": {"num_steps": 4}}
    args = TrainingArguments("out", accelerator_config=config)

    assert args.gradient_accumulation_steps == 4
    args.validate_parameters()
    assert args.gradient_accumulation_steps == 4
