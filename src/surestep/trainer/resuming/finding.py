"""Which checkpoint a run goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from surestep.checkpoint.layout import checkpoints_in
from surestep.checkpoint.origin import read_origin
from surestep.checkpoint.run_record import RunRecord, read_record
from surestep.errors import CheckpointError, SurestepError
from surestep.logs import announce, get_logger
from surestep.runtime.collectives import agree, gather_objects
from surestep.runtime.remote_folder import RemoteError, is_url
from surestep.trainer.remote import remote_of

if TYPE_CHECKING:
    from surestep.checkpoint.remote import RemoteStore
    from surestep.checkpoint.store import CheckpointStore
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
AUTO = "auto"


def asks_for_newest(asked: object) -> bool:
    """Say whether the newest checkpoint is asked for, and not a certain one."""
    return asked is True or asked == AUTO


def find(trainer: Trainer, asked: object) -> str | None:
    """Return the checkpoint to go on from; the main process looks for it, and fetches one that is remote.

    Raises:
        CheckpointError: it is damaged, or a remote store does not answer.
    """
    if asks_for_newest(asked):
        return _newest(trainer, asked)
    if not is_url(asked):
        return _named(trainer, Path(str(asked)))
    from surestep.trainer.resuming.fetching import fetch_named

    with _told_where_remote():
        return str(fetch_named(trainer._store, str(asked)))


def find_on_each_machine(trainer: Trainer, asked: object, checkpoint: str) -> None:
    """Let the first process of each machine fetch what the main one has found, where its `output_dir` has it not.

    Raises:
        CheckpointError: one of them could not, on every process.
    """
    url = str(asked) if is_url(asked) else trainer.args.save_remote
    missing = not Path(checkpoint).is_dir()
    if url is None or not any(is_missing for (is_missing,) in agree([int(missing)])):
        return
    from surestep.trainer.resuming.fetching import fetch_beside

    problem = ""
    if missing and trainer._world.is_local_main:
        try:
            fetch_beside(trainer._store, remote_of(trainer) or url, Path(checkpoint).name)
        except (SurestepError, OSError) as error:
            problem = f"rank {trainer._world.rank}: {error}"
    if problems := [one for one in gather_objects(problem) if one]:
        raise CheckpointError(f"'{checkpoint}' is not on every machine. {'; '.join(problems)}")


def of_run(path: Path, record: RunRecord | None) -> bool:
    """Say whether a checkpoint is of the run that its folder belongs to, as far as both can tell."""
    origin = read_origin(path)
    return origin is None or record is None or origin.run == record.run


def _newest(trainer: Trainer, asked: object) -> str | None:
    store = trainer._store
    remote = None if trainer.args.save_remote is None else remote_of(trainer)
    record = _record_of(store, remote)
    found = store.newest_valid(lambda path: of_run(path, record))
    for damaged, _ in found.passed_over:
        _set_aside(store, damaged)
    newer = _newer(store, remote, record, found.path)
    if newer is not None or found.path is not None:
        return str(newer or found.path)
    others = [path for path in checkpoints_in(store.root) if not of_run(path, record)]
    if others:
        logger.warning(
            "'%s' holds checkpoints of another run, up to %s. They are not resumed, because a run was begun here after "
            "them; to go on from one of them, name it.",
            store.root,
            others[-1].name,
        )
    _tell_none(trainer, asked, nothing_lost=not found.passed_over)
    return None


def _record_of(store: CheckpointStore, remote: RemoteStore | None) -> RunRecord | None:
    if remote is None:
        return read_record(store.root)
    from surestep.trainer.resuming.fetching import settle_record

    with _told_where_remote():
        return settle_record(store, remote)


def _newer(
    store: CheckpointStore, remote: RemoteStore | None, record: RunRecord | None, here: Path | None
) -> Path | None:
    if remote is None:
        return None
    from surestep.trainer.resuming.fetching import fetch_newer

    with _told_where_remote():
        return fetch_newer(store, remote, record, here)


@contextmanager
def _told_where_remote() -> Iterator[None]:
    """Say what to do where a remote store fails: beginning anew, as if nothing were there, would lose the run."""
    try:
        yield
    except RemoteError as error:
        raise CheckpointError(
            f"The remote checkpoints cannot be read: {error}. Try again, name a checkpoint of this machine in "
            "resume_from_checkpoint, or write False to start anew."
        ) from error


def _set_aside(store: CheckpointStore, damaged: Path) -> None:
    try:
        logger.warning("The damaged checkpoint is kept as '%s'.", store.set_aside(damaged))
    except OSError as error:
        logger.warning("The damaged checkpoint stays where it is, for it cannot be renamed: %s.", error)


def _tell_none(trainer: Trainer, asked: object, *, nothing_lost: bool) -> None:
    url = trainer.args.save_remote
    places = f"'{trainer._store.root}'" + ("" if url is None else f" or at '{url}'")
    if asked is True and trainer.args.resume_strict:
        raise CheckpointError(
            f"resume_from_checkpoint=True, and there is no checkpoint to resume from in {places}, which "
            "resume_strict=True makes an error. Write resume_from_checkpoint='auto' for a run that may be its first."
        )
    told = f"resume_from_checkpoint={asked!r}, and there is no checkpoint in {places}: training starts anew."
    if asked == AUTO and nothing_lost:
        announce(logger, told)
    else:
        logger.warning(told)


def _named(trainer: Trainer, folder: Path) -> str:
    if not folder.is_dir():
        raise CheckpointError(
            f"resume_from_checkpoint is '{folder}', which is no folder. Name a checkpoint-<step> folder, or write "
            "'auto' for the newest one in output_dir."
        )
    problems = trainer._store.verify(folder)
    if problems:
        raise CheckpointError(
            f"The checkpoint '{folder}' is damaged: {'; '.join(problems)}. Name another one, or write "
            "resume_from_checkpoint='auto', which falls back to the newest valid one."
        )
    return str(folder)
