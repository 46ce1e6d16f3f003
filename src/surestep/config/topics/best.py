"""Best model and resume: which checkpoint is taken up again, and what of it."""

from dataclasses import dataclass, field

from surestep.config.topic import Topic

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


def grows_better(metric: str) -> bool:
    """Say whether a model is the better for more of the `metric`, by the name alone."""
    name = metric.lower()
    return not any(name == word or name.endswith(f"_{word}") for word in _FALLING) and not metric.endswith("loss")


def _normalise(args: BestModelArguments) -> None:
    if args.greater_is_better is None and args.metric_for_best_model is not None:
        args.greater_is_better = grows_better(args.metric_for_best_model)


BEST_MODEL = Topic(BestModelArguments, normalise=_normalise)
