"""Reading the loaders of a trainer by position, and what is told of the training's when a run begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from surestep.config.enums import SaveStrategy
from surestep.data.hidden import put_back, states_of
from surestep.logs import get_logger

if TYPE_CHECKING:
    from surestep.data.reading import DataSeeding, Reader
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)

_SEEKS = "The training data is read from any position at once: a resumed run loses no time."
_WALKS = (
    "The order of the training data comes from %s, which cannot begin in the middle of an epoch: a resumed run walks "
    "through its indices up to the position%s, and reads no sample on the way. A sampler with a method seek(samples) "
    "begins at once, and so does the order of train_sampling_strategy."
)
_TOLD = "The training data is %s, which tells its position: a resumed run goes on from it and loses no time."
_READS = (
    "The training data is %s, which tells no position: a resumed run reads it up to there and throws the batches "
    "away%s. A set with __len__ and __getitem__ begins at once.%s"
)
_OWN_DRAWS = (
    "The training data draws from a generator of its own, which the position does not seed: %s. Each of the %d workers "
    "draws from a copy, and a resumed run draws other numbers. %s"
)
_AS_THEY_COME = (
    "data_seeding='global' leaves what the training data draws at random to whatever was drawn before it: a resumed "
    "run has the same samples in the same order; where they draw, it draws other numbers, and is not the same to the "
    "last bit. data_seeding='batch' repeats them."
)
HOW_TO_SEED = (
    "Draw from the default generators of random, numpy and torch, or give the class a method set_batch_seed(seed) that "
    "seeds its own; data_seeding='global' leaves draws as they happen to be."
)


def make_reader(trainer: Trainer, loader: Any) -> Reader:
    """Return what reads the training loader, with draws seeded as the arguments say."""
    from surestep.data.reading import Reader

    seeding = cast("DataSeeding", trainer.args.data_seeding)
    return Reader(loader, seed=trainer._data_seed(), seeding=seeding, world=trainer._world)


@contextmanager
def evaluation_batches(trainer: Trainer, loader: Any) -> Iterator[Iterable[Any]]:
    """Give the batches of an evaluation, whose draws are the same each time, and not those of the training.

    Generators that its data holds for itself are put back at the end.
    """
    if trainer.args.data_seeding == "global":
        yield loader
        return
    from surestep.data.fetching import EVALUATION

    reader = _evaluation_reader(trainer, loader)
    generators = reader.held.drawing()
    states = states_of(generators)
    try:
        yield reader.batches(EVALUATION)
    finally:
        put_back(generators, states)


def _evaluation_reader(trainer: Trainer, loader: Any) -> Reader:
    """Make a reader; a loader that keeps its workers keeps the reader that has them."""
    from surestep.data.reading import Reader

    keeps = vars(loader) if getattr(loader, "persistent_workers", False) else {}
    if "_surestep_reader" not in keeps:
        args = trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        seeding = cast("DataSeeding", args.data_seeding)
        keeps["_surestep_reader"] = Reader(loader, seed=seed, seeding=seeding, world=trainer._world)
    return cast("Reader", keeps["_surestep_reader"])


def tell_reading(trainer: Trainer, reader: Reader, run: Run, *, resumed: bool) -> None:
    """Say how the run gets to a position in its data, what that costs if it is resumed, and what would be better.

    A warning where reading is lost, or draws are not seeded, and the run saves or resumes; else a note.
    """
    done = run.stretch.done if resumed and not run.epoch_over else 0
    matters = resumed or trainer.args.save_strategy != SaveStrategy.NO
    if reader.tier == "seek":
        logger.info(_SEEKS)
    elif reader.tier == "indices":
        logger.info(_WALKS, _kind_of_order(reader.loader), f": here {done} batches" if done else "")
    elif reader.tells:
        logger.info(_TOLD, _kind_of_data(reader.loader))
    else:
        tell = logger.warning if matters else logger.info
        reason = reader.why_read()
        here = f": here {done} batches" if done else ""
        tell(_READS, _kind_of_data(reader.loader), here, f" Here {reason}." if reason else "")
    if matters and trainer.args.data_seeding == "global":
        logger.warning(_AS_THEY_COME)
    elif matters:
        _tell_own_draws(reader)


def _tell_own_draws(reader: Reader) -> None:
    """Warn of generators that workers hold copies of. Those of this process go into checkpoints."""
    if not reader.held.in_workers:
        return
    from surestep.data.probing import own_draws

    if where := own_draws(reader):
        logger.warning(_OWN_DRAWS, ", ".join(where), reader.loader.num_workers, HOW_TO_SEED)


def _kind_of_order(loader: Any) -> str:
    batches = loader.batch_sampler
    order = getattr(batches, "sampler", None)
    plain = type(batches).__module__.startswith(("torch.", "surestep."))
    return type(order if batches is None or (plain and order is not None) else batches).__name__


def _kind_of_data(loader: Any) -> str:
    from torch.utils.data import DataLoader, IterableDataset

    dataset = getattr(loader, "dataset", None)
    if isinstance(loader, DataLoader) and isinstance(dataset, IterableDataset):
        inner: Any = getattr(dataset, "stream", getattr(dataset, "source", dataset))
        return f"a stream ({type(inner).__name__})"
    return f"a loader of its own kind ({type(loader).__name__})"
