"""The arguments of a job: those of the training, as far as a job leaves them to its author."""

from __future__ import annotations

from surestep import TrainingArguments
from surestep.errors import JobError
from surestep.jobs.job import Job
from surestep.tasks.nearest import nearest

# Arguments that mean something else, or nothing, where a job decides; and what to write instead.
_REFUSED_ARGUMENTS = {
    "do_train": "a job always trains",
    "do_eval": "write eval_strategy",
    "do_predict": "the test split is judged at the end when data.test declares one",
    "resume_from_checkpoint": "a job goes on by itself from its newest checkpoint",
    "overwrite_output_dir": "give --fresh to start anew",
}


def make_arguments(job: Job, output_dir: str) -> TrainingArguments:
    """Return the declared arguments as `TrainingArguments`, which checks them, or raise `JobError`."""
    for name, instead in _REFUSED_ARGUMENTS.items():
        if name in job.arguments:
            raise JobError(f"arguments.{name} has no place in a job: {instead}.")
    try:
        return TrainingArguments(**{**job.arguments, "output_dir": output_dir})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise JobError(f"arguments: {error}") from error


def check_evaluation(job: Job, arguments: TrainingArguments) -> None:
    """Refuse evaluation without data for it, and a best model by a metric that is not computed."""
    if evaluates(arguments) and job.data.validation is None:
        raise JobError(
            "arguments.eval_strategy asks for evaluations, but data.validation is not given: write a fraction such as "
            "data.validation=0.15, or a file."
        )
    best = arguments.metric_for_best_model
    known = {"loss", "runtime", "samples_per_second", "steps_per_second", *job.metrics}
    if best is not None and best.removeprefix("eval_") not in known:
        hint = nearest(best.removeprefix("eval_"), {"loss", *job.metrics})
        raise JobError(f"arguments.metric_for_best_model='{best}' is not among the metrics of the job: {hint}")


def evaluates(arguments: TrainingArguments) -> bool:
    """Say whether there are evaluations during training."""
    return str(getattr(arguments.eval_strategy, "value", arguments.eval_strategy)) != "no"
