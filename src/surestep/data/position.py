"""Where a run stands in its data: the seed, the epoch, and the samples of that epoch already consumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from surestep.errors import CheckpointError, DataError


@dataclass(slots=True)
class DataPosition:
    """The position in the data, counted in samples over all ranks.

    The order of an epoch is a function of `seed` and `epoch` alone, so these three numbers say exactly which samples
    are still to come, whatever the batch size and the number of processes are from here on.
    """

    seed: int = 42
    epoch: int = 0
    samples: int = 0

    def advance(self, samples: int) -> None:
        """Count `samples` more, summed over all ranks."""
        if samples < 0:
            raise DataError(
                f"a position moves forward only: advance({samples}); give the samples of a batch, 0 or more"
            )
        self.samples += samples

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.samples = 0

    def state_dict(self) -> dict[str, int]:
        """Return the three numbers, ready for JSON."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the numbers of `state_dict`; raise `CheckpointError` where one is missing or is no count."""
        names = [field.name for field in fields(self)]
        for name in names:
            value = state.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or (value < 0 and name != "seed"):
                raise CheckpointError(
                    f"the saved data position has {name}={value!r}; it needs a whole number there. "
                    "The checkpoint is damaged or of another program: resume from an earlier one."
                )
        for name in names:
            setattr(self, name, state[name])
