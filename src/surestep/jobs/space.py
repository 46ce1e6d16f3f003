"""The `search` block of a job: what is varied, within what, and how. Needs neither torch nor Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from surestep.tasks.nearest import nearest
from surestep.tasks.settings import Count, ModelSettings, Settings

# Before the names of the model's settings, where they stand among those of arguments.
MODEL = "model."
# Settings that say which model it is, and so what its inputs are.
_FIXED = ("name", "path", "from_scratch")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "Write a number, such as 1e-3")
    return value


def _plain(value: Any) -> Any:
    if not isinstance(value, str | int | float | None):
        raise PydanticCustomError("plain", "Write a text, a number, true, false or null")
    return value


def _backend(value: Any) -> Any:
    if value in ("ray", "wandb"):
        raise PydanticCustomError(
            "backend",
            "Write optuna, whose study a job goes on with after any end; for the others call "
            "trainer.hyperparameter_search(backend=...) in Python",
        )
    return value


Number = Annotated[int | float, BeforeValidator(_number)]
Value = str | int | float | bool | None


class Range(Settings):
    """Numbers between two bounds; whole for a setting that is, and for any where `low`, `high` and `step` are."""

    low: Number = Field(description="the smallest value")
    high: Number = Field(description="the largest value")
    log: bool = Field(False, description="whether each power of ten is as likely as the next")
    step: Annotated[Number, Field(gt=0)] | None = Field(None, description="the distance between two values")

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        for fault, said in (
            (self.low >= self.high, f"low={self.low} and high={self.high} leave no choice: let low be the smaller one"),
            (self.log and self.low <= 0, f"low={self.low} has no logarithm: write a number above 0, or leave log out"),
            (self.log and self.step is not None, "log and step exclude each other: leave one of them out"),
        ):
            if fault:
                raise PydanticCustomError("range", "{said}", {"said": said})
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole, whatever the setting takes."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step))

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that show whether a setting takes all of them."""
        return self.low, self.high

    def __str__(self) -> str:
        how = ", log" if self.log else "" if self.step is None else f", step {self.step:g}"
        return f"{self.low:g} to {self.high:g}{how}"


class Choices(Settings):
    """One of several values."""

    choices: list[Annotated[Value, BeforeValidator(_plain)]] = Field(min_length=2, description="the values")

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that show whether a setting takes all of them: every one."""
        return tuple(self.choices)

    def __str__(self) -> str:
        return ", ".join("null" if value is None else str(value) for value in self.choices)


def _kind(value: Any) -> str:
    chosen = isinstance(value, Choices) or (isinstance(value, Mapping) and "choices" in value)
    return "<choices>" if chosen else "<range>"


Within = Annotated[
    Annotated[Range, Tag("<range>")] | Annotated[Choices, Tag("<choices>")],
    Discriminator(_kind),
]
Space = dict[str, Within]


class SearchSettings(Settings):
    """A search: the job is trained once for each trial, and the best trial is judged and kept."""

    backend: Annotated[Literal["optuna"], BeforeValidator(_backend)] = Field(
        "optuna", description="who draws the values"
    )
    n_trials: Count = Field(20, description="trials in all, those before a restart among them")
    timeout: Annotated[Number, Field(gt=0)] | None = Field(None, description="seconds after which no trial begins")
    space: Space = Field(
        default_factory=dict, description="arguments by name, each with {low, high, log, step} or {choices: [...]}"
    )
    model_space: Space = Field(default_factory=dict, description="the same for settings of the model")
    metric: str | None = Field(
        None,
        description="what trials are compared by: loss or one of the job's metrics; arguments.metric_for_best_model, "
        "else the first metric, when not given",
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="draw by what earlier trials came to, or blindly")
    seed: Annotated[int, Field(ge=0)] | None = Field(None, description="seed of the sampler")
    pruner: Literal["median", "hyperband", "none"] = Field("median", description="what ends trials without hope early")
    storage: str | None = Field(
        None, description="file (.db, .journal) or URL of the study; search/study.db in the run's folder when not given"
    )

    @model_validator(mode="after")
    def _vary_something(self) -> Self:
        if not self.space and not self.model_space:
            said = "nothing is varied: write space, such as {learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
            raise PydanticCustomError("space", "{said}", {"said": said})
        return self

    def varied(self) -> Iterator[tuple[str, Range | Choices]]:
        """Yield everything that is varied under the name by which a trial knows it."""
        yield from self.space.items()
        yield from ((MODEL + name, within) for name, within in self.model_space.items())

    def check_model(self, model: ModelSettings) -> None:
        """Raise what pydantic reports for a setting that the model does not have, or that says which one it is."""
        known = [name for name in type(model).model_fields if name not in _FIXED]
        for name in self.model_space:
            if name not in known:
                said = f"search.model_space: {model.name} has no '{name}' that can be varied: {nearest(name, known)}"
                raise PydanticCustomError("space", "{said}", {"said": said})


def values_shown(values: Mapping[str, Any]) -> str:
    """Return the values of a trial as a user would write them."""
    parts = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values.values())
    return ", ".join(f"{name}={part}" for name, part in zip(values, parts, strict=True))
