"""Reproducibility: seeds and determinism."""

from dataclasses import dataclass, field

from surestep.config.rules import whole
from surestep.config.topic import Topic
from surestep.config.verdicts import ROUNDING, order, seed, verdicts


@dataclass
class ReproducibilityArguments:
    """Seeds and determinism."""

    full_determinism: bool = field(
        default=False,
        metadata={"help": "Use deterministic algorithms only; slower, and an error where there are none."},
    )
    seed: int = field(default=42, metadata={"help": "Seed of everything random."})
    data_seed: int | None = field(default=None, metadata={"help": "Seed of the order of the data; None takes seed."})


REPRODUCIBILITY = Topic(
    ReproducibilityArguments,
    rules={
        # numpy's generator takes 32 bits.
        "seed": whole(0, 2**32 - 1, instead="Write for example 42."),
        "data_seed": whole(0, 2**63 - 1, optional=True, instead="Write None to take the seed of the run."),
    },
    resumed=verdicts(
        (ROUNDING, "full_determinism"),
        (seed, "seed"),
        (order, "data_seed"),
    ),
)
