"""Freezing until a moment: parts of the model join the training later."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.optim.groups import GroupRule, clean_name, nearby_names
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState

_logger = get_logger(__name__)
# Epochs are counted in fractions: the step at which one is reached must not depend on rounding.
_ROUNDING = 1e-9

Patterns = str | Sequence[str]


class FreezeCallback(TrainerCallback):
    """Freezes the parameters whose name a pattern is found in (`re.search`) until an epoch or a step.

    `until_epoch` (fractions allowed) or `until_step` says after how much training they join. For gradual unfreezing
    `patterns` is a mapping from epochs to patterns: `{1: r"layers\\.3", 2: [r"layers\\.[0-2]", "embed"]}`; what several
    patterns match waits for the last of its epochs.

    The optimizer has all parameters from the start. It leaves out frozen ones, which get neither gradient nor weight
    decay, and no state until they join. Statistics of batch norms, which are no parameters, go on. What is frozen
    follows from how far the run is, so a resumed run goes on as if it had not been interrupted; parameters that you
    froze yourself stay frozen. When training ends, parameters still frozen require gradients again.

    Raises:
        ArgumentError: No moment, or two; a pattern that is none or, once training begins, matches no trainable
            parameter; nothing is left to train.
    """

    def __init__(
        self,
        patterns: Patterns | Mapping[float, Patterns],
        *,
        until_epoch: float | None = None,
        until_step: int | None = None,
    ) -> None:
        self._by_step = until_step is not None
        self._stages = {
            moment: [GroupRule(pattern, freeze=True).pattern for pattern in _several(chosen)]
            for moment, chosen in _by_moment(patterns, until_epoch, until_step).items()
        }
        self._frozen: list[tuple[float, nn.Parameter]] = []

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Freeze everything that waits or, in a resumed run, waited."""
        trainable = {clean_name(name): item for name, item in model.named_parameters() if item.requires_grad}
        moments = self._moments(list(trainable))
        if len(moments) == len(trainable):
            raise ArgumentError(
                f"FreezeCallback freezes every trainable parameter of {type(model).__name__}, so that nothing is left "
                "to train. Leave some out of the patterns."
            )
        self._warn_of_moments_beyond(state)
        self._frozen = [(moment, trainable[name]) for name, moment in moments.items()]
        for _, parameter in self._frozen:
            parameter.requires_grad_(False)

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Let those join whose moment has come."""
        if self._frozen:
            self._release(state.global_step if self._by_step else (state.epoch or 0.0) + _ROUNDING)

    def close(self) -> None:
        """Have parameters that are still frozen require gradients again; done at the end, after an error too."""
        self._release(float("inf"))

    def _release(self, reached: float) -> None:
        for moment, parameter in self._frozen:
            if moment <= reached:
                parameter.requires_grad_(True)
        self._frozen = [(moment, parameter) for moment, parameter in self._frozen if moment > reached]

    def _moments(self, names: list[str]) -> dict[str, float]:
        """Map the name of each parameter under a pattern to the last of its moments."""
        moments: dict[str, float] = {}
        for moment, patterns in sorted(self._stages.items()):
            for pattern in patterns:
                found = [name for name in names if re.search(pattern, name)]
                if not found:
                    raise ArgumentError(
                        f"FreezeCallback: '{pattern}' matches no trainable parameter. {nearby_names(pattern, names)}"
                    )
                moments.update(dict.fromkeys(found, moment))
        return moments

    def _warn_of_moments_beyond(self, state: TrainerState) -> None:
        last, unit = (state.max_steps, "step") if self._by_step else (state.num_train_epochs, "epoch")
        late = [moment for moment in self._stages if moment >= last]
        if late:
            _logger.warning(
                "FreezeCallback unfreezes parameters at %s %g, and the run ends at %s %d: they are not trained.",
                unit,
                min(late),
                unit,
                last,
            )


def _several(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _by_moment(
    patterns: Patterns | Mapping[float, Patterns], until_epoch: float | None, until_step: int | None
) -> dict[float, Patterns]:
    """Return the patterns by the moment at which their parameters join."""
    given = [moment for moment in (until_epoch, until_step) if moment is not None]
    if isinstance(patterns, Mapping):
        if given:
            raise ArgumentError(
                "FreezeCallback got epochs and until_epoch or until_step as well. Write the epochs alone."
            )
        by_moment = dict(patterns)
    elif len(given) == 1:
        by_moment = {given[0]: patterns}
    else:
        raise ArgumentError(
            f"FreezeCallback got until_epoch={until_epoch} and until_step={until_step}. Write one of them; to freeze "
            'for the whole run, write parameter_rules=[{"pattern": ..., "freeze": True}] in the arguments.'
        )
    _check_moments(by_moment)
    return by_moment


def _check_moments(by_moment: Mapping[Any, Patterns]) -> None:
    if not any(by_moment.values()):
        raise ArgumentError("FreezeCallback got no pattern. Write a regular expression such as '^encoder'.")
    for moment in by_moment:
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not moment > 0:
            raise ArgumentError(
                f"FreezeCallback unfreezes at {moment!r}, which is no moment. Write an epoch or a step above 0."
            )
