"""Sequence to sequence: evaluation by generation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surestep.config.rules import anything, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import SCORES, order, verdicts


@dataclass
class GenerationArguments:
    """Evaluation by generation."""

    sortish_sampler: bool = field(
        default=False, metadata={"help": "Put training samples of similar lengths into one batch."}
    )
    predict_with_generate: bool = field(
        default=False, metadata={"help": "Generate in evaluation and prediction, for metrics on text."}
    )
    generation_max_length: int | None = field(
        default=None, metadata={"help": "Longest sequence to generate; None takes the model's own."}
    )
    generation_num_beams: int | None = field(
        default=None, metadata={"help": "Beams to generate with; None takes the model's own."}
    )
    generation_config: str | Path | Any | None = field(
        default=None, metadata={"help": "Generation settings: an object, or the name or path to load them from."}
    )


SEQ2SEQ = Topic(
    GenerationArguments,
    rules={
        "generation_max_length": whole(1, optional=True, instead="Write None to take the model's own."),
        "generation_num_beams": whole(1, optional=True, instead="Write 1 for greedy search."),
        "generation_config": anything,
    },
    resumed=verdicts(
        (order, "sortish_sampler"),
        (SCORES, "predict_with_generate generation_max_length generation_num_beams generation_config"),
    ),
)
