"""What nothing serves yet is refused with what it is for; everything else is taken."""

import dataclasses

import pytest

from surestep.config.arguments import Seq2SeqTrainingArguments, TrainingArguments
from surestep.config.unserved import UNSERVED, UNSERVED_ENVIRONMENT
from surestep.errors import NotServedError

# A value of each unserved setting that asks for something.
ASKED = {
    "accelerator_config": {"dispatch_batches": True},
    "parallelism_config": object(),
    "fsdp": "full_shard auto_wrap",
    "fsdp_config": {"min_num_params": 1},
    "deepspeed": {"zero_optimization": {"stage": 2}},
    "debug": "tpu_metrics_debug",
}
MORE = [
    ("debug", "underflow_overflow tpu_metrics_debug"),
    ("fsdp", True),
    ("fsdp", ["full_shard"]),
    ("fsdp_config", "fsdp.json"),
    ("deepspeed", "zero.json"),
]


def test_every_row_is_shown():
    assert set(ASKED) == set(UNSERVED)
    assert set(ASKED) <= {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}


@pytest.mark.parametrize(("name", "value"), [*ASKED.items(), *MORE])
def test_what_nothing_serves_yet_is_refused(name, value):
    with pytest.raises(NotServedError) as error:
        Seq2SeqTrainingArguments("out", **{name: value})
    assert f"not served yet ({UNSERVED[name].what}; see docs/compatibility.md)" in str(error.value)
    args = Seq2SeqTrainingArguments("out")
    setattr(args, name, value)
    with pytest.raises(NotServedError):
        args.validate_parameters()


@pytest.mark.parametrize("variable", UNSERVED_ENVIRONMENT)
def test_what_the_environment_asks_for_is_refused_too(monkeypatch, variable):
    monkeypatch.setenv(variable, "false")
    TrainingArguments("out")
    monkeypatch.setenv(variable, "true")
    with pytest.raises(NotServedError, match=f"{variable} in the environment"):
        TrainingArguments("out")


@pytest.mark.parametrize(
    "given",
    [
        {"optim": "adamw_torch"},
        {"optim": "sgd"},
        {"optim": "muon"},
        {"optim": "galore_adamw", "optim_target_modules": ["attn"]},
        {"auto_find_batch_size": True, "skip_memory_metrics": False, "debug": "underflow_overflow"},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": 2, "offload": True}},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
        {"report_to": ["tensorboard"]},
        {
            "report_to": ["wandb", "flyte"],
            "project": "mine",
            "trackio_space_id": "a/b",
            "trackio_static_space_id": False,
        },
        {"log_on_each_node": False},
        {"fsdp_config": {"min_num_params": 0, "xla": False, "xla_fsdp_grad_ckpt": False}},
        {"neftune_noise_alpha": 5},
        {"torch_compile": True},
        {"label_smoothing_factor": 0.1},
        {"train_sampling_strategy": "batch_rebalance"},
        {"eval_on_start": True, "batch_eval_metrics": True, "include_for_metrics": ["inputs", "loss"]},
        {"save_only_model": True, "save_on_each_node": True},
        {"full_determinism": True},
        {"max_time": "2h"},
    ],
    ids=str,
)
def test_what_is_served_is_taken(given):
    TrainingArguments("out", **given)


@pytest.mark.parametrize(
    "settings",
    [
        # What TRL and sentence-transformers set, without effect on one process.
        {"accelerator_config": {"dispatch_batches": False}},
        {"accelerator_config": {"use_configured_state": True, "even_batches": False}},
        {"ddp_broadcast_buffers": False},
        {"accelerator_config": {"split_batches": True, "non_blocking": True}},
        {"accelerator_config": {"gradient_accumulation_kwargs": {"adjust_scheduler": True, "sync_each_batch": False}}},
    ],
)
def test_what_changes_nothing_for_one_process_is_taken(settings):
    TrainingArguments("out", **settings).validate_parameters()


@pytest.mark.parametrize(
    ("config", "instead"),
    [
        ({"dispatch_batches": True}, "Leave dispatch_batches out: every process reads"),
        ({"use_seedable_sampler": False}, "Leave use_seedable_sampler out: an order drawn"),
        ({"gradient_accumulation_kwargs": {"sync_each_batch": True}}, "Leave sync_each_batch out"),
        ({"gradient_accumulation_kwargs": {"adjust_scheduler": False}}, "Leave adjust_scheduler out"),
        ({"gradient_accumulation_kwargs": {"sync_with_dataloader": False}}, "Leave sync_with_dataloader out"),
    ],
)
def test_each_part_of_the_accelerators_settings_is_refused_by_name(config, instead):
    with pytest.raises(NotServedError, match=f"accelerator_config=.* is not served yet .*{instead}"):
        TrainingArguments("out", accelerator_config=config)
