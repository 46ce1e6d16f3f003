"""Device and ranks, as the environment tells them."""

import logging
from datetime import timedelta

import pytest
import torch
import transformers

from surestep.config.arguments import TrainingArguments
from surestep.config.enums import ParallelMode


@pytest.fixture
def ranks(monkeypatch):
    """Return what sets this process's place."""

    def place(rank=0, size=1, local_rank=0, local_size=1):
        for name, value in (
            ("RANK", rank),
            ("WORLD_SIZE", size),
            ("LOCAL_RANK", local_rank),
            ("LOCAL_WORLD_SIZE", local_size),
        ):
            monkeypatch.setenv(name, str(value))

    return place


def test_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    stock, ours = transformers.TrainingArguments("out", use_cpu=True), TrainingArguments("out", use_cpu=True)
    for name in (
        "device",
        "_setup_devices",
        "n_gpu",
        "train_batch_size",
        "eval_batch_size",
        "world_size",
        "process_index",
        "local_process_index",
        "should_log",
        "should_save",
        "place_model_on_device",
        "ddp_timeout_delta",
    ):
        assert getattr(ours, name) == getattr(stock, name), name
    assert ours.parallel_mode.value == stock.parallel_mode.value
    assert ours.parallel_mode is ParallelMode.NOT_PARALLEL
    assert ours.ddp_timeout_delta == timedelta(seconds=1800)
    assert ours.get_device_count() == 1


def test_a_device_besides_the_cpu(monkeypatch):
    monkeypatch.setattr("surestep.runtime.device.choose_device", lambda world, *, use_cpu: torch.device("cuda", 0))
    args = TrainingArguments("out")
    assert args.device == args._setup_devices == torch.device("cuda", 0)
    assert args.n_gpu == 1
    assert args.train_batch_size == 8


@pytest.mark.parametrize(
    ("place", "log_each", "save_each", "logs", "saves"),
    [
        ((0, 4, 0, 2), True, True, True, True),
        ((2, 4, 0, 2), True, True, True, True),
        ((2, 4, 0, 2), True, False, True, False),
        ((2, 4, 0, 2), False, False, False, False),
        ((0, 4, 0, 2), False, False, True, True),
        ((3, 4, 1, 2), True, True, False, False),
    ],
)
def test_who_logs_and_saves(ranks, place, log_each, save_each, logs, saves):
    ranks(*place)
    args = TrainingArguments("out", log_on_each_node=log_each, save_on_each_node=save_each)
    assert (args.should_log, args.should_save) == (logs, saves)
    assert (args.process_index, args.world_size, args.local_process_index) == place[:3]
    assert args.parallel_mode is ParallelMode.DISTRIBUTED
    assert args.get_device_count() == 4
    assert args.calculate_effective_batch_size() == 32


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (0.1, 15), (0.5, 3), (1, 10), (7, 3), (0.999, 1000), (1.0, 9)])
def test_warmup_steps_are_the_originals(warmup, total):
    stock = transformers.TrainingArguments("out", warmup_steps=warmup)
    assert TrainingArguments("out", warmup_steps=warmup).get_warmup_steps(total) == stock.get_warmup_steps(total)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "detail"])
@pytest.mark.parametrize("rank", [0, 1])
def test_log_levels_are_the_originals(ranks, level, rank):
    stock = transformers.TrainingArguments("out", log_level=level, log_level_replica="error")
    ranks(rank, 2, rank, 2)
    ours = TrainingArguments("out", log_level=level, log_level_replica="error")
    assert ours.get_process_log_level() == (stock.get_process_log_level() if rank == 0 else logging.ERROR)


def test_a_passive_level_is_the_one_that_is_set():
    logger = logging.getLogger("surestep")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        assert TrainingArguments("out").get_process_log_level() == logging.INFO
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize(("rank", "local", "order"), [(0, True, ["body", "wait"]), (1, True, ["wait", "body"])])
def test_the_main_process_goes_first(ranks, monkeypatch, rank, local, order):
    seen = []
    ranks(rank, 2, rank, 2)
    monkeypatch.setattr("surestep.runtime.world.World.barrier", lambda world: seen.append("wait"))
    with TrainingArguments("out").main_process_first(local=local, desc="reading"):
        seen.append("body")
    assert seen == order


def test_a_batch_that_is_split_is_one_of_all_devices(ranks):
    ranks(size=4)
    split = {"accelerator_config": {"split_batches": True}, "per_device_train_batch_size": 8}

    assert TrainingArguments("out", use_cpu=True, **split).calculate_effective_batch_size() == 8
    args = TrainingArguments("out", use_cpu=True, **split, global_batch_size=24)
    assert args.gradient_accumulation_steps == 3
    assert args.calculate_effective_batch_size() == 24
