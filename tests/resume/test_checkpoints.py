"""Which checkpoint a run goes on from, what is in one, and what happens to the others."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import surestep
from surestep.callbacks.trackers.jsonl import LOG_NAME, read_log
from surestep.errors import CheckpointError
from tests.parity.harness import Seen, run
from tests.parity.models import Net, Points
from tests.resume.rig import Row, assert_goes_on, checkpoints, resumed, straight

ROW = Row(
    "usual",
    {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 12,
        "logging_steps": 2,
        "save_steps": 3,
        "learning_rate": 1e-2,
    },
    {"model": lambda: Net(0.3), "train": lambda: Points(30)},
)
EVALUATED: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "metric_for_best_model": "loss",
    # The first is the best, so that keeping it shows.
    "greater_is_better": True,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, straight(folder, ROW)


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def cut_short(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_begun(folder: Path) -> None:
    """Leave what a save left that another program began and never ended."""
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            path.unlink()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": flip_a_bit,
    "a file cut short": cut_short,
    "a state that is gone": lambda folder: (folder / "trainer_state.json").unlink(),
    "a state that is no state": lambda folder: (folder / "trainer_state.json").write_text("{"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a save that only began": only_begun,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_true_falls_back_over_a_damaged_checkpoint(
    damage: str, whole: tuple[Path, Seen], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    DAMAGES[damage](folder / "checkpoint-12")
    DAMAGES[damage](folder / "checkpoint-9")
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = resumed(folder, ROW, True)
    assert_goes_on(whole[1], part, damage)
    assert len(part.losses) == 12
    assert part.numbers[:4] == whole[1].numbers[-len(part.numbers) :][:4]
    assert "checkpoint-9 is passed over" in caplog.text


def test_true_takes_the_newest(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    shutil.rmtree(folder / "checkpoint-12")
    part = resumed(folder, ROW, True)
    assert_goes_on(whole[1], part, "newest")
    assert part.events[0] == "on_train_begin@9"


def test_true_with_nothing_there_starts_and_says_so(
    whole: tuple[Path, Seen], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = resumed(tmp_path, ROW, True)
    assert "training starts anew" in caplog.text
    assert_goes_on(whole[1], part, "anew")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_checkpoint_is_named_by_its_path(kind: type, whole: tuple[Path, Seen], tmp_path: Path) -> None:
    part = resumed(tmp_path, ROW, kind(whole[0] / "checkpoint-3"))
    assert_goes_on(whole[1], part, "by path")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint-7", "is no folder"),
        ("no such/place", "is no folder"),
        ("checkpoint-12/manifest.json", "is no folder"),
    ],
)
def test_a_path_that_is_no_checkpoint_is_refused(
    name: str, message: str, whole: tuple[Path, Seen], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        resumed(tmp_path, ROW, whole[0] / name)


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(CheckpointError, match="is damaged"):
        resumed(tmp_path, ROW, tmp_path / "checkpoint-5")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_that_is_named_is_refused(damage: str, whole: tuple[Path, Seen], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-9"
    shutil.copytree(whole[0] / "checkpoint-9", folder)
    DAMAGES[damage](folder)
    with pytest.raises(CheckpointError, match="is damaged"):
        resumed(tmp_path / "run", ROW, folder)


def test_a_checkpoint_may_be_moved(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / "checkpoint-6", tmp_path / "elsewhere")
    assert_goes_on(whole[1], resumed(tmp_path / "run", ROW, tmp_path / "elsewhere"), "moved")


def test_a_finished_run_takes_no_step_more(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    part = resumed(tmp_path, ROW, whole[0] / "checkpoint-12")
    assert part.losses == []
    assert part.state.global_step == 12
    assert torch.equal(part.weights["last.bias"], whole[1].weights["last.bias"])
    assert part.output.training_loss == whole[1].output.training_loss


def test_a_finished_run_is_made_longer(tmp_path: Path) -> None:
    """With a rate that does not depend on the length, twelve steps and eight more are twenty."""
    settings = {**ROW.arguments, "lr_scheduler_type": "constant"}
    longer = Row("longer", {**settings, "max_steps": 20}, ROW.options)
    straight(tmp_path / "short", Row("short", settings, ROW.options))
    part = resumed(tmp_path / "rest", longer, tmp_path / "short" / "checkpoint-12")
    assert_goes_on(straight(tmp_path / "long", longer), part, "longer")


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_epochs_are_added_to_a_run_that_ended_with_one(strategy: str, tmp_path: Path) -> None:
    settings = {
        **ROW.arguments,
        "max_steps": -1,
        "lr_scheduler_type": "constant",
        "save_strategy": strategy,
        "save_steps": 4,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
    }
    options = {**ROW.options, "evaluate": lambda: Points(9, seed=1)}
    two, four = (Row(f"{epochs}", {**settings, "num_train_epochs": epochs}, options) for epochs in (2, 4))
    straight(tmp_path / "two", two)
    newest = checkpoints(tmp_path / "two")[-1]
    part = resumed(tmp_path / "rest", four, newest)
    whole = straight(tmp_path / "four", four)
    assert part.losses == whole.losses[-len(part.losses) :]
    assert torch.equal(part.weights["first.weight"], whole.weights["first.weight"])
    evaluated = [entry["step"] for entry in part.logs if "eval_loss" in entry]
    assert evaluated == [entry["step"] for entry in whole.logs if "eval_loss" in entry]


def test_a_run_is_resumed_again_and_again(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    """Each piece dies at a step between two checkpoints; the next one repeats what was not saved."""

    class Dies(surestep.TrainerCallback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == self.step:
                raise KeyboardInterrupt

    for step in (4, 5, 7, 11):
        dying = {**ROW.options, "callbacks": lambda side, step=step: [Dies(step)]}
        with pytest.raises(KeyboardInterrupt):
            run(
                surestep,
                {**ROW.arguments, "save_strategy": "steps"},
                folder=str(tmp_path),
                drive=lambda trainer: trainer.train(resume_from_checkpoint=True),
                **dying,
            )
    part = resumed(tmp_path, ROW, True)
    assert part.events[0] == "on_train_begin@9"
    assert_goes_on(whole[1], part, "in pieces")
    lines = [
        (line["event"], line["step"]) for line in read_log(tmp_path / LOG_NAME) if line["event"] in ("log", "save")
    ]
    assert [step for event, step in lines if event == "log"] == [2, 4, 6, 8, 10, 12, 12]


def test_the_settings_of_today_count(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    part = resumed(tmp_path, ROW, whole[0] / "checkpoint-6", logging_steps=1, max_steps=9)
    assert [entry["step"] for entry in part.logs if "loss" in entry] == [2, 4, 6, 7, 8, 9]


def test_weights_alone_are_taken_up_and_what_is_missing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = Row("weights only", {**ROW.arguments, "save_only_model": True}, ROW.options)
    whole = straight(tmp_path / "whole", row)
    folder = tmp_path / "whole" / "checkpoint-6"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "trainer_state.json", "manifest.json"} <= names
    assert not any(name.startswith(("optimizer", "scheduler", "random", "scaler")) for name in names)
    with caplog.at_level(logging.WARNING, logger="surestep"):
        part = resumed(tmp_path / "rest", row, folder)
    assert "no state of the optimizer" in caplog.text
    assert part.state.global_step == 12
    assert part.numbers == whole.numbers[-len(part.numbers) :]
    assert not torch.equal(part.weights["first.weight"], whole.weights["first.weight"])


def test_data_may_start_from_its_beginning(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    part = resumed(tmp_path, ROW, whole[0] / "checkpoint-6", ignore_data_skip=True)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(42 + 1)).tolist()
    assert part.numbers[:30] == order
    assert part.state.global_step == 12


def test_a_limit_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    options = {**ROW.options, "evaluate": lambda: Points(9, seed=1)}
    row = Row("limit", {**ROW.arguments, **EVALUATED, "save_total_limit": 2, "load_best_model_at_end": True}, options)
    whole = straight(tmp_path, row)
    best = whole.state.best_global_step
    assert best == 3
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-12"]
    saved = surestep_weights(tmp_path / "checkpoint-3")
    assert torch.equal(whole.weights["first.weight"], saved["first.weight"])


def test_a_limit_of_one_keeps_the_best_alone_at_the_end(tmp_path: Path) -> None:
    options = {**ROW.options, "evaluate": lambda: Points(9, seed=1)}
    row = Row("limit", {**ROW.arguments, **EVALUATED, "save_total_limit": 1, "load_best_model_at_end": True}, options)
    straight(tmp_path, row)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]


def test_the_best_is_still_known_after_resuming(tmp_path: Path) -> None:
    options = {**ROW.options, "evaluate": lambda: Points(9, seed=1)}
    row = Row("best", {**ROW.arguments, **EVALUATED, "load_best_model_at_end": True}, options)
    whole = straight(tmp_path, row)
    part = resumed(tmp_path, row, tmp_path / "checkpoint-9")
    assert part.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    assert_goes_on(whole, part, "best")


def surestep_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


class WritesMore:
    """A subclass that puts files of its own into its checkpoints."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "before.txt").write_text("before")
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        (folder / "more").mkdir()
        (folder / "more" / "after.txt").write_text("after")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        (Path(output_dir or self.args.output_dir) / "card.md").write_text("a card")


def test_files_of_an_override_belong_to_the_checkpoint(tmp_path: Path) -> None:
    row = Row("more", ROW.arguments, {**ROW.options, "mixin": WritesMore})
    whole = straight(tmp_path, row)
    for folder in checkpoints(tmp_path):
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        assert {"before.txt", "more/after.txt", "card.md", "model.safetensors"} <= listed.keys()
        assert (folder / "more" / "after.txt").read_text() == "after"
    (tmp_path / "checkpoint-12" / "more" / "after.txt").write_text("other")
    part = resumed(tmp_path, row, True)
    assert part.events[0] == "on_train_begin@9"
    assert_goes_on(whole, part, "damage to an extra file is damage")


def test_files_added_once_a_checkpoint_is_there_are_welcome(tmp_path: Path) -> None:
    class Adds(surestep.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "note.txt").write_text("a note")

    row = Row("notes", ROW.arguments, {**ROW.options, "callbacks": lambda side: [Adds]})
    straight(tmp_path, row)
    assert all((folder / "note.txt").exists() for folder in checkpoints(tmp_path))
    assert resumed(tmp_path, row, True).state.global_step == 12


@pytest.mark.parametrize("error", [OSError("the disk is full"), ValueError("the disk is full")])
def test_an_override_that_fails_leaves_no_checkpoint(tmp_path: Path, error: Exception) -> None:
    class Fails:
        def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            if self.state.global_step == 6:
                raise error

    row = Row("fails", {**ROW.arguments, "on_save_error": "stop"}, {**ROW.options, "mixin": Fails})
    with pytest.raises(type(error), match="disk is full"):
        straight(tmp_path, row)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3"]
    assert not list(tmp_path.glob(".staging*"))


def test_no_file_of_a_checkpoint_is_a_pickle(whole: tuple[Path, Seen]) -> None:
    for path in (whole[0] / "checkpoint-12").rglob("*"):
        assert path.suffix in {".json", ".safetensors"}, path.name
