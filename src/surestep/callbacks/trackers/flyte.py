"""Flyte."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from surestep.callbacks.trackers.describe import checkpoint_folder
from surestep.callbacks.trackers.reporter import Reporter
from surestep.errors import TrackerError
from surestep.logs import get_logger
from surestep.optional import installed, require
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)


class FlyteCallback(Reporter):
    """Hands the checkpoints of a training inside a Flyte task to Flyte, and shows its log as a deck.

    `trainer.train(resume_from_checkpoint=current_context().checkpoint.restore())` then goes on after an interruption.

    Args:
        save_log_history: whether the log becomes a deck; needs `flytekitplugins-deck-standard` and `pandas`.
        sync_checkpoints: whether each checkpoint is handed over.
        strict: whether a failure stops the run.
    """

    name = "flyte"
    package = "flytekit"

    def __init__(self, save_log_history: bool = True, sync_checkpoints: bool = True, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        absent = [
            pip
            for module, pip in (("flytekitplugins.deck", "flytekitplugins-deck-standard"), ("pandas", "pandas"))
            if not installed(module)
        ]
        if save_log_history and absent:
            _logger.warning("The log becomes no deck of Flyte: it needs pip install %s.", " ".join(absent))
        self.save_log_history = save_log_history and not absent
        self.sync_checkpoints = sync_checkpoints
        try:
            self.cp: Any = self._library.current_context().checkpoint
        except NotImplementedError as error:
            raise TrackerError(
                f"report_to='flyte' works inside a Flyte task only ({error}). Train in a function with @task."
            ) from error

    def _import(self) -> ModuleType | None:
        return require("flytekit", "FlyteCallback (report_to='flyte')")

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hand over a checkpoint."""
        if self.sync_checkpoints and state.is_world_process_zero:
            folder = checkpoint_folder(args, state)
            self._guarded(folder.name, lambda: self.cp.save(str(folder)))

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the log as a deck."""
        if self.save_log_history and state.is_world_process_zero:
            self._guarded("the deck of the log", lambda: self._show(state))
        self._tell_what_was_not_sent()

    def _show(self, state: TrainerState) -> None:
        pandas = require("pandas", "the deck of FlyteCallback")
        renderer = require("flytekitplugins.deck.renderer", "the deck of FlyteCallback").TableRenderer()
        self._library.Deck("Log History", renderer.to_html(pandas.DataFrame(state.log_history)))
