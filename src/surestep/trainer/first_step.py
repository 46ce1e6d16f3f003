"""What is looked at once, around the first step of a run, so that a mistake is no slow surprise."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, TypeVar, cast

from surestep.errors import DataError, SurestepError
from surestep.trainer.preflight.hints import advice_for

T = TypeVar("T")
# What torch says, and no more than says, of predictions and labels whose shapes differ.
MISFITS = r"Using a target size .* that is different to the input size"
_EXAMPLE = "Using a target size (torch.Size([4])) that is different to the input size (torch.Size([4, 1]))"


def with_first_watched(steps: Generator[T, Any, Any], then: Callable[[], object] | None = None) -> Iterator[T]:
    """Return `steps`, the first of which is an error where torch spreads labels over predictions of another shape.

    `then` is called after the first. The others come from `steps` as they are, without a Python call between.
    """
    return chain.from_iterable(_parts(steps, then))


def _parts(steps: Generator[T, Any, Any], then: Callable[[], object] | None) -> Iterator[Iterable[T]]:
    with misfits_refused():
        first = list(_one(steps))
    if then is not None:
        then()
    yield first
    yield steps


def _one(steps: Iterator[T]) -> Iterator[T]:
    for step in steps:
        yield step
        return


@contextmanager
def misfits_refused() -> Iterator[None]:
    """Raise `DataError` in the body where labels do not fit predictions, unless the user's own filter lets it pass."""
    if _let_pass():
        yield
        return
    with _raised(MISFITS):
        try:
            yield
        except UserWarning as misfit:
            if not re.match(MISFITS, str(misfit)):
                raise
            raise DataError(
                f"{advice_for(str(misfit))} Where this is meant, write warnings.filterwarnings('ignore', "
                "message='Using a target size')."
            ) from misfit


@contextmanager
def _raised(message: str) -> Iterator[None]:
    """Raise the warnings of one form in the body. Filters that are set meanwhile stay: only its own is taken away."""
    warnings.filterwarnings("error", message=message)
    filters = cast("list[Any]", warnings.filters)
    own = filters[0]
    try:
        yield
    finally:
        # Whoever has reset all filters has taken this one with them.
        with suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(own)


def _let_pass() -> bool:
    """Say whether a filter names the warning and ignores it; one that ignores all warnings is no such wish."""
    return any(
        action == "ignore" and form is not None and re.match(form, _EXAMPLE) for action, form, *_ in warnings.filters
    )


@contextmanager
def advised() -> Iterator[None]:
    """Add to an error that models, collators or loaders raise in the body what to do about it, as a note."""
    try:
        yield
    except Exception as error:
        advice = None if isinstance(error, SurestepError) else advice_for(str(error))
        if advice is not None and advice not in getattr(error, "__notes__", ()):
            error.add_note(advice)
        raise
