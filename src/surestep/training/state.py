"""What a run has done (`TrainerState`, saved) and what it is asked to do next (`TrainerControl`)."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from surestep.errors import CheckpointError
from surestep.runtime.disk import replace_text


class ExportableState:
    """A callback with a memory: `state` is saved in every checkpoint and put back on resume."""

    def state(self) -> dict[str, dict[str, Any]]:
        """Return `{"args": constructor arguments, "attributes": what changes while training}`, as plain data."""
        raise NotImplementedError(f"{type(self).__name__} must define state()")

    @classmethod
    def from_state(cls, state: dict[str, dict[str, Any]]) -> Self:
        """Make an instance from what `state` returned."""
        instance = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(instance, name, value)
        return instance


class CallbackStates:
    """What the callbacks with a memory held at one moment, to be put back into the same objects."""

    def __init__(self, callbacks: list[Any]) -> None:
        owners = [item for item in callbacks if callable(getattr(item, "state", None))]
        self._held = [(owner, copy.deepcopy(owner.state()["attributes"])) for owner in owners]

    def put_back(self) -> None:
        """Make the callbacks what they were."""
        for owner, attributes in self._held:
            for name, value in copy.deepcopy(attributes).items():
                setattr(owner, name, value)


@dataclass
class TrainerControl(ExportableState):
    """Requests to the loop. A request is spent once served: each flag is cleared by the event that answers it."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the flags as constructor arguments."""
        return {"args": dataclasses.asdict(self), "attributes": {}}


def _describe(stateful: list[ExportableState]) -> dict[str, Any]:
    """Return the states by class name; a class that occurs more than once has a list."""
    states: dict[str, Any] = {}
    for item in stateful:
        name, state = type(item).__name__, item.state()
        if name not in states:
            states[name] = state
        elif isinstance(states[name], list):
            states[name].append(state)
        else:
            states[name] = [states[name], state]
    return states


@dataclass
class TrainerState:
    """How far training has come, with the keys of the original, which is what `trainer_state.json` holds.

    A step is an optimizer step. `epoch` is a real number: the passes done and the share of the current one.
    """

    epoch: float | None = 0
    global_step: int = 0
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.stateful_callbacks, list):
            self.remember(self.stateful_callbacks)

    def remember(self, stateful: list[ExportableState]) -> None:
        """Take down what the callbacks and the control hold now."""
        self.stateful_callbacks = _describe(stateful)

    def compute_steps(self, args: Any, max_steps: int) -> None:
        """Turn the intervals of `args` into steps; one below 1 is a share of `max_steps`, rounded up."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            interval = getattr(args, name)
            if interval is not None:
                setattr(self, name, math.ceil(max_steps * interval) if interval < 1 else int(interval))

    def save_to_json(self, json_path: str | Path) -> None:
        """Write the state, keys sorted, as the original does."""
        text = json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"
        replace_text(Path(json_path), text)

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> Self:
        """Read what `save_to_json`, here or in the original, has written."""
        try:
            content = json.loads(Path(json_path).read_text(encoding="utf-8"))
            return cls(**content)
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise CheckpointError(
                f"'{json_path}' does not hold a trainer state ({error}). Resume from another checkpoint, "
                "or start anew with resume_from_checkpoint=None."
            ) from error
