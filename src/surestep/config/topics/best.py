"""Best model and resume: which checkpoint is taken up again, and what of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.rules import Names
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, Effect, Verdict, verdicts

# What falls as a model gets better, though the name does not end in "loss".
_FALLING = (
    "loss",
    "perplexity",
    "ppl",
    "error",
    "error_rate",
    "mse",
    "rmse",
    "mae",
    "mape",
    "rmsle",
    "wer",
    "cer",
    "ter",
    "eer",
    "fid",
    "nll",
    "bpb",
    "bits_per_byte",
    "cross_entropy",
    "brier",
    "brier_score",
    "ece",
    "edit_distance",
)


_CHOICE = Verdict(Effect.MATHEMATICS, "the best so far was chosen in another way")


@dataclass
class BestModelArguments:
    """Which model is the best one, and what a resumed run takes up."""

    load_best_model_at_end: bool = field(default=False, metadata={"help": "Load the best checkpoint after training."})
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "Metric that tells the best model, with or without 'eval_' before it."}
    )
    greater_is_better: bool | None = field(
        default=None, metadata={"help": "Whether more of that metric is better; None takes what its name tells."}
    )
    ignore_data_skip: bool = field(
        default=False, metadata={"help": "Start the data from its beginning when resuming, not where the run stopped."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=False, metadata={"help": "Restore the state of callbacks when resuming; done in any case."}
    )
    track_best: list[str] | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Further metrics whose best is kept, each with its checkpoint; 'wer:min' or 'score:max' says which "
            "way is better where the metric's name does not."
        },
    )
    resume_strict: bool = field(
        default=False,
        kw_only=True,
        metadata={
            "help": "Stop where a resumed run would not be the same run: True finds no checkpoint, parts of one are "
            "missing, or settings differ that change the mathematics."
        },
    )
    resume_allow: list[str] | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "Settings that may differ on resume although that is refused otherwise; 'train_dataset' stands for "
            "its length, 'processes' for their number, 'all' for everything."
        },
    )


def key_of(name: str) -> str:
    """Return the name that a figure has among those of an evaluation: with `eval_` before it."""
    return name if name.startswith("eval_") else f"eval_{name}"


def tracked(entry: str) -> tuple[str, bool | None]:
    """Return the metric that an entry of `track_best` names, and whether greater is better; None where it is silent."""
    name, _, way = entry.rpartition(":")
    return (name, way == "max") if name and way in {"min", "max"} else (entry, None)


def grows_better(metric: str) -> bool:
    """Say whether a model is the better for more of the `metric`, by the name alone."""
    name = metric.lower()
    return not any(name == word or name.endswith(f"_{word}") for word in _FALLING) and not metric.endswith("loss")


def _allowed(name: str, value: object) -> object:
    """Take names as a list; one name is a list of it."""
    return Names(optional=True)(name, [value] if isinstance(value, str) else value)


def _normalise(args: BestModelArguments) -> None:
    if args.greater_is_better is None and args.metric_for_best_model is not None:
        args.greater_is_better = grows_better(args.metric_for_best_model)


def _check(args: BestModelArguments) -> Iterator[str]:
    for entry in args.track_best or ():
        name, _, way = entry.rpartition(":")
        if name and way not in {"min", "max"}:
            yield f'track_best has "{entry}". Write "{name}:min" or "{name}:max".'
        elif not tracked(entry)[0].strip():
            yield "track_best has an empty name. Write the name of a metric."
    names = [tracked(entry)[0].removeprefix("eval_") for entry in args.track_best or ()]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        yield f'track_best has "{twice}" more than once. Write it once.'


BEST_MODEL = Topic(
    BestModelArguments,
    rules={"track_best": Names(optional=True), "resume_allow": _allowed},
    normalise=_normalise,
    check=_check,
    resumed=verdicts(
        (_CHOICE, "load_best_model_at_end metric_for_best_model greater_is_better track_best"),
        (MATHEMATICS, "ignore_data_skip"),
        (HARMLESS, "restore_callback_states_from_checkpoint resume_strict resume_allow"),
    ),
)
