"""The original's name for a checkpoint on SIGTERM switches on what the trainer serves."""

from __future__ import annotations

from pathlib import Path

from tests.small import quick

from surestep.callbacks.jit_checkpoint import JITCheckpointCallback
from surestep.trainer.stopping import actions_on_signals


def test_it_asks_for_a_checkpoint_on_sigterm(tmp_path: Path) -> None:
    plain, asked = quick(tmp_path), quick(tmp_path, callbacks=[JITCheckpointCallback()])
    assert actions_on_signals(plain.args)["SIGTERM"] == "stop"
    assert actions_on_signals(asked.args) == {"SIGTERM": "save_and_stop", "SIGINT": "stop", "SIGUSR1": "stop"}


def test_it_takes_a_trainer_as_the_originals_does(tmp_path: Path) -> None:
    trainer = quick(tmp_path)
    JITCheckpointCallback().set_trainer(trainer)
    assert trainer.args.enable_jit_checkpoint is True
