"""Averaged weights: kept beside the model, evaluated in its place, and its own at the end."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from surestep.checkpoint.tree import read_tree, tree_exists, write_tree
from surestep.errors import ArgumentError, CheckpointError
from surestep.logs import get_logger
from surestep.optim.averaging import ExponentialMovingAverage, StochasticWeightAverage, WeightAverage
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)


class AveragingCallback(TrainerCallback):
    """Base of the callbacks that average weights.

    Evaluations and predictions during training use the average, so that metrics and the best checkpoint are the
    average's. Checkpoints hold the model's own weights, which training goes on from, and the average beside them
    (`<name>.safetensors`). At the end the model gets the average: the best checkpoint's with `load_best_model_at_end`,
    else the last.

    `evaluate=False` leaves evaluations to the model's own weights. For models whose weights are whole on each rank.
    """

    name = "average"

    def __init__(self, *, evaluate: bool = True) -> None:
        self.evaluate = evaluate
        self._resumed: Path | None = None
        self.average: WeightAverage | None = None
        self._is_in = False
        self._own_weights = ExitStack()
        self._hooks = ExitStack()

    @abstractmethod
    def new_average(self, model: nn.Module) -> WeightAverage:
        """Return the average to keep of `model`."""

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Begin the average, or take up the one of the checkpoint that the run is resumed from."""
        self.close()
        self.average = self.new_average(model)
        if self._resumed is not None:
            self._load(self._resumed)
            self._resumed = None
        if self.evaluate:
            # A mode decides, not an event: no event precedes an evaluation, and whoever saves must get the own weights.
            for handle in (
                model.register_forward_pre_hook(self._before_forward),
                model.register_state_dict_pre_hook(self._before_state_dict),
            ):
                self._hooks.callback(handle.remove)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give the model its own weights back."""
        self._take_out()

    def on_predict(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give the model its own weights back."""
        self._take_out()

    def save_to(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        if self.average is not None:
            write_tree(folder, self.name, self.average.state_dict())

    def load_from(self, folder: Path) -> None:
        """Note the checkpoint to take the average from once training begins."""
        self._resumed = folder

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Give the model the average for good."""
        self.close()
        if self.average is None:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load(Path(state.best_model_checkpoint))
        if self.average.num_updates:
            model.load_state_dict(self.average.weights(model))

    def close(self) -> None:
        """Give the model its own weights back and leave it alone; closing again does nothing."""
        self._take_out()
        self._hooks.close()

    def _update(self, model: nn.Module) -> None:
        self._take_out()
        if self.average is not None:
            self.average.update(model)

    def _load(self, folder: Path) -> None:
        if not tree_exists(folder, self.name):
            raise CheckpointError(
                f"The checkpoint '{folder}' has no average '{self.name}', which {type(self).__name__} goes on from. "
                "Resume from one that has it, or without the callback."
            )
        assert self.average is not None
        self.average.load_state_dict(read_tree(folder, self.name))

    def _before_forward(self, model: nn.Module, inputs: Any) -> None:
        """Put the average in for the first batch of an evaluation, and take it out for the next one of training."""
        if model.training:
            self._take_out()
        elif not self._is_in and self.average is not None and self.average.num_updates:
            self._own_weights.enter_context(self.average.applied(model))
            self._is_in = True

    def _before_state_dict(self, model: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._take_out()

    def _take_out(self) -> None:
        if self._is_in:
            self._own_weights.close()
            self._is_in = False


class EMACallback(AveragingCallback):
    """Keeps an exponential moving average: after every `every` steps it keeps the share `decay` of itself.

    With `warmup` it follows faster at first, see `ExponentialMovingAverage`.
    """

    name = "ema"

    def __init__(
        self,
        decay: float = 0.999,
        *,
        warmup: bool = False,
        every: int = 1,
        evaluate: bool = True,
    ) -> None:
        super().__init__(evaluate=evaluate)
        if every < 1:
            raise ArgumentError(f"EMACallback(every={every}) is no number of steps. Write 1 or more.")
        self.decay = decay
        self.warmup = warmup
        self.every = every

    def new_average(self, model: nn.Module) -> WeightAverage:
        """Return an average that begins with the weights that `model` has now."""
        return ExponentialMovingAverage(model, self.decay, warmup=self.warmup)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the step's weights in."""
        if state.global_step % self.every == 0:
            self._update(model)


class SWACallback(AveragingCallback):
    """Keeps the plain mean of the weights at the end of each epoch, or every `every` steps, from `start` on.

    `start` is a step, or a share of the steps when below 1. The statistics of batch norms are the model's own: measure
    them anew afterwards with `torch.optim.swa_utils.update_bn`.
    """

    name = "swa"

    def __init__(
        self,
        start: float = 0.75,
        *,
        every: int | None = None,
        evaluate: bool = True,
    ) -> None:
        super().__init__(evaluate=evaluate)
        if start < 0:
            raise ArgumentError(f"SWACallback(start={start}) is negative. Write a step, or a share of them below 1.")
        if every is not None and every < 1:
            raise ArgumentError(
                f"SWACallback(every={every}) is no number of steps. Write 1 or more, or None for epochs."
            )
        self.start = start
        self.every = every

    def new_average(self, model: nn.Module) -> WeightAverage:
        """Return an average of nothing yet."""
        return StochasticWeightAverage(model)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the step's weights in, where steps count."""
        if self.every is not None and state.global_step % self.every == 0 and self._has_started(state):
            self._update(model)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the epoch's weights in, where epochs count."""
        if self.every is None and self._has_started(state):
            self._update(model)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Give the model the average for good; say what it does not cover."""
        super().on_train_end(args, state, control, model=model, **kwargs)
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            _logger.warning(
                "The weights are averages now, the statistics of the batch norms are not: measure them anew with "
                "torch.optim.swa_utils.update_bn before the model is used."
            )

    def _has_started(self, state: TrainerState) -> bool:
        return state.global_step >= (self.start * state.max_steps if self.start < 1 else self.start)
