"""Data: how samples are loaded, ordered and cut to what the model takes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from surestep.config.rules import Choice, Names, Text, whole
from surestep.config.topic import Topic
from surestep.config.verdicts import HARMLESS, MATHEMATICS, order, verdicts

SAMPLING = ("random", "sequential", "group_by_length", "batch_rebalance", "weighted")
SEEDING = ("batch", "sample", "global")
START_METHODS = ("fork", "spawn", "forkserver")


@dataclass
class DataArguments:
    """How samples are loaded, ordered and cut to what the model takes."""

    dataloader_drop_last: bool = field(default=False, metadata={"help": "Leave out a last batch that is not full."})
    dataloader_num_workers: int = field(
        default=0, metadata={"help": "Processes that load data; 0 loads in the training process."}
    )
    dataloader_pin_memory: bool = field(default=True, metadata={"help": "Load into pinned memory, for faster copies."})
    dataloader_persistent_workers: bool = field(
        default=False, metadata={"help": "Keep the loading processes alive between epochs."}
    )
    dataloader_prefetch_factor: int | None = field(
        default=None, metadata={"help": "Batches that each loading process prepares ahead; None leaves it to torch."}
    )
    dataloader_multiprocessing_context: str | None = field(
        default=None, metadata={"help": "How loading processes start.", "choices": [*START_METHODS]}
    )
    dataloader_in_order: bool = field(
        default=True, metadata={"help": "Take batches in their order, not as soon as one is ready."}
    )
    remove_unused_columns: bool = field(
        default=True, metadata={"help": "Drop the columns that the model's forward does not take."}
    )
    label_names: list[str] | None = field(
        default=None, metadata={"help": "Names of the inputs that are labels; None reads them from the model."}
    )
    train_sampling_strategy: str = field(
        default="random", metadata={"help": "Order of the training samples.", "choices": [*SAMPLING]}
    )
    length_column_name: str = field(default="length", metadata={"help": "Column that holds the samples' lengths."})
    sampling_weights: str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "What train_sampling_strategy='weighted' draws by: a column of the training set that holds the "
            "samples' weights, or 'balanced', by which every class is drawn as often as any other."
        },
    )
    data_seeding: str = field(
        default="batch",
        kw_only=True,
        metadata={
            "help": "What random draws of datasets and collators follow from: the seed and the position of the batch "
            "(batch) or of each sample (sample), or the default generators as they happen to be, as in the original "
            "(global).",
            "choices": [*SEEDING],
        },
    )


def _check(args: DataArguments) -> Iterator[str]:
    yield from _check_workers(args)
    if (args.train_sampling_strategy == "weighted") != (args.sampling_weights is not None):
        yield (
            f"train_sampling_strategy={args.train_sampling_strategy!r} and sampling_weights={args.sampling_weights!r} "
            "go together only as train_sampling_strategy='weighted' with sampling_weights='balanced' or a column's "
            "name. Write both or neither."
        )


def _check_workers(args: DataArguments) -> Iterator[str]:
    if args.dataloader_num_workers > 0:
        return
    for name, off in (
        ("dataloader_prefetch_factor", None),
        ("dataloader_multiprocessing_context", None),
        ("dataloader_persistent_workers", False),
    ):
        value = getattr(args, name)
        if value != off:
            yield (
                f"{name}={value!r} needs loading processes, and dataloader_num_workers is 0. "
                f"Write dataloader_num_workers=1 or more, or {name}={off}."
            )


DATA = Topic(
    DataArguments,
    rules={
        "dataloader_num_workers": whole(0, instead="Write 0 to load in the training process."),
        "dataloader_prefetch_factor": whole(1, optional=True, instead="Write None to leave it to torch."),
        "dataloader_multiprocessing_context": Choice(START_METHODS, optional=True),
        "label_names": Names(optional=True),
        "train_sampling_strategy": Choice(SAMPLING),
        "sampling_weights": Text(optional=True),
        "data_seeding": Choice(SEEDING),
    },
    check=_check,
    resumed=verdicts(
        (
            HARMLESS,
            "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
            "dataloader_prefetch_factor dataloader_multiprocessing_context",
        ),
        (MATHEMATICS, "dataloader_drop_last dataloader_in_order remove_unused_columns label_names data_seeding"),
        (order, "train_sampling_strategy length_column_name sampling_weights"),
    ),
)
