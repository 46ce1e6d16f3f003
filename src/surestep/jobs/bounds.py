"""Whether everything that a search may draw is fit for its setting: tried before any work."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from surestep import TrainingArguments
from surestep.errors import JobError, ModelError
from surestep.jobs.arguments import evaluates, make_arguments
from surestep.jobs.job import Job
from surestep.jobs.space import MODEL, Range, SearchSettings, Value
from surestep.optional import require

SEARCHING = "the search of a job"


def check_search(job: Job, search: SearchSettings, arguments: TrainingArguments) -> None:
    """Raise `JobError` where the space holds values that its settings do not take."""
    require("optuna", SEARCHING)
    if "pruner" in search.model_fields_set and search.pruner != "none" and not evaluates(arguments):
        raise JobError(
            f"search.pruner is {search.pruner}, and without evaluations there is nothing to end a trial by: write "
            "arguments.eval_strategy=epoch."
        )
    for name, within in search.varied():
        whole = is_whole(job, name)
        if whole and isinstance(within, Range) and not all(map(_is_int, (within.low, within.high, within.step or 1))):
            raise JobError(f"search: {name} is a whole number, and {within} is not: write whole numbers.")
    try_extremes(search, lambda values: make_arguments(job.with_values(values), job.output_dir))


def try_extremes(search: SearchSettings, attempt: Callable[[dict[str, Value]], object]) -> None:
    """Attempt the ends of every range and every choice; raise `JobError` for a value that nothing makes fit.

    Each is tried beside what the job declares, and beside the first and the last values of all else that is varied.
    """
    first, last = ({name: within.extremes[place] for name, within in search.varied()} for place in (0, -1))
    for name, within in search.varied():
        for value in within.extremes:
            refused = [_refusal(attempt, {**others, name: value}) for others in ({}, first, last)]
            if all(refused):
                raise JobError(f"search: {name} with {value!r}: {refused[0]}")


def _refusal(attempt: Callable[[dict[str, Value]], object], values: dict[str, Value]) -> str:
    try:
        attempt(values)
    except (JobError, ModelError) as error:
        return str(error)
    return ""


def _is_int(number: Any) -> bool:
    return isinstance(number, int)


def is_whole(job: Job, name: str) -> bool:
    """Say whether a setting takes whole numbers only."""
    if name.startswith(MODEL):
        kind: Any = type(job.model).model_fields[name.removeprefix(MODEL)].annotation
    else:
        kind = typing.get_type_hints(TrainingArguments).get(name)
    return kind is int or set(typing.get_args(kind)) == {int, type(None)}
