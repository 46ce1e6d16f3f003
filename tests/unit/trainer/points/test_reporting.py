"""Figures printed, written and logged, beside the original's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.small import Points, line, quick

from surestep import TrainerState
from surestep.runtime.world import World

METRICS = {
    "eval_loss": 0.123456789,
    "eval_runtime": 3661.789,
    "train_mem_cpu_alloc_delta": 5 * 2**20 + 7,
    "total_flos": 3 * 2**30,
    "epoch": 3.0,
    "count": 12,
}


@pytest.fixture
def theirs(tmp_path: Path) -> Any:
    arguments = transformers.TrainingArguments(str(tmp_path / "theirs"), report_to="none", use_cpu=True)
    return transformers.Trainer(line(), arguments)


def test_figures_are_formatted_as_in_the_original(tmp_path: Path, theirs: Any) -> None:
    assert quick(tmp_path).metrics_format(METRICS) == type(theirs).metrics_format(METRICS)


@pytest.mark.parametrize("metrics", [METRICS, {"a": 1}, {}], ids=["many", "one", "none"])
def test_figures_are_printed_as_in_the_original(
    tmp_path: Path, theirs: Any, capsys: pytest.CaptureFixture[str], metrics: dict[str, Any]
) -> None:
    if metrics:
        theirs.log_metrics("eval", metrics)
        expected = capsys.readouterr().out
    else:
        expected = "***** eval metrics *****\n"
    quick(tmp_path).log_metrics("eval", metrics)

    assert capsys.readouterr().out == expected


def test_files_are_those_of_the_original(tmp_path: Path, theirs: Any) -> None:
    ours = quick(tmp_path / "ours")
    for trainer in (theirs, ours):
        trainer.save_metrics("train", {"loss": 1.0, "both": 1})
        trainer.save_metrics("eval", {"eval_loss": 2.0, "both": 2})
        trainer.save_metrics("test", {"test_loss": 3.0}, combined=False)
    for name in ("train_results.json", "eval_results.json", "test_results.json", "all_results.json"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    assert json.loads((tmp_path / "ours" / "all_results.json").read_text()) == {
        "loss": 1.0,
        "eval_loss": 2.0,
        "both": 2,
    }


def test_the_state_is_written_to_the_output_folder(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer.train()
    trainer.save_state()

    assert TrainerState.load_from_json(tmp_path / "trainer_state.json").global_step == 5


def test_a_replica_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quick(tmp_path)
    trainer._world = World(rank=1, size=2, local_rank=1)
    trainer.log_metrics("eval", METRICS)
    trainer.save_metrics("eval", METRICS)
    trainer.save_state()
    trainer.create_model_card()

    assert not trainer.is_world_process_zero()
    assert not trainer.is_local_process_zero()
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_in_the_history_with_its_step_and_epoch(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    trainer.state.global_step, trainer.state.epoch = 7, 1.4
    given = {"own": 1.0}
    trainer.log(given)
    trainer.state.epoch = None
    trainer.log({"own": 2.0})

    assert given == {"own": 1.0, "epoch": 1.4}
    assert trainer.state.log_history == [{"own": 1.0, "epoch": 1.4, "step": 7}, {"own": 2.0, "step": 7}]


def test_the_loop_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick(tmp_path).show_loop()

    assert "[on_step_end: DefaultFlowCallback]" in capsys.readouterr().out


def test_the_end_closes_what_callbacks_hold(tmp_path: Path) -> None:
    closed: list[int] = []

    class Holds:
        def on_log(self, *_: Any, **__: Any) -> None: ...

        def close(self) -> None:
            closed.append(1)

    trainer = quick(tmp_path, callbacks=[Holds()], eval_dataset=Points(4))
    trainer.evaluate()
    assert closed == []
    trainer.end()
    assert closed == [1]
