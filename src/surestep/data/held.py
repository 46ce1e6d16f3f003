"""The random generators that the parts of a loader hold for themselves, and their states in a checkpoint.

Those of samplers give the order of an epoch: a resumed run, which walks through the indices again, begins with what
they were when the epoch began. Those of datasets and collators are where the last batch left them, as long as this
process reads; copies of them in workers are out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surestep.data.hidden import generators_in, put_back, states_of
from surestep.logs import get_logger

_logger = get_logger(__name__)
_ORDERING = ("batch_sampler", "sampler", "generator")
_DRAWING = ("dataset", "collate_fn")


class HeldGenerators:
    """Finds the generators of a loader. It owns what they were when the epoch at hand began.

    `walks` says that the loader gets to a position by reading up to it, so that datasets draw again what they drew.
    """

    def __init__(self, loader: Any, *, walks: bool) -> None:
        self._loader = loader
        self._walks = walks
        self._epoch = 0
        self._at_start: dict[str, Any] = {}
        self._resumed: Mapping[str, Any] | None = None

    @property
    def in_workers(self) -> bool:
        """Whether workers read, with copies of whatever datasets and collators hold."""
        return bool(getattr(self._loader, "num_workers", 0))

    def ordering(self) -> dict[str, Any]:
        """Return the generators of samplers, and the loader's own."""
        return self._ordering(self.drawing())

    def _ordering(self, drawing: Mapping[str, Any]) -> dict[str, Any]:
        # Samplers hold the dataset as well.
        theirs = {id(one) for one in drawing.values()}
        return {place: one for place, one in self._of(_ORDERING).items() if id(one) not in theirs}

    def drawing(self) -> dict[str, Any]:
        """Return the generators of dataset and collator, or of a loader that has neither."""
        if hasattr(self._loader, "dataset"):
            return self._of(_DRAWING)
        return generators_in("loader", self._loader)

    def _of(self, names: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in names:
            found.update(generators_in(name, getattr(self._loader, name, None)))
        # One that two parts share stands once.
        return {place: one for place, one in found.items() if place == _first(found, one)}

    def begin(self, epoch: int) -> None:
        """Note what the generators are as an epoch begins; after a resume, make them what they have to be."""
        state, self._resumed = self._resumed, None
        if state is not None:
            self._restore(state, same_epoch=state["epoch"] == epoch)
        self._epoch, self._at_start = epoch, self._states()

    def _restore(self, state: Mapping[str, Any], *, same_epoch: bool) -> None:
        again = state["at_start"] if same_epoch else state["now"]
        missing = put_back(self.ordering(), {name: one for name, one in again.items() if _orders(name)})
        if not self.in_workers:
            left = again if self._walks else state["now"]
            missing += put_back(self.drawing(), {name: one for name, one in left.items() if not _orders(name)})
        if missing:
            _logger.warning(
                "The checkpoint holds the states of random generators that the data of this run does not have: %s.",
                ", ".join(missing),
            )

    def _states(self) -> dict[str, Any]:
        drawing = self.drawing()
        ordering = self._ordering(drawing)
        return states_of(ordering if self.in_workers else {**ordering, **drawing})

    def state_dict(self) -> dict[str, Any]:
        """Return what the generators are now, and what they were when the epoch began."""
        return {"epoch": self._epoch, "at_start": self._at_start, "now": self._states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; it is needed when the next epoch begins."""
        self._resumed = state


def _orders(place: str) -> bool:
    return place.startswith(_ORDERING)


def _first(found: Mapping[str, Any], one: Any) -> str:
    return next(place for place, other in found.items() if other is one)
