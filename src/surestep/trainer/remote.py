"""The remote folder of a run (`save_remote`): every checkpoint is sent there once it is complete on this machine.

A `Mirror` owns what is still to be sent, and what became of it; the main process alone sends. A checkpoint that could
not be sent stays owed: the next save tries again, the newest first, for as long as it is in the output folder. With
`save_async` it is sent beside the training, one at a time, and a failure is told with the next save.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from surestep.callbacks.trackers.jsonl import LOG_NAME
from surestep.callbacks.trackers.jsonl import PLACE as LOG_PLACE
from surestep.checkpoint import manifest
from surestep.checkpoint.layout import step_of
from surestep.checkpoint.remote import RemoteStore
from surestep.checkpoint.run_record import RUN_RECORD
from surestep.config.enums import SaveStrategy
from surestep.errors import CheckpointError, SaveError
from surestep.logs import get_logger
from surestep.runtime.background import Background
from surestep.runtime.collectives import on_main
from surestep.runtime.remote_folder import RemoteFolder
from surestep.runtime.world import World

if TYPE_CHECKING:
    from surestep.checkpoint.store import CheckpointStore
    from surestep.trainer.trainer import Trainer

_logger = get_logger(__name__)


@dataclass
class _Sent:
    """What one try came to: checkpoints that are there now, and those that are not, with the reason."""

    done: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


class Mirror:
    """Sends the checkpoints of one run, and keeps there what the run's retention keeps."""

    def __init__(self, store: RemoteStore, local: CheckpointStore, world: World, *, stops: bool, later: bool) -> None:
        self.store = store
        self._local, self._world, self._stops = local, world, stops
        self._beside = Background[_Sent]("surestep-remote") if later else None
        # Complete here and not there, the newest last.
        self._owed: list[Path] = []
        self._newest: Path | None = None
        self._tried, self._failed = 0, 0

    def begin(self, resumed: Path | None) -> None:
        """Write down there which run it is, clear what this run left half-done, and find what is owed.

        Raises:
            SaveError: nothing can be written there.
        """
        on_main(self._world, lambda: self._begin(resumed))

    def send(self, folder: Path, protect: Collection[Path]) -> None:
        """Send a checkpoint that is complete here, and those that are still owed; or begin to.

        Raises:
            SaveError: one could not be sent, and on_save_error is "stop".
        """
        if self._stops:
            on_main(self._world, lambda: self._send(folder, protect))
        elif self._world.is_main:
            self._send(folder, protect)

    def in_flight(self) -> set[Path]:
        """Return what must stay here until it is there."""
        return set(self._owed) if self._beside is not None and self._beside.in_flight is not None else set()

    def conclude(self, protect: Collection[Path], *, keep_newest: bool) -> None:
        """Wait, try once more what is owed, and send the record and the log of a run that came to its end.

        Raises:
            SaveError: the last checkpoint is not there.
        """
        on_main(self._world, lambda: self._conclude(protect, keep_newest))

    def close(self) -> None:
        """Wait for what is under way, and send what waited for it: whatever ended the run, its last save counts."""
        if self._beside is None or self._beside.in_flight is None:
            return
        try:
            self._note(self._beside.take())
            if self._newest in self._owed:
                self._note(self._try([], keep_newest=True, prune=False))
        except SaveError as error:
            _logger.error("%s", error)

    def _begin(self, resumed: Path | None) -> None:
        try:
            self._put_beside([RUN_RECORD])
            self._look_around(resumed)
        except OSError as error:
            raise SaveError(
                f"No checkpoint can be sent to save_remote: {error}. Let this user write there, write another URL, or "
                "leave save_remote out."
            ) from error

    def _look_around(self, resumed: Path | None) -> None:
        """Clear what this run left half-done there, tell of what is not this run's, and find what is owed."""
        run, url, standing = self._local.run, self.store.folder.url, self.store.standing()
        for name in self.store.left_by(run, [name for name, one in standing.items() if one.unfinished]):
            _logger.warning("'%s/%s' was never complete: it is removed.", url, name)
            self.store.remove(name)
        headers = {name: one.header for name, one in standing.items() if one.header is not None}
        if others := [name for name, header in headers.items() if header.run != run]:
            _logger.warning(
                "'%s' holds checkpoints of another run, up to %s. They stay; a checkpoint of this run takes the place "
                "of one of the same step.",
                url,
                others[-1],
            )
        own = {name for name, header in headers.items() if header.run == run}
        if resumed is not None and resumed.parent == self._local.root and manifest.has_manifest(resumed):
            self._owed = [resumed] if resumed.name not in own else []
            self._newest = resumed

    def _send(self, folder: Path, protect: Collection[Path]) -> None:
        self._owed = [path for path in self._owed if path != folder and path.is_dir()] + [folder]
        self._newest = folder
        if self._beside is None:
            self._note(self._try(protect, keep_newest=True))
            return
        if self._beside.finished:
            self._note(self._beside.take())
        if self._beside.in_flight is None:
            kept = [*protect]
            self._beside.start(lambda: self._try(kept, keep_newest=True), f"sending {folder.name}")

    def _try(self, protect: Collection[Path], *, keep_newest: bool, prune: bool = True) -> _Sent:
        """Send what is owed, the newest first, then delete there what need not be kept."""
        sent, owed = _Sent(), list(self._owed)
        for folder in reversed(owed):
            try:
                self.store.send(folder, self._log_of(folder))
                sent.done.append(folder)
            except (OSError, CheckpointError) as error:
                # An older one may have gone here meanwhile: nothing is missing then.
                if folder == owed[-1] or folder.is_dir():
                    sent.failed[folder] = str(error)
        if prune and owed and owed[-1] in sent.done:
            self._prune(owed[-1].name if keep_newest else None, protect)
        return sent

    def _prune(self, newest: str | None, protect: Collection[Path]) -> None:
        try:
            names = [path.name for path in protect]
            self.store.prune(self._local.run, self._local.retention, newest, names)
        except OSError as error:
            _logger.warning("Older checkpoints there could not be deleted: %s. The next save tries again.", error)

    def _note(self, sent: _Sent) -> None:
        """Take down what a try came to, and tell of it."""
        self._owed = [path for path in self._owed if path not in sent.done and path.is_dir()]
        self._tried += len(sent.done) + len(sent.failed)
        self._failed += len(sent.failed)
        for folder, reason in sent.failed.items():
            told = f"Step {step_of(folder)}: '{folder}' is complete here and could not be sent: {reason}."
            if self._stops:
                raise SaveError(f'{told} Training stops, because on_save_error="stop".')
            _logger.error("%s Training goes on, and the next save tries again.", told)

    def _conclude(self, protect: Collection[Path], keep_newest: bool) -> None:
        if self._beside is not None and self._beside.in_flight is not None:
            self._note(self._beside.take())
        if self._owed:
            self._note(self._try(protect, keep_newest=keep_newest))
        elif not keep_newest:
            self._prune(None, protect)
        needed = {path.name for path in protect} | ({self._newest.name} if keep_newest and self._newest else set())
        if missing := [path for path in self._owed if path.name in needed]:
            raise SaveError(
                f"Training came to its end, and its last checkpoint is not in '{self.store.folder.url}': "
                f"'{missing[-1]}' is complete here and could not be sent. {self._failed} of {self._tried} tries "
                'failed. Started again with resume_from_checkpoint="auto", the run sends it and trains nothing.'
            )
        try:
            # A record that says how the run ended comes behind the log that does.
            self._put_beside([LOG_NAME, RUN_RECORD])
        except OSError as error:
            _logger.warning("The record and the log of the run could not be sent: %s.", error)
        if self._owed:
            names = ", ".join(path.name for path in self._owed)
            _logger.warning("%s could not be sent to '%s'.", names, self.store.folder.url)

    def _put_beside(self, names: list[str]) -> None:
        for name in names:
            path = self._local.root / name
            if path.is_file():
                self.store.folder.put(path, name)

    def _log_of(self, folder: Path) -> dict[str, bytes]:
        """Return the log up to where a checkpoint says that it was, for a run that goes on elsewhere."""
        log = self._local.root / LOG_NAME
        try:
            length = int(json.loads((folder / LOG_PLACE).read_bytes())["length"])
            with log.open("rb") as file:
                return {LOG_NAME: file.read(length)}
        except (OSError, ValueError, LookupError, TypeError):
            # A run without this log, or whose log has gaps.
            return {}


def begin_mirror(trainer: Trainer) -> None:
    """Give a run its remote folder, where it has one.

    Raises:
        MissingPackageError: what its protocol needs is not installed.
    """
    args, store = trainer.args, remote_of(trainer)
    if store is None or (args.save_strategy == SaveStrategy.NO and not args.enable_jit_checkpoint):
        trainer._mirror = None
        return
    stops, later = args.on_save_error == "stop", args.save_async
    trainer._mirror = Mirror(store, trainer._store, trainer._world, stops=stops, later=later)


def remote_of(trainer: Trainer) -> RemoteStore | None:
    """Return the remote folder of a run, in a search the trial's own; None where it has none."""
    url = trainer.args.save_remote
    if url is None:
        return None
    within = trainer._checkpoints_of(trainer._trial).relative_to(trainer._output_folder).as_posix()
    folder = RemoteFolder(url, "save_remote")
    return RemoteStore(folder if within == "." else folder.within(within))
