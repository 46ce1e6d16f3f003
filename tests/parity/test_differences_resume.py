"""Which checkpoint a run goes on from, and what keeps it from doing so, otherwise than in the original: both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

import surestep
from surestep.errors import CheckpointError
from tests.parity.differences import shows
from tests.parity.test_differences_checkpoints import OBJECTS, SAVED, SIDES, begin, go_on, loss_steps

# Six steps are an epoch; a checkpoint of step 4 is from within it.
TWO_EPOCHS = {**SAVED, "max_steps": 12}


@shows("C17")
@pytest.mark.parametrize("side", SIDES)
def test_another_seed_in_the_middle_of_an_epoch(side: type, tmp_path: Path) -> None:
    first = begin(side, tmp_path, {**TWO_EPOCHS, "max_steps": 4})
    other = {**TWO_EPOCHS, "max_steps": 6, "seed": 7}
    if side is surestep:
        with pytest.raises(CheckpointError, match=r"seed was 42 and is 7: the rest of this epoch"):
            go_on(side, tmp_path, "checkpoint-4", other)
        other["resume_allow"] = ["seed"]
    rest = go_on(side, tmp_path, "checkpoint-4", other)
    # Where it is allowed, as in the original: some samples of the epoch come twice, and others never.
    assert len(set(first.numbers) | set(rest.numbers)) < 24


@shows("C18")
def test_the_argument_that_names_a_checkpoint_is_taken(tmp_path: Path) -> None:
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder, {**TWO_EPOCHS, "max_steps": 4})
        named = {**TWO_EPOCHS, "resume_from_checkpoint": str(folder / "checkpoint-4")}
        again = begin(side, folder, named)
        assert len(again.losses) == (12 if side.__name__ == "transformers" else 8)
    anew = go_on(surestep, tmp_path / "surestep", False, named)
    assert len(anew.losses) == 12


@shows("C19")
def test_true_takes_the_checkpoints_of_the_run_begun_last(tmp_path: Path) -> None:
    for side in SIDES:
        folder = tmp_path / side.__name__
        begin(side, folder)
        # Another run in the same folder, which does not come as far.
        begin(side, folder, {**SAVED, "max_steps": 4})
        rest = go_on(side, folder, True, TWO_EPOCHS)
        assert len(rest.losses) == (4 if side.__name__ == "transformers" else 8)


@shows("C20")
def test_a_complete_run_is_not_trained_again(tmp_path: Path) -> None:
    ends = {"save_total_limit": 1, "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    settings = {**SAVED, **ends, "greater_is_better": True}
    for side in SIDES:
        folder = tmp_path / side.__name__
        objects = {"evaluate": OBJECTS["train"]}
        whole = begin(side, folder, settings, **objects)
        # The first is the best here, and the only one that is kept.
        assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
        again = go_on(side, folder, True, settings, **objects)
        assert loss_steps(again) == loss_steps(whole)
        assert len(again.losses) == (6 if side.__name__ == "transformers" else 0)
