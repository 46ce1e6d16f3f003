"""Attributes and methods of older trainers that scripts still ask for, each with a warning that names today's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from torch import nn

from surestep.metrics.prediction import PredictionOutput
from surestep.trainer.older_names import GONE_MEMBERS, MEMBERS
from surestep.trainer.points.evaluating import EvaluatingPoints
from surestep.trainer.points.optimizing import OptimizingPoints
from surestep.trainer.points.sharing import SharingPoints


class Former:
    """What a trainer had by this name; the tables of older names say where it is today, or what to write instead.

    `read` finds what has no place of its own. A subclass may set an attribute of its own by the old name.
    """

    def __init__(self, read: Callable[[Any], Any] | None = None) -> None:
        self._read = read
        self._name = self._advice = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._advice = f"write trainer.{MEMBERS[name]}" if name in MEMBERS else GONE_MEMBERS[name]
        self._read = self._read or attrgetter(MEMBERS[name])

    def __get__(self, trainer: Any, owner: type) -> Any:
        if trainer is None:
            return self
        return self._answer(trainer)

    def _answer(self, trainer: Any) -> Any:
        """Return what is asked for; the warning is of the line that asks, beyond `__get__`."""
        assert self._read is not None
        warnings.warn(f"trainer.{self._name} is of an older form: {self._advice}.", FutureWarning, stacklevel=3)
        return self._read(trainer)


class FormerTokenizer(Former):
    """The tokenizer, which could be put in place after construction as well."""

    def __get__(self, trainer: Any, owner: type) -> Any:
        if trainer is None:
            return self
        own = vars(trainer).get("tokenizer")
        return self._answer(trainer) if own is None else own

    def __set__(self, trainer: Any, value: Any) -> None:
        vars(trainer)["tokenizer"] = value
        # A class of today may keep a tokenizer of its own beside its processing class, or before it has one.
        if "processing_class" in vars(trainer) and trainer.processing_class is None and value is not None:
            message = "trainer.tokenizer = ... is of an older form: write trainer.processing_class = ..."
            warnings.warn(message, FutureWarning, stacklevel=2)
            trainer.processing_class = value


def _off(_: Any) -> bool:
    return False


def _none(_: Any) -> None:
    return None


def _writer(trainer: Any) -> Any:
    return next((one.tb_writer for one in trainer.callback_handler.callbacks if hasattr(one, "tb_writer")), None)


class OlderPoints(EvaluatingPoints, OptimizingPoints, SharingPoints):
    """What trainers of the 3.x and 4.x years had and today's has no more."""

    tokenizer = FormerTokenizer()
    is_world_master = Former()
    is_local_master = Former()
    global_step = Former()
    epoch = Former()
    log_history = Former()
    total_flos = Former()
    prediction_loss_only = Former()
    tb_writer = Former(_writer)
    scaler = Former(attrgetter("engine.precision.scaler"))
    do_grad_scaling = Former(lambda trainer: trainer.engine.precision.scaler is not None)
    use_amp = Former(_off)
    use_cuda_amp = Former(_off)
    use_cpu_amp = Former(_off)
    use_apex = Former(_off)
    amp_dtype = Former(_none)
    deepspeed = Former(_none)
    sharded_ddp = Former(_none)
    sharded_dpp = Former(_none)
    fsdp = Former(_none)

    def prediction_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> PredictionOutput:
        """Run the evaluation loop and return what it returned in the 3.x years."""
        warnings.warn("prediction_loop is an older name: write evaluation_loop(...).", FutureWarning, stacklevel=2)
        # Not `self.evaluation_loop`: an override of it may choose between the two, and one of this may stand for it.
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        return PredictionOutput(output.predictions, output.label_ids, output.metrics)

    # What overrides under the first names hand over to.

    def _training_step(self, model: nn.Module, inputs: Any, optimizer: Any) -> float:
        del optimizer
        return super().training_step(model, inputs).item()

    def _log(self, logs: dict[str, float], iterator: Any = None) -> None:
        del iterator
        super().log(logs)

    def _prediction_loop(
        self, dataloader: Any, description: str, prediction_loss_only: bool | None = None
    ) -> PredictionOutput:
        return self.prediction_loop(dataloader, description, prediction_loss_only)

    def get_optimizers(self, num_training_steps: int) -> tuple[Any, Any]:
        """Make optimizer and schedule, and return the two."""
        super().create_optimizer_and_scheduler(num_training_steps)
        return self.optimizer, self.lr_scheduler

    def _nested_gather(self, tensors: Any, name: str | None = None) -> Any:
        """Return the samples of all ranks; copies of older loops ask for it."""
        del name
        return None if tensors is None else self.engine.strategy.gather(tensors)

    # What copies of the original's `_maybe_log_save_evaluate` read and write.

    @property
    def _globalstep_last_logged(self) -> int:
        """The step of the last log; setting it begins the count anew."""
        return self.state.global_step - (0 if self._run is None else self._run.tally.steps)

    @_globalstep_last_logged.setter
    def _globalstep_last_logged(self, step: int) -> None:
        if self._run is not None:
            self._run.tally.begin_anew(self.state.global_step - step)

    @property
    def _total_loss_scalar(self) -> float:
        """The sum of the losses that were logged."""
        return 0.0 if self._run is None else self._run.tally.logged_loss

    @_total_loss_scalar.setter
    def _total_loss_scalar(self, total: float) -> None:
        if self._run is not None:
            self._run.tally.logged_loss = total
