"""Who draws the values of trials and decides which go on: the one thing that differs between Optuna, Ray and W&B.

A search is cut in three. The `Search` knows what a trial is. A backend knows where trials come from and whom to report
to. The trainer knows neither: it asks both through `_hp_search_setup` and `_report_to_hp_search`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from surestep.config.enums import ExplicitEnum
from surestep.errors import MissingPackageError
from surestep.logs import get_logger
from surestep.optional import installed
from surestep.trainer.search.best import BestRun

if TYPE_CHECKING:
    from surestep.trainer.search.search import Search

_logger = get_logger(__name__)


class HPSearchBackend(ExplicitEnum):
    """The backends of a search, the default first."""

    OPTUNA = "optuna"
    RAY = "ray"
    WANDB = "wandb"


class HyperParamSearchBackend(ABC):
    """One backend. An instance serves one search."""

    name: ClassVar[str]
    pip_package: ClassVar[str]
    # A module that only the right package has: `ray` alone is installed without what Tune needs.
    needs: ClassVar[tuple[str, ...]]
    # Whether all processes of a run can train each trial together.
    over_ranks: ClassVar[bool] = False

    @classmethod
    def is_available(cls) -> bool:
        """Say whether the package is installed, with what a search needs of it."""
        return all(installed(module) for module in cls.needs)

    @classmethod
    def pip_install(cls) -> str:
        """Return the command that installs the package."""
        return f"pip install {cls.pip_package}"

    @classmethod
    def ensure_available(cls) -> None:
        """Raise where the package is not installed."""
        if not cls.is_available():
            raise MissingPackageError(
                f'hyperparameter_search(backend="{cls.name}") needs a package that is not installed. Install it with: '
                f"{cls.pip_install()}"
            )

    @abstractmethod
    def default_hp_space(self, trial: Any) -> dict[str, Any]:
        """Return the space where none is given."""

    @abstractmethod
    def run(self, search: Search, n_trials: int | None, **options: Any) -> BestRun | list[BestRun]:
        """Run the trials and return the best, or a list of those that none beats where there are several objectives."""

    @abstractmethod
    def trial_id(self, trial: Any) -> str:
        """Return what the backend calls a trial."""

    @abstractmethod
    def params(self, trial: Any) -> dict[str, Any]:
        """Return the values of a trial, for the trainer's state."""

    @abstractmethod
    def report(self, search: Search, trial: Any, step: int, metrics: dict[str, float]) -> None:
        """Tell of an evaluation during training. May raise what ends the trial."""

    def settings(self, trial: Any, hp_space: Callable[[Any], Any]) -> Any:
        """Return the arguments of a trial: here the trial itself, whose values were drawn from the space before."""
        del hp_space
        return trial

    def started(self, search: Search, trial: Any) -> None:
        """Follow the set-up of a trial, whose arguments are known now."""
        del search, trial


_BACKENDS = {
    HPSearchBackend.OPTUNA: ("surestep.trainer.search.optuna_backend", "OptunaBackend"),
    HPSearchBackend.RAY: ("surestep.trainer.search.ray_backend", "RayTuneBackend"),
    HPSearchBackend.WANDB: ("surestep.trainer.search.wandb_backend", "WandbBackend"),
}


def backend_class(name: str | HPSearchBackend) -> type[HyperParamSearchBackend]:
    """Return the class of a backend; it imports nothing of the backend's package."""
    module, kind = _BACKENDS[HPSearchBackend(name)]
    found: type[HyperParamSearchBackend] = getattr(import_module(module), kind)
    return found


def default_hp_search_backend() -> str:
    """Return the first backend whose package is installed: Optuna, then Ray Tune, then W&B."""
    kinds = [backend_class(name) for name in HPSearchBackend]
    available = [kind.name for kind in kinds if kind.is_available()]
    if not available:
        commands = "; ".join(kind.pip_install() for kind in kinds)
        raise MissingPackageError(f"hyperparameter_search needs a backend, and none is installed. One of: {commands}")
    if len(available) > 1:
        _logger.info("Of the search backends %s the first is taken.", ", ".join(available))
    return available[0]
