"""What of Ray's backend can be tried without Ray; tests/searchers has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.trainer.search.small_search import searching

from surestep import TrainerCallback
from surestep.trainer.search.ray_backend import NewValues, RayTuneBackend

BEFORE = {"learning_rate": 0.01, "weight_decay": 0.1, "save_strategy": "steps", "save_steps": 4, "max_steps": 10}


class Rates(TrainerCallback):
    """Notes the learning rate of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_that_takes_over_a_checkpoint_goes_on_with_its_own_values(tmp_path: Path, schedule: str) -> None:
    searching(tmp_path / "before", lr_scheduler_type=schedule, **BEFORE).train()
    checkpoint = tmp_path / "before" / "checkpoint-4"
    new = {**BEFORE, "learning_rate": 0.05, "weight_decay": 0.3, "lr_scheduler_type": schedule}
    taking_over, undisturbed = Rates(), Rates()
    after = searching(tmp_path / "after", callbacks=[NewValues(checkpoint), taking_over], **new)
    after.train(resume_from_checkpoint=str(checkpoint))
    searching(tmp_path / "plain", callbacks=[undisturbed], **new).train()

    assert taking_over.seen == pytest.approx(undisturbed.seen[4:])
    assert sorted({group["weight_decay"] for group in after.optimizer.param_groups}) == [0.0, 0.3]


def test_a_whole_checkpoint_is_written_where_ray_wants_it(tmp_path: Path) -> None:
    trainer = searching(tmp_path / "run")
    trainer.train()
    trainer._tune_save_checkpoint(str(tmp_path / "rays"))

    again = searching(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "rays" / "checkpoint-10"))
    assert again.state.global_step == 10
    assert trainer._get_output_dir(None) == str(tmp_path / "run")


def test_what_a_trial_of_ray_sets(tmp_path: Path) -> None:
    backend = RayTuneBackend()
    backend._output_dir = str(tmp_path)
    trial = {"learning_rate": 0.1, "wandb": {"project": "x"}}

    assert backend.settings(trial, dict) == {"output_dir": str(tmp_path), "learning_rate": 0.1}
    assert backend.params(trial) == {"learning_rate": 0.1}
