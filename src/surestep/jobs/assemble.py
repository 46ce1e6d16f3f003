"""Put a job together: data, model and arguments become a trainer. Everything that can be wrong is said here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.errors import JobError, SurestepError
from surestep.jobs.job import Job
from surestep.tasks.classification import ClassificationMetrics
from surestep.tasks.data.splits import Splits, open_splits
from surestep.tasks.nearest import nearest
from surestep.tasks.prepared import Prepared
from surestep.tasks.registry import task_of

# Arguments that mean something else, or nothing, where a job decides; and what to write instead.
_REFUSED_ARGUMENTS = {
    "do_train": "a job always trains",
    "do_eval": "write eval_strategy",
    "do_predict": "the test split is judged at the end when data.test declares one",
    "resume_from_checkpoint": "a job goes on by itself from its newest checkpoint",
    "overwrite_output_dir": "give --fresh to start anew",
}


@dataclass(frozen=True)
class Assembly:
    """All parts of a job, ready for a trainer."""

    job: Job
    arguments: TrainingArguments
    splits: Splits
    prepared: Prepared
    metrics: ClassificationMetrics

    def trainer(self, callbacks: Sequence[TrainerCallback] = ()) -> Trainer:
        """Return the trainer of the job."""
        return Trainer(
            model=self.prepared.model,
            args=self.arguments,
            train_dataset=self.prepared.samples["train"],
            eval_dataset=self.prepared.samples.get("validation"),
            data_collator=self.prepared.collate,
            compute_metrics=self.metrics,
            callbacks=list(callbacks),
        )


def assemble(job: Job, base: Path, output_dir: str | None = None) -> Assembly:
    """Check arguments, read and check data, build the model; paths are relative to `base`, the job file's folder."""
    arguments = make_arguments(job, output_dir or job.output_dir)
    _check_evaluation(job, arguments)
    try:
        splits = open_splits(job.data, job.input_column, base)
        torch.manual_seed(arguments.seed)
        prepared = task_of(job.task).prepare(splits, job.input_column, job.model, base)
    except JobError:
        raise
    except (SurestepError, OSError) as error:
        if isinstance(error, ImportError):
            raise
        raise JobError(str(error)) from error
    return Assembly(job, arguments, splits, prepared, ClassificationMetrics(job.metrics, len(splits.labels)))


def make_arguments(job: Job, output_dir: str) -> TrainingArguments:
    """Return the declared arguments as `TrainingArguments`, which checks them, or raise `JobError`."""
    for name, instead in _REFUSED_ARGUMENTS.items():
        if name in job.arguments:
            raise JobError(f"arguments.{name} has no place in a job: {instead}.")
    try:
        return TrainingArguments(**{**job.arguments, "output_dir": output_dir})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise JobError(f"arguments: {error}") from error


def _check_evaluation(job: Job, arguments: TrainingArguments) -> None:
    """Refuse evaluation without data for it, and a best model by a metric that is not computed."""
    evaluates = str(getattr(arguments.eval_strategy, "value", arguments.eval_strategy)) != "no"
    if evaluates and job.data.validation is None:
        raise JobError(
            "arguments.eval_strategy asks for evaluations, but data.validation is not given: write a fraction such as "
            "data.validation=0.15, or a file."
        )
    best = arguments.metric_for_best_model
    known = {"loss", "runtime", "samples_per_second", "steps_per_second", *job.metrics}
    if best is not None and best.removeprefix("eval_") not in known:
        hint = nearest(best.removeprefix("eval_"), {"loss", *job.metrics})
        raise JobError(f"arguments.metric_for_best_model='{best}' is not among the metrics of the job: {hint}")
