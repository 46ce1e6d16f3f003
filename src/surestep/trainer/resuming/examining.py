"""Whether a checkpoint may be gone on from, told before anything of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.layout import OPTIMIZER, SCALER, SCHEDULER, TRAINER_STATE, TRAINING_ARGUMENTS, progress_name
from surestep.checkpoint.manifest import is_foreign
from surestep.checkpoint.origin import Origin, read_origin
from surestep.checkpoint.stored import Stored, stored
from surestep.checkpoint.tree import tree_exists
from surestep.config.fields import judges_of
from surestep.config.topics.memory import MIRRORS
from surestep.config.verdicts import Difference, Effect, Situation, Verdict, batch, differences, order
from surestep.data.loaders import has_length
from surestep.errors import CheckpointError
from surestep.trainer.resuming.report import ANEW, LEFT_OUT, MISSING, RESTORED, Part, ResumeReport

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

# What begins anew where another value of an argument is allowed whose state is of another kind.
_STATE_OF = {"optim": OPTIMIZER, "optim_target_modules": OPTIMIZER, "lr_scheduler_type": SCHEDULER}
_NAMES = {OPTIMIZER: "optimizer", SCHEDULER: "schedule", SCALER: "loss scale"}


def examine(trainer: Trainer, checkpoint: str) -> ResumeReport:
    """Compare a checkpoint with the run that wants to go on from it.

    Raises:
        CheckpointError: something differs that must not and is not allowed by name, or, with `resume_strict`, the run
            would not be the same run.
    """
    folder = Path(checkpoint)
    # What is wrong with the state is told where it is taken up.
    state, then, origin = _read(folder / TRAINER_STATE) or {}, _read(folder / TRAINING_ARGUMENTS), read_origin(folder)
    report = ResumeReport(folder, origin, arguments_known=then is not None)
    situation = _situation(trainer, state, then or {})
    allowed = trainer.args.resume_allow or ()
    if then is not None:
        report.differences += differences(situation, judges_of(trainer.args._argument_topics), allowed)
    if origin is not None:
        report.differences += _of_objects(trainer, origin, situation, allowed)
    _refuse(report, folder)
    report.parts = list(_parts(trainer, folder, state, report.differences))
    if trainer.args.resume_strict:
        _refuse_inexact(report)
    return report


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file of a checkpoint says, None where it says nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _situation(trainer: Trainer, state: Mapping[str, Any], then: Mapping[str, Any]) -> Situation:
    args = trainer.args
    # Through JSON, which makes lists of tuples.
    now: dict[str, Any] = json.loads(json.dumps(args.to_dict(), default=str))
    # A version that did not have a setting did what happens where nobody writes it.
    then = {**{name: value for name, value in now.items() if name not in args._given}, **then} if then else {}
    for settings in (now, then):
        for mirror in MIRRORS:
            settings.pop(mirror, None)
    within_epoch = not float(state.get("epoch") or 0).is_integer()
    return Situation(then, now, within_epoch)


def _of_objects(trainer: Trainer, origin: Origin, situation: Situation, allowed: Sequence[str]) -> Iterator[Difference]:
    """Yield what differs in the objects that the trainer was given, as far as the checkpoint tells of them."""

    def permitted(name: str) -> bool:
        return bool({name, "all"} & set(allowed))

    data_name, data = "train_dataset", trainer.train_dataset
    samples = len(data) if has_length(data) else None
    if origin.samples != samples:
        yield Difference(data_name, _count(origin.samples), _count(samples), order(situation), permitted(data_name))
    elif origin.fingerprint != (now := getattr(data, "_fingerprint", None)):
        verdict = Verdict(Effect.MATHEMATICS, "fingerprints: other samples, or the same made in another way")
        yield Difference(data_name, origin.fingerprint, now, verdict, permitted(data_name))
    if origin.processes != trainer._world.size:
        name, size = "processes", trainer._world.size
        yield Difference(name, origin.processes, size, batch(situation), permitted(name))


def _count(samples: int | None) -> str:
    return "a stream" if samples is None else f"{samples:,} samples"


def _refuse(report: ResumeReport, folder: Path) -> None:
    refused = [one for one in report.differences if one.refused]
    if refused:
        lines = "\n".join(f"  - {one.name} was {one.then!r} and is {one.now!r}: {one.verdict.why}" for one in refused)
        names = [one.name for one in refused]
        raise CheckpointError(
            f"'{folder}' is not resumed with what differs now:\n{lines}\nWrite what was there before; or "
            f"resume_allow={names} to go on all the same; or another output_dir to start anew."
        )


def _refuse_inexact(report: ResumeReport) -> None:
    """Raise where the run would not be the same run, but for what is allowed."""
    judged = {Effect.NONE, Effect.MATHEMATICS}
    differing = [one for one in report.differences if one.verdict.effect in judged and not one.allowed]
    missing = report.named(MISSING)
    if not differing and not missing:
        return
    lines = [f"missing: {part}" for part in missing]
    lines += [f"{one.name} was {one.then!r} and is {one.now!r}: {one.verdict.effect.value}" for one in differing]
    listed = "".join(f"\n  - {line}" for line in lines)
    allow = f"resume_allow={[one.name for one in differing]}, " if differing else ""
    raise CheckpointError(
        f"'{report.checkpoint}' would not be resumed exactly, which resume_strict=True makes an error:{listed}\n"
        f"Write what was there before, {allow}or resume_strict=False."
    )


def _parts(trainer: Trainer, folder: Path, state: Mapping[str, Any], differing: list[Difference]) -> Iterator[Part]:
    parts = stored(folder)
    anew = {_STATE_OF[one.name] for one in differing if one.name in _STATE_OF and one.verdict.effect is Effect.REFUSED}
    yield Part("weights")
    for part in (OPTIMIZER, SCHEDULER):
        there = parts.has(part)
        outcome = ANEW if part in anew else RESTORED if there else MISSING
        yield Part(_NAMES[part], outcome)
    yield from _scaler(trainer, parts)
    ranks = range(trainer._world.size)
    lacking = [rank for rank in ranks if not parts.has_random(rank)]
    yield Part("random generators", MISSING if lacking else RESTORED, _ranks(lacking or list(ranks)))
    if is_foreign(folder):
        yield Part("position", RESTORED, "from the number of steps")
    else:
        yield Part("position", RESTORED if tree_exists(folder, progress_name(0)) else MISSING)
    yield from _callbacks(trainer, state)


def _ranks(ranks: list[int]) -> str:
    return "" if ranks == [0] else f"ranks {', '.join(map(str, ranks))}"


def _scaler(trainer: Trainer, parts: Stored) -> Iterator[Part]:
    wanted, there = trainer.engine.precision.state_dict() is not None, parts.has(SCALER)
    if wanted or there:
        yield Part(_NAMES[SCALER], RESTORED if wanted and there else MISSING if wanted else LEFT_OUT)


def _callbacks(trainer: Trainer, state: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the callbacks whose state the checkpoint holds, and those that are gone."""
    held = state.get("stateful_callbacks")
    saved = set(held if isinstance(held, Mapping) else ()) - {type(trainer.control).__name__}
    present = {type(one).__name__ for one in trainer.callback_handler.callbacks}
    for outcome, names in ((RESTORED, saved & present), (LEFT_OUT, saved - present)):
        if names:
            yield Part("callbacks", outcome, ", ".join(sorted(names)))
