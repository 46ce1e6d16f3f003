"""Folders of the original's in every form that its years left behind, whole and damaged, and what is said of them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import surestep
from surestep.checkpoint.layout import checkpoints_in
from surestep.errors import CheckpointError
from tests.parity.compare import Seen
from tests.parity.harness import run
from tests.parity.models import FrozenNet, Points
from tests.resume.test_foreign import BASE, NET, Row, assert_goes_on, begin, go_on

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ROW = Row("usual")
Log = pytest.LogCaptureFixture
PICKLED = ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "pytorch_model.bin", "training_args.bin"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    folder = tmp_path_factory.mktemp("original")
    return folder, begin(folder, ROW, save_steps=3)


@pytest.fixture
def folder(made: tuple[Path, Seen], tmp_path: Path) -> Path:
    """A run's folder to work in, with checkpoints 3, 6, 9 and 12."""
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _logs(caplog: Log) -> None:
    caplog.set_level(logging.WARNING, logger="surestep")


def text_of(caplog: Log) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("surestep"))


def edit_state(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = checkpoint / "trainer_state.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# Forms of other years


def as_bin(checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()


def as_shards(checkpoint: Path) -> None:
    """Spread the weights over pickles as the 4.x years did."""
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = [f"pytorch_model-{number + 1:05d}-of-{len(weights):05d}.bin" for number in range(len(weights))]
    for file, (name, value) in zip(names, weights.items(), strict=True):
        torch.save({name: value}, checkpoint / file)
    index = {"metadata": {"total_size": 1}, "weight_map": dict(zip(weights, names, strict=True))}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def with_old_archives(checkpoint: Path) -> None:
    """Write the pickles as torch did before it used archives."""
    for path in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
        torch.save(torch.load(path, weights_only=False), path, _use_new_zipfile_serialization=False)


def with_random_of_several(checkpoint: Path) -> None:
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")


def with_state_of_an_older_version(checkpoint: Path) -> None:
    newer = ("stateful_callbacks", "best_global_step", "train_batch_size", "logging_steps", "eval_steps", "save_steps",
             "num_input_tokens_seen")  # fmt: skip
    edit_state(checkpoint, lambda state: [state.pop(name) for name in newer])


def with_state_of_another_program(checkpoint: Path) -> None:
    edit_state(checkpoint, lambda state: state.update(tokens_per_second=5.0, fancy=[1]))


def with_settings_of_an_older_torch(checkpoint: Path) -> None:
    """Leave out what torch added to the groups and the schedule since, and count steps in plain numbers."""
    content = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    for group in content["param_groups"]:
        for name in ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
            group.pop(name)
    for state in content["state"].values():
        state["step"] = int(state["step"])
    torch.save(content, checkpoint / "optimizer.pt")
    schedule = torch.load(checkpoint / "scheduler.pt", weights_only=True)
    schedule.pop("_is_initial")
    torch.save(schedule | {"verbose": False}, checkpoint / "scheduler.pt")


FORMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights as a pickle": (as_bin, ""),
    "weights in several pickles": (as_shards, ""),
    "pickles without archives": (with_old_archives, ""),
    "several processes": (with_random_of_several, "generators are those of the first"),
    "fewer keys": (with_state_of_an_older_version, ""),
    "more keys": (with_state_of_another_program, "fancy, tokens_per_second, which nothing here knows"),
    "an older torch": (with_settings_of_an_older_torch, ""),
    "arguments that nobody reads": (lambda checkpoint: (checkpoint / "training_args.bin").write_bytes(b"?"), ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_on_to_the_last_bit(form: str, folder: Path, made: tuple[Path, Seen], caplog: Log) -> None:
    change, said = FORMS[form]
    change(folder / "checkpoint-3")
    part = go_on(folder, ROW, str(folder / "checkpoint-3"))
    assert_goes_on(made[1], part, form)
    assert said in text_of(caplog)
    assert f"'{folder / 'checkpoint-3'}' was written by the original: training goes on after step 3" in text_of(caplog)


@pytest.mark.parametrize(
    ("config", "step", "told"),
    [
        ('{"transformers_version": "4.30.2"}', 3, True),
        ('{"transformers_version": "4.30.2"}', 6, False),
        ('{"transformers_version": "4.38.0"}', 3, False),
        ('{"transformers_version": null}', 3, False),
        ("[]", 3, False),
        ("?", 3, False),
    ],
)
def test_an_order_that_cannot_be_had_again_is_told(
    config: str, step: int, told: bool, folder: Path, caplog: Log
) -> None:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "config.json").write_text(config)
    go_on(folder, ROW, str(checkpoint))
    assert ("transformers 4.30.2 may have shuffled this epoch" in text_of(caplog)) is told


@pytest.mark.parametrize("adapter", ["adapter_model.safetensors", "adapter_model.bin"])
def test_adapters_in_both_forms(adapter: str, tmp_path: Path) -> None:
    from tests.resume.test_foreign import TEXT, adapted

    row = Row("adapters", {}, {"model": adapted, **TEXT})
    whole = begin(tmp_path, row, save_steps=4)
    checkpoint = tmp_path / "checkpoint-4"
    if adapter.endswith("bin"):
        torch.save(load_file(checkpoint / "adapter_model.safetensors"), checkpoint / adapter)
        (checkpoint / "adapter_model.safetensors").unlink()
    assert_goes_on(whole, go_on(tmp_path, row, str(checkpoint)), adapter)


def test_entries_that_newer_models_lack_are_told(folder: Path, made: tuple[Path, Seen], caplog: Log) -> None:
    checkpoint = folder / "checkpoint-3"
    as_bin(checkpoint)
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "position_ids": torch.arange(4)}, checkpoint / "pytorch_model.bin")
    assert_goes_on(made[1], go_on(folder, ROW, str(checkpoint)), "one more")
    assert "no 'position_ids'" in text_of(caplog)

    weights.pop("last.bias")
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="do not fit the model"):
        go_on(folder, ROW, str(checkpoint))


# Finding


def test_true_finds_the_newest_of_the_originals(folder: Path, made: tuple[Path, Seen]) -> None:
    shutil.rmtree(folder / "checkpoint-12")
    part = go_on(folder, ROW, True)
    assert_goes_on(made[1], part, "newest")
    assert len(part.losses) == 3


class StopAtEight(surestep.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 8


def test_folders_of_both_kinds_in_one_place(folder: Path, made: tuple[Path, Seen], caplog: Log) -> None:
    for step in (9, 12):
        shutil.rmtree(folder / f"checkpoint-{step}")
    row = Row("stopped", {}, {"callbacks": lambda side: [StopAtEight()]})
    go_on(folder, row, True, save_steps=1)
    assert (folder / "checkpoint-8" / "manifest.json").is_file()
    caplog.clear()

    part = go_on(folder, ROW, True, save_steps=1, save_total_limit=1)
    assert_goes_on(made[1], part, "ours is newer")
    assert part.events[0] == "on_train_begin@8"
    assert "written by the original" not in text_of(caplog)
    # A limit removes what this library wrote, and nothing else.
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-3", "checkpoint-6", "checkpoint-12"]


def cut(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:-100])


def flip_a_bit_of_a_moment(checkpoint: Path) -> None:
    path = checkpoint / "optimizer.pt"
    moment = torch.load(path, weights_only=True)["state"][0]["exp_avg"].numpy().tobytes()
    content = path.read_bytes()
    place = content.index(moment)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights cut short": (cut("model.safetensors"), "model.safetensors is damaged"),
    "an optimizer cut short": (cut("optimizer.pt"), "optimizer.pt is damaged"),
    "a flipped bit": (flip_a_bit_of_a_moment, "optimizer.pt is damaged"),
    "an empty file": (lambda checkpoint: (checkpoint / "rng_state.pth").write_bytes(b""), "rng_state.pth is empty"),
    "a state cut short": (cut("trainer_state.json"), "trainer_state.json is damaged"),
    "no state": (lambda checkpoint: (checkpoint / "trainer_state.json").unlink(), "neither manifest.json nor"),
    "a save on a signal": (lambda checkpoint: (checkpoint / "checkpoint-is-incomplete.txt").touch(), "not completed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_true_falls_back_over_a_damaged_one(damage: str, folder: Path, made: tuple[Path, Seen], caplog: Log) -> None:
    change, said = DAMAGES[damage]
    change(folder / "checkpoint-12")
    with pytest.raises(CheckpointError, match=said):
        go_on(folder, ROW, str(folder / "checkpoint-12"))
    part = go_on(folder, ROW, True)
    assert_goes_on(made[1], part, damage)
    assert part.events[0] == "on_train_begin@9"
    assert said in text_of(caplog)


# What does not fit


def test_parts_that_are_not_there_are_named(folder: Path, caplog: Log) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / "checkpoint-9" / name).unlink()
    part = go_on(folder, ROW, str(folder / "checkpoint-9"))
    assert part.state.global_step == 12
    assert "holds no state of the optimizer, the schedule, the random generators: resuming" in text_of(caplog)


def test_state_in_files_of_others_is_named(folder: Path, caplog: Log) -> None:
    checkpoint = folder / "checkpoint-9"
    (checkpoint / "optimizer.pt").unlink()
    (checkpoint / "global_step9").mkdir()
    go_on(folder, ROW, str(checkpoint))
    assert "no state of the optimizer (DeepSpeed kept it in files of its own, which are not read here)" in text_of(
        caplog
    )
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"in files of DeepSpeed.*zero_to_fp32"):
        go_on(folder, ROW, str(checkpoint))


def head_alone(model: Any) -> tuple[Any, None]:
    return torch.optim.AdamW([{"params": [*model.first.parameters()]}, {"params": [*model.last.parameters()]}]), None


MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "sgd": ({"optim": "sgd"}, {}, CheckpointError, r"another optimizer than SGD: .*'betas'.* lack .*'momentum'"),
    "adafactor": ({"optim": "adafactor"}, {}, CheckpointError, "another optimizer than Adafactor"),
    "rmsprop": ({"optim": "rmsprop"}, {}, CheckpointError, "another optimizer than RMSprop"),
    "frozen": ({}, {"model": FrozenNet}, CheckpointError, r"groups of \[2, 4\].*groups of \[1, 3\]"),
    "other groups": ({}, {"optimizers": head_alone}, CheckpointError, r"groups of \[2, 2\]"),
    "plateau": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
        {"evaluate": lambda: Points(8)},
        CheckpointError,
        r"scheduler.pt is not of a ReduceLROnPlateau",
    ),
    "samples": (
        {},
        {"train": lambda: Points(37)},
        CheckpointError,
        r"stood at epoch 1\.5 .* epoch 0\.9.*batch_size: 4",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused_by_name(misfit: str, folder: Path) -> None:
    arguments, options, kind, message = MISFITS[misfit]
    with pytest.raises(kind, match=message):
        go_on(folder, Row(misfit, arguments, options), str(folder / "checkpoint-9"))


def test_another_length_of_the_epoch_is_taken_where_the_position_does_not_matter(folder: Path) -> None:
    row = Row("skips", {"per_device_train_batch_size": 2, "ignore_data_skip": True, "max_steps": 30})
    assert go_on(folder, row, str(folder / "checkpoint-9")).state.global_step == 30


def test_moments_of_another_shape_are_refused_by_name(folder: Path) -> None:
    content = torch.load(folder / "checkpoint-9" / "optimizer.pt", weights_only=True)
    content["state"][0]["exp_avg"] = torch.zeros(2, 2)
    torch.save(content, folder / "checkpoint-9" / "optimizer.pt")
    with pytest.raises(CheckpointError, match=r"other shapes: 'first.weight \(saved \(2, 2\), now \(16, 6\)\)'"):
        go_on(folder, ROW, str(folder / "checkpoint-9"))


def test_moments_of_the_originals_own_adamw_are_taken(folder: Path, caplog: Log) -> None:
    path = folder / "checkpoint-9" / "optimizer.pt"
    content = torch.load(path, weights_only=True)
    kept = ("lr", "betas", "eps", "weight_decay", "initial_lr", "params")
    content["param_groups"] = [
        {name: group[name] for name in kept} | {"correct_bias": True} for group in content["param_groups"]
    ]
    torch.save(content, path)
    assert go_on(folder, ROW, str(folder / "checkpoint-9")).state.global_step == 12
    assert "AdamW of an older transformers" in text_of(caplog)


def test_content_of_another_kind_is_refused_by_file(folder: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        path = folder / "checkpoint-9" / name
        kept = path.read_bytes()
        for content in ([1], {"python": 1, "numpy": 2, "cpu": 3}, {"param_groups": [{}], "state": {}}):
            torch.save(content, path)
            with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                go_on(folder, ROW, str(folder / "checkpoint-9"))
        path.write_bytes(kept)


@pytest.mark.parametrize("step", [None, "3", -1, True])
def test_a_state_that_does_not_say_how_far_it_came_is_refused(folder: Path, step: Any) -> None:
    edit_state(folder / "checkpoint-9", lambda state: state.update(global_step=step))
    with pytest.raises(CheckpointError, match="global_step is"):
        go_on(folder, ROW, str(folder / "checkpoint-9"))


# Hostile files


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "archive": lambda payload, path: torch.save({"state": {}, "param_groups": [], "x": payload}, path),
    "plain": lambda payload, path: path.write_bytes(pickle.dumps(payload, protocol=2)),
    "newest protocol": lambda payload, path: path.write_bytes(pickle.dumps(payload)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PICKLED)
def test_no_code_in_a_file_of_the_original_runs(name: str, way: str, folder: Path, tmp_path: Path) -> None:
    marker, checkpoint = tmp_path / "executed", folder / "checkpoint-9"
    WAYS[way](Payload(marker), checkpoint / name)
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    fp16 = {"fp16": True} if name == "scaler.pt" else {}
    if name == "training_args.bin":
        assert go_on(folder, ROW, str(checkpoint)).state.global_step == 12
    else:
        with pytest.raises(
            CheckpointError, match=f"{name} (asks for|holds something else).*nothing in it has been run"
        ):
            go_on(folder, ROW, str(checkpoint), **fp16)
    assert not marker.exists()
    if way == "plain":
        # The payload is a real one.
        pickle.loads((checkpoint / name).read_bytes())
        assert marker.exists()


# The rest of the state


def test_the_loss_scale_goes_on(folder: Path, caplog: Log) -> None:
    """The original has no fp16 on a CPU, so that its file is written by the class that it uses."""
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    torch.save({**scaler.state_dict(), "scale": 64.0, "_growth_tracker": 5}, folder / "checkpoint-9" / "scaler.pt")
    seen = go_on(folder, ROW, str(folder / "checkpoint-9"), fp16=True)
    assert seen.trainer.engine.precision.state_dict()["scale"] == 64.0
    assert seen.trainer.engine.precision.state_dict()["_growth_tracker"] == 5 + 3

    go_on(folder, ROW, str(folder / "checkpoint-9"))
    assert "a loss scale, which this run has no use for" in text_of(caplog)


def test_the_best_and_the_patience_go_on(tmp_path: Path, caplog: Log) -> None:
    arguments = {
        **BASE,
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    options: dict[str, Any] = {**NET, "evaluate": lambda: Points(8, seed=3)}
    options["callbacks"] = lambda side: [side.EarlyStoppingCallback(early_stopping_patience=6)]
    whole = run(transformers, arguments, folder=str(tmp_path / "run"), **options)
    assert whole.state.global_step < 12
    # The folder moves; the best is found beside the checkpoint that is resumed from.
    (tmp_path / "run").rename(tmp_path / "moved")
    resume = {"drive": lambda trainer: trainer.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-4"))}
    part = run(surestep, {**arguments, "save_steps": 1}, folder=str(tmp_path / "moved"), **options, **resume)
    assert_goes_on(whole, part, "early stopping")
    assert part.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-1")
    assert "is gone" not in text_of(caplog)


def test_a_model_of_the_originals_best_folder_is_loaded_at_the_end(folder: Path) -> None:
    best = load_file(folder / "checkpoint-3" / "model.safetensors")
    edit_state(
        folder / "checkpoint-9",
        lambda state: state.update(best_metric=-1.0, best_model_checkpoint=str(folder / "checkpoint-3")),
    )
    row = Row("best", {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "save_steps": 3},
              {"evaluate": lambda: Points(8)})  # fmt: skip
    seen = go_on(folder, row, str(folder / "checkpoint-9"), save_steps=3)
    assert all(torch.equal(value, best[name]) for name, value in seen.weights.items())
    assert seen.state.best_global_step == 3
