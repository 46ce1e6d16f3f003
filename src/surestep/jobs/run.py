"""Run a job: train, judge, keep. What was begun goes on; what is complete is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.errors import Interrupted, JobError
from surestep.jobs.folder import RunFolder, differences
from surestep.jobs.job import Job
from surestep.tasks.data.source import fingerprint

if TYPE_CHECKING:
    from surestep import Trainer
    from surestep.jobs.assemble import Assembly
    from surestep.jobs.watch import NoteBeginning

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """A job to run; `base` is the folder of the job file, `say` and `warn` tell the user what goes on."""

    job: Job
    base: Path
    say: Say
    warn: Say
    fresh: bool = False
    accept_changes: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its results, whether they were there before, and the signal that cut it short, if one did."""

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)
    was_complete: bool = False
    signal_number: int | None = None


def run_job(request: Request) -> Outcome:
    """Run the job to its end, or raise `JobError` before any work when it cannot be run as declared."""
    folder = RunFolder(Path(request.job.output_dir))
    if request.fresh:
        _start_anew(folder, request.say)
        if request.job.search is not None and request.job.search.storage is not None:
            request.warn(f"The study in {request.job.search.storage} is outside of the run's folder, and goes on.")
    folder.check_free()
    with folder.locked():
        data = _fingerprint(request)
        record = folder.record()
        if record is not None:
            _check_same(folder, differences(record, request.job, data), request)
        results = folder.results()
        if results is not None:
            return Outcome(folder.path, results, was_complete=True)
        if record is not None and not folder.steps_saved():
            request.say("The earlier run ended before its first checkpoint: starting from the beginning.")
        return _train(request, folder, data)


def _start_anew(folder: RunFolder, say: Say) -> None:
    if not folder.path.exists():
        return
    with folder.locked():
        say(f"The earlier run was moved to {folder.move_aside()}; delete it when you no longer need it.")


def _fingerprint(request: Request) -> str:
    data = request.job.data
    declared = [source for source in (data.source, data.validation, data.test) if isinstance(source, str)]
    return fingerprint(declared, request.base)


def _check_same(folder: RunFolder, changes: list[str], request: Request) -> None:
    """Let a run go on only as it was declared, unless the changes are accepted by name."""
    if not changes:
        return
    listed = "\n".join(f"  {change}" for change in changes)
    if not request.accept_changes:
        raise JobError(
            f"'{folder.path}' holds a run of another job. What differs:\n{listed}\nWrite another output_dir; or give "
            "--fresh to move that run aside and start anew, or --accept-changes to go on from its newest checkpoint."
        )
    request.warn(f"The run goes on although it was begun otherwise:\n{listed}")
    folder.reopen()


@dataclass(frozen=True)
class _Course:
    """What one start of a run works with."""

    assembly: Assembly
    folder: RunFolder
    beginning: NoteBeginning


def _train(request: Request, folder: RunFolder, data: str) -> Outcome:
    from surestep.jobs.assemble import assemble
    from surestep.jobs.watch import NoteBeginning
    from surestep.runtime.signals import SIGNALS
    from surestep.trainer.stopping import actions_on_signals

    assembly = assemble(request.job, request.base)
    for warning in assembly.splits.warnings:
        request.warn(warning)
    if request.accept_changes:
        assembly.arguments.resume_allow = ["all"]
    course = _Course(assembly, folder, NoteBeginning(request.say))
    try:
        # Between two trials, and before and after the training, a signal is noted as well.
        with SIGNALS.listening(actions_on_signals(assembly.arguments), "step"):
            if request.job.search is not None:
                return _search_and_keep(course, request, data)
            trainer = assembly.trainer([course.beginning])
            folder.begin(request.job, data)
            request.say(_introduce(assembly))
            return _to_the_end(course, trainer, folder)
    except Interrupted as stop:
        return Outcome(folder.path, signal_number=stop.signal_number)


def _search_and_keep(course: _Course, request: Request, data: str) -> Outcome:
    """Search, and go on with the run of the best trial: it is at its end, unless its checkpoints were not kept."""
    from surestep.jobs.search import search

    course.folder.begin(request.job, data)
    request.say(_introduce(course.assembly))
    found = search(course.assembly, course.folder.search_path, request.say)
    best = course.assembly.with_values(found.values, found.folder)
    trainer = best.trainer([course.beginning], lambda: best.model_of({}))
    return _to_the_end(replace(course, assembly=best), trainer, RunFolder(found.folder), search=found.report)


def _to_the_end(course: _Course, trainer: Trainer, trained_in: RunFolder, **more: Any) -> Outcome:
    """Train from the newest checkpoint, judge and keep the model; `more` is written into the results as well."""
    began = time.monotonic()
    # Where nothing was saved there is nothing to look for, and nothing to be said of it.
    trainer.train(resume_from_checkpoint="auto" if trained_in.steps_saved() else None)
    seconds = {"train_seconds": round(time.monotonic() - began, 1), "resumed_from_step": course.beginning.step}
    results = _judge(course.assembly, trainer) | seconds | more
    _keep_model(course.assembly, trainer, course.folder)
    course.folder.finish(results)
    return Outcome(course.folder.path, results)


def _introduce(assembly: Assembly) -> str:
    job, model = assembly.job, assembly.prepared.model
    sizes = ", ".join(f"{name} {size:,}" for name, size in assembly.splits.sizes().items())
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{job.name}: {job.task.name} on {job.data.source} ({sizes}) with {job.model.name}, {count:,} parameters."


def _judge(assembly: Assembly, trainer: Trainer) -> dict[str, Any]:
    """Score the final (or best) model on each part that was held out."""
    state, scores = trainer.state, {}
    for name, samples in assembly.prepared.samples.items():
        if name == "train":
            continue
        found = trainer.predict(samples, metric_key_prefix=name).metrics or {}
        shown = ("loss", *assembly.metrics.names)
        scores[name] = {
            "samples": len(assembly.splits.parts[name]),
            "metrics": {key: found[f"{name}_{key}"] for key in shown if f"{name}_{key}" in found},
            "per_class": _per_class(assembly.metrics.confusion, assembly.splits.labels.names),
            "confusion": assembly.metrics.confusion.tolist(),
        }
    return {
        "name": assembly.job.name,
        "task": assembly.job.task.name,
        "model": assembly.job.model.name,
        "labels": list(assembly.splits.labels.names),
        "steps": state.global_step,
        "epochs": state.epoch,
        "best_checkpoint": state.best_model_checkpoint,
        "best_metric": state.best_metric,
        "scores": scores,
    }


def _per_class(confusion: Any, names: Sequence[str]) -> dict[str, dict[str, float]]:
    from surestep.tasks.classification import precision_recall_f1

    precision, recall, f1 = (part.tolist() for part in precision_recall_f1(confusion))
    return {name: {"precision": precision[i], "recall": recall[i], "f1": f1[i]} for i, name in enumerate(names)}


def _keep_model(assembly: Assembly, trainer: Trainer, folder: RunFolder) -> None:
    from surestep.tasks.saved import write_card

    folder.model_path.mkdir(exist_ok=True)
    trainer.save_model(str(folder.model_path))
    write_card(folder.model_path, assembly.prepared, assembly.job.task, assembly.job.model)
