"""Put a job together: data, model and arguments become a trainer. Everything that can be wrong is said here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.errors import JobError, SurestepError
from surestep.jobs.arguments import check_evaluation, make_arguments
from surestep.jobs.bounds import check_search, try_extremes
from surestep.jobs.job import Job
from surestep.tasks.classification import ClassificationMetrics
from surestep.tasks.data.splits import Splits, open_splits
from surestep.tasks.prepared import Prepared
from surestep.tasks.registry import task_of


@dataclass(frozen=True)
class Assembly:
    """All parts of a job, ready for a trainer."""

    job: Job
    base: Path
    arguments: TrainingArguments
    splits: Splits
    prepared: Prepared
    metrics: ClassificationMetrics

    def with_values(self, values: Mapping[str, Any], output_dir: Path) -> Assembly:
        """Return the same job with the values of a trial, to be trained in `output_dir`; data and inputs are shared."""
        job = self.job.with_values(values)
        arguments = make_arguments(job, str(output_dir))
        # Changes that were accepted for the job are accepted for its trials.
        arguments.resume_allow = self.arguments.resume_allow
        return replace(self, job=job, arguments=arguments)

    def model_of(self, values: Mapping[str, Any]) -> nn.Module:
        """Build the model of a trial anew, its fresh weights drawn from torch's default generator."""
        job = self.job.with_values(values)
        return task_of(job.task).build_model(job.model, self.prepared.inputs, self.prepared.labels, self.base)

    def trainer(
        self, callbacks: Sequence[TrainerCallback] = (), model_init: Callable[..., nn.Module] | None = None
    ) -> Trainer:
        """Return the trainer of the job, of a model that `model_init` makes where one is given."""
        return Trainer(
            model=self.prepared.model if model_init is None else None,
            model_init=model_init,
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
    check_evaluation(job, arguments)
    if job.search is not None:
        check_search(job, job.search, arguments)
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
    assembly = Assembly(job, base, arguments, splits, prepared, ClassificationMetrics(job.metrics, len(splits.labels)))
    if job.search is not None and job.search.model_space:
        # Sizes that no model can have are told now. On the meta device, weights take neither time nor memory.
        with torch.device("meta"):
            try_extremes(job.search, assembly.model_of)
    return assembly
