"""What a search looks for and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surestep.config.nearest import did_you_mean
from surestep.errors import ArgumentError

DIRECTIONS = ("minimize", "maximize")
# Figures of an evaluation that say nothing of the model: clocks, memory, counts.
_CLOCKS = ("_runtime", "_per_second", "_model_preparation_time")
_COUNTS = ("epoch", "num_input_tokens_seen", "init_mem_")


class BestRun(NamedTuple):
    """The best trial of a search.

    `run_id` is its number or name, and `run-<run_id>` its folder; `objective` is a list where a search has several
    directions. `run_summary` is what the backend keeps of the whole search: Optuna's study, Ray's analysis, the id of
    a sweep.
    """

    run_id: str
    objective: float | list[float]
    hyperparameters: dict[str, Any]
    run_summary: Any | None = None


def default_compute_objective(metrics: Mapping[str, float]) -> float:
    """Return the sum of the metrics, or `eval_loss` where there are no others.

    Figures that say nothing of the model (time, speed, memory, tokens seen, the epoch) are left out.
    """
    figures = {name: value for name, value in metrics.items() if _is_of_the_model(name)}
    loss = figures.pop("eval_loss", None)
    if figures:
        return sum(figures.values())
    if loss is None:
        raise ArgumentError(
            f"The evaluation gave no figure to compare trials by, only {', '.join(metrics) or 'nothing'}. Pass "
            "compute_objective, a function of the metrics that returns a number."
        )
    return loss


def _is_of_the_model(name: str) -> bool:
    return not (name.endswith(_CLOCKS) or name.startswith(_COUNTS) or "_mem_" in name)


def check_directions(direction: Any) -> tuple[str, ...]:
    """Return the direction of each objective, or raise for one that there is not."""
    directions = (direction,) if isinstance(direction, str) else tuple(direction)
    for word in directions:
        if word not in DIRECTIONS:
            hint = did_you_mean(str(word), DIRECTIONS)
            raise ArgumentError(f"direction is {direction!r}. Write 'minimize' or 'maximize', or a list of them.{hint}")
    if not directions:
        raise ArgumentError("direction is an empty list. Write 'minimize' or 'maximize' for each objective.")
    return directions


def check_objective(value: Any, directions: Sequence[str], *, several: bool) -> float | list[float]:
    """Return an objective as a number, or as a list of numbers where there are `several`; raise for anything else."""
    if not several:
        return _number(value)
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) != len(directions):
        raise ArgumentError(
            f"direction has {len(directions)} entries, and compute_objective returned {value!r}. Return a list of "
            f"{len(directions)} numbers, or give one direction for each that you return."
        )
    return [_number(one) for one in values]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"compute_objective returned {value!r}, which is no number. Return one, or a list of them and a list as "
            "direction."
        ) from None
