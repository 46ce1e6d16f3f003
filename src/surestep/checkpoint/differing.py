"""What differs between two checkpoints, value by value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surestep.checkpoint.contents import Contents, leaves
from surestep.checkpoint.layout import TIME_USED
from surestep.checkpoint.tensors import raw_bytes
from surestep.config.fields import TOPICS, judges_of
from surestep.config.topics.memory import MIRRORS
from surestep.config.topics.seq2seq import SEQ2SEQ
from surestep.config.verdicts import Effect, Situation, differences

WEIGHTS, STATE, ARGUMENTS = "weights", "trainer state", "arguments"
# Figures of the clock, and where a run happened to lie.
_CLOCK = ("_runtime", "_per_second", "_model_preparation_time")
_PATHS = ("best_model_checkpoint",)
_SHOWN = 60


@dataclass(frozen=True)
class Unlike:
    """A value that is not the same in both: its part and name, what it is in each, and the largest difference.

    `distance` is that between the elements of two tensors of one shape. What is `harmless` does not make two
    checkpoints different: arguments that change no number.
    """

    part: str
    name: str
    first: str
    second: str
    distance: float | None = None
    harmless: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON, which knows no infinity."""
        distance = self.distance if self.distance is None or math.isfinite(self.distance) else str(self.distance)
        return {**asdict(self), "distance": distance}


def compare(first: Contents, second: Contents) -> Iterator[Unlike]:
    """Yield what differs: arguments, the trainer's state, weights, and every other part of the state.

    Times, speeds, who wrote a checkpoint and where it lies are not compared.
    """
    yield from _compare_arguments(first.arguments(), second.arguments())
    yield from _compare_values(STATE, _timeless(first.state()), _timeless(second.state()))
    yield from _compare_values(WEIGHTS, first.weights(), second.weights())
    one, other = first.trees(), second.trees()
    for part in sorted((one.keys() | other.keys()) - {TIME_USED}):
        if part in one and part in other:
            yield from _compare_values(part, dict(leaves(one[part])), dict(leaves(other[part])))
        else:
            yield _one_sided(part, there=part in one)


def _compare_arguments(one: dict[str, Any] | None, other: dict[str, Any] | None) -> Iterator[Unlike]:
    if one is None or other is None:
        if one is not other:
            yield _one_sided(ARGUMENTS, there=one is not None)
        return
    then, now = ({name: value for name, value in side.items() if name not in MIRRORS} for side in (one, other))
    for found in differences(Situation(then, now), judges_of((*TOPICS, SEQ2SEQ))):
        harmless = found.verdict.effect is Effect.HARMLESS
        yield Unlike(ARGUMENTS, found.name, _shown(found.then), _shown(found.now), harmless=harmless)


def _one_sided(part: str, *, there: bool) -> Unlike:
    return Unlike(part, "", "there", "missing") if there else Unlike(part, "", "missing", "there")


def _timeless(state: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in leaves(state) if not name.endswith(_CLOCK)}
    return {name: Path(value).name if name in _PATHS and value else value for name, value in flat.items()}


def _compare_values(part: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Unlike]:
    for name in {**one, **other}:
        if name not in one or name not in other:
            first, second = (_shown(side[name]) if name in side else "missing" for side in (one, other))
            yield Unlike(part, name, first, second)
        elif not _same(one[name], other[name]):
            yield Unlike(part, name, _shown(one[name]), _shown(other[name]), _distance(one[name], other[name]))


def _same(one: Any, other: Any) -> bool:
    """Say whether two values are the same to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(raw_bytes(one), raw_bytes(other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    # NaN is unlike itself.
    return type(one) is type(other) and repr(one) == repr(other)


def _distance(one: Any, other: Any) -> float | None:
    """Return the largest difference between the elements of two tensors, infinite where only one has a number."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)) or one.shape != other.shape:
        return None
    if not one.numel() or one.is_complex() or other.is_complex():
        return None
    first, second = one.double(), other.double()
    same = (first == second) | (first.isnan() & second.isnan())
    return float((first - second).abs().masked_fill(same, 0.0).nan_to_num(nan=math.inf).max())


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() == 1:
            return f"{value.item()}"
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
