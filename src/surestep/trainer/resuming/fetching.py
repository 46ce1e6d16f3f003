"""Taking up a run from its remote folder: its newest checkpoint, or a certain one, is fetched into the output folder.

What is fetched becomes a checkpoint of this machine, verified and in its place, before anything of it is loaded; with
it come the run's record, the log up to there, and the checkpoints of its best models. A store that does not answer is
an error, and never a reason to begin anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.callbacks.trackers.jsonl import LOG_NAME
from surestep.callbacks.trackers.jsonl import PLACE as LOG_PLACE
from surestep.callbacks.trackers.lines import LineLog, Place
from surestep.checkpoint import manifest
from surestep.checkpoint.layout import MANIFEST, TRAINER_STATE, step_of
from surestep.checkpoint.origin import ORIGIN, run_in
from surestep.checkpoint.remote import DamagedError, RemoteStore
from surestep.checkpoint.run_record import RUN_RECORD, RunRecord, parse_record, read_record
from surestep.checkpoint.transfers import transferring
from surestep.errors import CheckpointError
from surestep.logs import announce, get_logger
from surestep.runtime.disk import make_folders, replace_bytes
from surestep.runtime.remote_folder import RemoteError, RemoteFolder
from surestep.trainer.best import BESTS

if TYPE_CHECKING:
    from surestep.checkpoint.store import CheckpointStore

_logger = get_logger(__name__)


def settle_record(store: CheckpointStore, remote: RemoteStore) -> RunRecord | None:
    """Return the run that the two folders belong to: the one begun last. Its record is here afterwards."""
    here, there = read_record(store.root), _record_there(remote)
    if there is None or (here is not None and (here.run, here.ended is None) == (there.run, there.ended is None)):
        return here
    if here is not None and (here.begun > there.begun or (here.run == there.run and here.ended is not None)):
        return here
    make_folders(store.root)
    there.write(store.root)
    return there


def fetch_newer(
    store: CheckpointStore, remote: RemoteStore, record: RunRecord | None, than: Path | None
) -> Path | None:
    """Fetch the newest checkpoint of a run that is whole and newer than one that is here; None where there is none.

    Raises:
        CheckpointError: the store does not answer, or there is no room here.
    """
    step = -1 if than is None else step_of(than)
    for name in reversed(remote.names()):
        there = step_of(Path(name))
        if there is None or there <= (step if step is not None else -1):
            return None
        run = run_in(remote.folder.read_each([f"{name}/{ORIGIN}"])[0] or b"")
        if record is not None and run is not None and run != record.run:
            continue
        try:
            return fetch(store, remote, name)
        except DamagedError as error:
            _logger.warning("'%s/%s' is passed over: %s.", remote.folder.url, name, error)
    return None


def fetch_named(store: CheckpointStore, url: str) -> Path:
    """Fetch the checkpoint of a URL, or the newest whole one of a run's.

    Raises:
        CheckpointError: there is none, it is damaged, or the store does not answer.
    """
    folder = RemoteFolder(url, "resume_from_checkpoint")
    if step_of(Path(folder.name)) is not None:
        try:
            return fetch(store, RemoteStore(folder.parent), folder.name)
        except DamagedError as error:
            raise CheckpointError(
                f"The checkpoint '{folder.url}' cannot be resumed from: {error}. Name another one, or the run's URL "
                f"'{folder.parent.url}', for the newest whole one."
            ) from error
    remote = RemoteStore(folder)
    found = fetch_newer(store, remote, _record_there(remote), None)
    if found is None:
        raise CheckpointError(
            f"resume_from_checkpoint is '{folder.url}', and no whole checkpoint is there (it holds: "
            f"{', '.join(remote.names()) or 'none'}). Name a run's URL or that of a checkpoint-<step>."
        )
    return found


def fetch_beside(store: CheckpointStore, source: RemoteStore | str, name: str) -> Path:
    """Fetch the checkpoint that another machine of the run goes on from; `source` is its run's or its own URL."""
    if isinstance(source, str):
        folder = RemoteFolder(source, "resume_from_checkpoint")
        source = RemoteStore(folder.parent if step_of(Path(folder.name)) is not None else folder)
    return fetch(store, source, name)


def fetch(store: CheckpointStore, remote: RemoteStore, name: str) -> Path:
    """Bring one checkpoint here, with the log up to it and the checkpoints of its best models; return where it is.

    Raises:
        CheckpointError: it is damaged, another one of its step is here, or there is no room.
    """
    target = _receive(store, remote, name)
    _take_log(remote.folder.within(name), target)
    for best in _bests_of(target) - {name}:
        if not (store.root / best).is_dir():
            try:
                _receive(store, remote, best)
            except DamagedError as error:
                _logger.warning("The best checkpoint '%s/%s' cannot be fetched: %s.", remote.folder.url, best, error)
    return target


def _receive(store: CheckpointStore, remote: RemoteStore, name: str) -> Path:
    url, target = f"{remote.folder.url}/{name}", store.root / name
    listing = remote.listing(name)
    if target.is_dir() and _is_here(store, remote, target):
        return target

    def fill(folder: Path) -> None:
        with transferring(f"Fetching {name}", listing.size.total) as told:
            remote.fetch(name, listing, folder, told)

    try:
        store.receive(step_of(target) or 0, listing.size, fill)
    except RemoteError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"'{url}' cannot be fetched to '{store.root}': {error}. Make room, or write another output_dir."
        ) from error
    announce(_logger, f"'{url}' was fetched to '{target}'.")
    return target


def _is_here(store: CheckpointStore, remote: RemoteStore, target: Path) -> bool:
    """Say whether what is here is what is there; what is damaged here is set aside."""
    if store.verify(target):
        _logger.warning("The damaged checkpoint is kept as '%s'.", store.set_aside(target))
        return False
    there = remote.folder.within(target.name)
    if manifest.has_manifest(target) and (target / MANIFEST).read_bytes() == there.read(MANIFEST):
        return True
    raise CheckpointError(
        f"'{there.url}' is to be fetched, and '{target}' is another checkpoint of that step. Move it away, or write "
        "another output_dir."
    )


def _bests_of(checkpoint: Path) -> set[str]:
    """Return the names of the checkpoints that hold the best models, by what a checkpoint knows of them."""
    bests = _json(checkpoint / BESTS).values()
    folders = [
        _json(checkpoint / TRAINER_STATE).get("best_model_checkpoint"),
        *(one.get("checkpoint") for one in bests),
    ]
    return {Path(folder).name for folder in folders if folder}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        # Which of them a checkpoint must have is told where it is loaded.
        return {}
    return content if isinstance(content, dict) else {}


def _take_log(there: RemoteFolder, checkpoint: Path) -> None:
    """Put the log of the run in its place, unless the one here goes as far; one that went another way is kept."""
    told, path = _json(checkpoint / LOG_PLACE), checkpoint.parent / LOG_NAME
    here = path.read_bytes() if path.is_file() else b""
    if not told or Place(**told).fits(here):
        return
    # The run's own goes on to its end, where it has come to one.
    logs = [there.parent.read_each([LOG_NAME])[0], there.read_each([LOG_NAME])[0]]
    content = next((log for log in logs if log is not None and Place(**told).fits(log)), None)
    if content is None:
        _logger.warning("The log of the run is not at '%s': it begins anew here.", there.url)
        return
    if here and not content.startswith(here):
        LineLog(path).set_aside()
    replace_bytes(path, content)


def _record_there(remote: RemoteStore) -> RunRecord | None:
    text = remote.folder.read_each([RUN_RECORD])[0]
    return None if text is None else parse_record(text, f"{remote.folder.url}/{RUN_RECORD}")
