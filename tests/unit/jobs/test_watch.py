"""What is said of where a run begins."""

from __future__ import annotations

from surestep import TrainerControl, TrainerState
from surestep.jobs.watch import NoteBeginning


def test_where_training_begins_is_noted_and_said_when_it_goes_on() -> None:
    said: list[str] = []
    note = NoteBeginning(said.append)
    note.on_train_begin(None, TrainerState(global_step=0, max_steps=20), TrainerControl())
    assert (note.step, said) == (0, [])
    note.on_train_begin(None, TrainerState(global_step=7, max_steps=20), TrainerControl())
    assert (note.step, said) == (7, ["Going on from step 7 of 20."])
