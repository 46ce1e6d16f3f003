"""A search with Optuna on several ranks: the main process has the study, and all of them train each trial.

The main process asks the study for a trial and tells the others, everybody trains it, and the main process tells the
study what came of it. An error within a trial is each process's own, as in any training; one between trials, while the
others wait for the next, is told to them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from surestep.errors import SearchError, SurestepError
from surestep.optional import require
from surestep.runtime.collectives import from_main, on_main
from surestep.trainer.search.best import BestRun

if TYPE_CHECKING:
    from surestep.runtime.world import World
    from surestep.trainer.search.search import Search

_PURPOSE = 'hyperparameter_search(backend="optuna")'


class SharedTrial:
    """A trial as each process of a run sees it: what the main process draws, all of them get.

    `suggest_...` and `should_prune` are exchanges that every process takes part in. `leading` is the trial of the
    study, which the main process alone has; reports and notes go there and are nothing elsewhere.
    """

    def __init__(self, world: World, number: int, user_attrs: dict[str, Any], leading: Any = None) -> None:
        self.number, self.user_attrs, self.leading = number, dict(user_attrs), leading
        self.params: dict[str, Any] = {}
        self._world = world

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("suggest_"):
            raise AttributeError(
                f"A trial that several processes train has no '{name}': it has number, params, user_attrs, "
                "suggest_..., report, should_prune and set_user_attr, and on the main process 'leading', the trial of "
                "the study."
            )
        return partial(self._draw, name)

    def _draw(self, kind: str, name: str, *positional: Any, **settings: Any) -> Any:
        self.params[name] = value = self._ask(kind, name, *positional, **settings)
        return value

    def _ask(self, method: str, *positional: Any, **settings: Any) -> Any:
        """Return what the study's trial answers the main process, on every process."""
        return on_main(self._world, lambda: getattr(self.leading, method)(*positional, **settings))

    def report(self, value: float, step: int) -> None:
        """Report an intermediate value to the study."""
        if self.leading is not None:
            self.leading.report(value, step)

    def should_prune(self) -> bool:
        """Say whether the pruner has no hope for the trial."""
        return bool(self._ask("should_prune"))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Note something with the trial."""
        self.user_attrs[key] = value
        if self.leading is not None:
            self.leading.set_user_attr(key, value)


@dataclass(frozen=True)
class _Begin:
    """Train a trial, from a checkpoint where it goes on from one."""

    number: int
    user_attrs: dict[str, Any]
    checkpoint: str | None


@dataclass(frozen=True)
class _End:
    """The search is over; `error` is what ended it, if anything did."""

    best: BestRun | list[BestRun] | None = None
    error: SurestepError | None = None


class Lead:
    """What the main process tells the others. With one process there is nobody to tell."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._together = False

    @contextmanager
    def trial(self, trial: Any, checkpoint: str | None) -> Iterator[Any]:
        """Begin a trial everywhere and give it as all processes see it. The error that ends it is everybody's own."""
        if self._world.size == 1:
            yield trial
            return
        from_main(_Begin(trial.number, trial.user_attrs, checkpoint))
        self._together = True
        try:
            yield SharedTrial(self._world, trial.number, trial.user_attrs, trial)
        except require("optuna", _PURPOSE).TrialPruned:
            self._together = False
            raise
        self._together = False

    def end(self, best: BestRun | list[BestRun] | None = None, error: BaseException | None = None) -> None:
        """Tell that the search is over, unless an error came where all processes were busy with a trial."""
        if self._world.size == 1 or self._together:
            return
        if error is not None and not isinstance(error, SurestepError):
            error = SearchError(f"The search ended on the main process: {type(error).__name__}: {error}")
        from_main(_End(_without_study(best), error))


def lead(world: World, work: Callable[[Lead], BestRun | list[BestRun]]) -> BestRun | list[BestRun]:
    """Do the main process's part of a search and return what it found."""
    leader = Lead(world)
    try:
        best = work(leader)
    except BaseException as error:
        leader.end(error=error)
        raise
    leader.end(best)
    return best


def follow(search: Search) -> BestRun | list[BestRun]:
    """Train what the main process says, and return what it has found in the end, without its study."""
    pruned = require("optuna", _PURPOSE).TrialPruned
    while isinstance(order := from_main(None), _Begin):
        trial = SharedTrial(search.world, order.number, order.user_attrs)
        try:
            search.run_trial(trial, order.checkpoint)
        except pruned as error:
            traceback.clear_frames(error.__traceback__)
    if order.error is not None:
        raise order.error
    assert order.best is not None
    found: BestRun | list[BestRun] = order.best
    return found


def _without_study(best: Any) -> Any:
    """Return what was found without the study, which is bound to its process."""
    if isinstance(best, list):
        return [one._replace(run_summary=None) for one in best]
    return None if best is None else best._replace(run_summary=None)
