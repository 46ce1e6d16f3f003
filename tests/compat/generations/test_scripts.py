"""Scripts as they were written in each generation run as they are, each older form told once, with today's spelling."""

from __future__ import annotations

import runpy
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass
class Ran:
    """What a script came to, and what it was told."""

    results: dict[str, Any]
    told: list[str]
    folder: Path

    def times(self, text: str) -> int:
        """Say how often it was told this."""
        return sum(text in line for line in self.told)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(name: str, *arguments: str) -> Ran:
        monkeypatch.setenv("TEST_OUTPUT", str(tmp_path / "out"))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
        monkeypatch.delitem(sys.modules, "small", raising=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            space = runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        sys.modules.pop("small", None)
        told = [str(one.message) for one in caught if one.category is FutureWarning]
        return Ran(space["RESULTS"], told, tmp_path / "out")

    return run


def test_the_script_of_the_summer_of_2020(run: Any, tmp_path: Path) -> None:
    (tmp_path / "pretrained").mkdir()
    ran = run(
        "glue_3_0.py", "--model_name_or_path", str(tmp_path / "pretrained"), "--output_dir", str(tmp_path / "out"),
        "--do_train", "--do_eval", "--per_gpu_train_batch_size", "4", "--num_train_epochs", "1",
        "--learning_rate", "0.1", "--overwrite_output_dir", "--save_steps", "-1", "--disable_tqdm", "True",
    )  # fmt: skip

    assert ran.results["predicted"] == 8
    assert ran.results["eval_n"] == 8
    assert "eval_acc = " in (ran.folder / "eval_results_glue.txt").read_text()
    for today in (
        "write per_device_train_batch_size=4", "write TrainingArguments(prediction_loss_only=...)",
        "write resume_from_checkpoint=...", "write trainer.state.global_step", "write trainer.is_world_process_zero",
    ):  # fmt: skip
        assert ran.times(today) == 1, today


def test_methods_under_their_first_names(run: Any) -> None:
    ran = run("subclass_3_0.py")

    assert ran.results["optimizer"] == "SGD"
    assert ran.results["predicted"] == pytest.approx(ran.results["eval_loss"])
    for today in (
        "write training_step(self, model, inputs, num_items_in_batch=None)", "write log(self, logs, start_time=None)",
        "write evaluation_loop(self, dataloader, ", "write create_optimizer_and_scheduler(self, num_training_steps)",
        "named 'test_loss' today, not 'eval_loss'", "write eval_strategy='steps'",
    ):  # fmt: skip
        assert ran.times(today) == 1, today


def test_a_loss_without_outputs_and_a_writer_of_its_own(run: Any) -> None:
    ran = run("subclass_3_5.py")

    assert ran.results["vocabulary"]
    assert ran.results["files"] >= 1
    assert ran.results["eval_loss"] > 0
    for today in (
        "write compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None)",
        "write prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None)",
        "write evaluate(self, eval_dataset=None", "write processing_class=...", "TensorBoardCallback(...)",
        "Notes.on_train_begin takes a tokenizer", "write trainer.processing_class",
    ):  # fmt: skip
        assert ran.times(today) == 1, today


def test_a_step_with_a_scaler_and_a_copy_of_the_answer_to_requests(run: Any) -> None:
    ran = run("subclass_4_20.py")

    assert ran.results["steps"] == 2
    assert ran.results["extra"] == 1.0
    assert 0 < ran.results["training_loss"] < 2
    # The checkpoint is whole: it is resumed from.
    assert ran.results["resumed"] == 2
    assert [path.name for path in ran.folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert ran.times("write warmup_steps=0.1") == 1


def test_the_accelerator_divides_as_it_did(run: Any) -> None:
    ran = run("subclass_4_40.py")

    assert ran.results["steps"] == 1
    assert ran.results["difference"] < 1e-6
