"""Who a run is: its name, kept in its folder and in each of its checkpoints, and how it ended."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.names import plain_name
from surestep.checkpoint.optimizer_state import inner_optimizer
from surestep.checkpoint.origin import Origin, digest_of, read_origin
from surestep.checkpoint.run_record import RunRecord, read_record
from surestep.config.enums import SaveStrategy
from surestep.data.loaders import has_length
from surestep.logs import get_logger
from surestep.trainer.resuming.finding import of_run

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

_logger = get_logger(__name__)


def identify(checkpoint: str | None) -> RunRecord:
    """Return the run that a checkpoint is of, or a new one."""
    origin = None if checkpoint is None else read_origin(Path(checkpoint))
    if origin is not None:
        return RunRecord(origin.run, origin.begun)
    # Not from python's generator, which is seeded: two runs would have one name.
    return RunRecord(uuid.uuid4().hex[:12], _now())


def take_folder(trainer: Trainer, record: RunRecord) -> None:
    """Write down that the output folder is this run's from here on; tell of checkpoints of another run in it."""
    root = trainer._store.root
    before = read_record(root) if trainer._world.is_main else record
    if before is None or before.run != record.run:
        others = [path.name for path in checkpoints_in(root) if not of_run(path, record)]
        if others:
            _logger.warning(
                "'%s' holds checkpoints of another run, up to %s. They stay; a checkpoint of this run takes the place "
                "of one of the same step.",
                root,
                others[-1],
            )
    write_record(trainer, record)


def write_record(trainer: Trainer, record: RunRecord) -> None:
    """Write the record of the run into its folder, if the run saves anything there."""
    root = trainer._store.root
    if not trainer._world.is_main or trainer.args.save_strategy == SaveStrategy.NO:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        record.write(root)
    except OSError as error:
        # A full disk is no reason to lose a run.
        _logger.warning("'%s' cannot be written to (%s): it does not say which run it is of.", root, error)


def describe(trainer: Trainer) -> Origin:
    """Return what a checkpoint that is written now is of."""
    record = trainer._record or identify(None)
    model = trainer.engine.unwrap(trainer.model)
    parameters = [(plain_name(name), parameter) for name, parameter in model.named_parameters()]
    data: Any = trainer.train_dataset
    optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
    return Origin(
        run=record.run,
        begun=record.begun,
        written=_now(),
        surestep=_own_version(),
        torch=torch.__version__,
        model=type(model).__name__,
        parameters=digest_of(parameters),
        tensors=len(parameters),
        elements=sum(parameter.numel() for _, parameter in parameters),
        optimizer=None if optimizer is None else type(inner_optimizer(optimizer)).__name__,
        schedule=None if schedule is None else type(schedule).__name__,
        processes=trainer._world.size,
        samples=len(data) if has_length(data) else None,
        fingerprint=getattr(data, "_fingerprint", None),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _own_version() -> str:
    return version("surestep")
