"""The list of callbacks that a script makes itself, with the original's constructor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from surestep.training.events import Events
from surestep.training.state import TrainerControl, TrainerState


class _Alone:
    """Stands in for the trainer until one takes the handler over."""

    args: Any = None

    def __init__(self) -> None:
        self.state = TrainerState()
        self.control = TrainerControl()


class CallbackHandler(Events):
    """Calls callbacks in their order: `handler.on_step_end(args, state, control)`.

    A trainer makes its own. Assigned to `trainer.callback_handler`, this one hears the trainer's events.
    """

    def __init__(
        self, callbacks: Iterable[Any], model: Any, processing_class: Any, optimizer: Any, lr_scheduler: Any
    ) -> None:
        super().__init__(_Alone(), callbacks, model=model, processing_class=processing_class)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
