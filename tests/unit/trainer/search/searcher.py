"""A process that searches: `searcher.py FOLDER STORAGE N_TRIALS [DIES_IN_TRIAL AT_STEP]`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.unit.trainer.search.small_search import rates, searching, seeded

from surestep import TrainerCallback


class Dies(TrainerCallback):
    """Ends the process as a crash does, with nothing said to anybody."""

    def __init__(self, trial: str, step: int) -> None:
        self.trial, self.step = trial, step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.trial_name == f"run-{self.trial}" and state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, storage: str, n_trials: str, trial: str = "", step: str = "0") -> None:
    trainer = searching(Path(folder), callbacks=[Dies(trial, int(step))], save_strategy="steps", save_steps=3)
    best = trainer.hyperparameter_search(
        rates, n_trials=int(n_trials), storage=storage, study_name="small", load_if_exists=True, sampler=seeded()
    )
    print(json.dumps([best.run_id, best.objective, best.hyperparameters]))


if __name__ == "__main__":
    main(*sys.argv[1:])
