"""The way into a search: everything that can be wrong is said before the first trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surestep.errors import ArgumentError
from surestep.trainer.search.backend import HPSearchBackend, backend_class, default_hp_search_backend
from surestep.trainer.search.best import BestRun, check_directions, default_compute_objective
from surestep.trainer.search.memory import collect
from surestep.trainer.search.search import Search

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer


def start_search(
    trainer: Trainer,
    *,
    hp_space: Callable[[Any], Any] | None,
    compute_objective: Callable[[dict[str, float]], Any] | None,
    n_trials: int | None,
    direction: str | list[str],
    backend: str | HPSearchBackend | None,
    hp_name: Callable[[Any], str] | None,
    options: dict[str, Any],
) -> BestRun | list[BestRun]:
    """Run a search on a trainer, which is what it was before when this returns, but for its model."""
    _check_count(n_trials)
    kind = backend_class(default_hp_search_backend() if backend is None else backend)
    kind.ensure_available()
    server = kind()
    search = Search(
        trainer,
        server,
        check_directions(direction),
        several=not isinstance(direction, str),
        hp_space=server.default_hp_space if hp_space is None else hp_space,
        compute_objective=default_compute_objective if compute_objective is None else compute_objective,
        hp_name=hp_name,
    )
    trainer._search = search
    try:
        return server.run(search, n_trials, **options)
    finally:
        trainer._search = None
        collect(trainer)


def _check_count(n_trials: Any) -> None:
    counts = isinstance(n_trials, int) and not isinstance(n_trials, bool) and n_trials > 0
    if n_trials is not None and not counts:
        raise ArgumentError(f"n_trials is {n_trials!r}. Write how many trials to run, at least 1.")
