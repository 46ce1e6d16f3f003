"""Studies of Optuna that outlive a process: where they are kept, what is left of them, and whose trials were cut off.

A process that works on a study in a storage holds a lock in the folder of its trial, which ends with the process
however that ends. A trial that says it runs while its lock is free was cut off.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.lock import FolderLock
from surestep.checkpoint.store import CheckpointStore
from surestep.errors import ArgumentError, CheckpointError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.trainer.resuming.checkpoint import load_state

if TYPE_CHECKING:
    from surestep.trainer.search.search import Search

_logger = get_logger(__name__)
_PURPOSE = 'hyperparameter_search(backend="optuna")'
_DATABASES = (".db", ".sqlite", ".sqlite3")
_JOURNALS = (".journal", ".log", ".jsonl")
# How long another process may take from asking for a trial to saying where it works on it.
_BEGINNING = timedelta(minutes=1)
# Seconds that a process waits for another one's transaction.
_PATIENCE = 60
# Under which a trial keeps what we note of it.
FOLDER, HOST, CUT_OFF, CONTINUES = "folder", "host", "cut_off", "continues"


@dataclass
class Studies:
    """One study as this process sees it; `shared` where it lies in a storage that others may work on too."""

    study: Any
    search: Search
    shared: bool
    resumed: bool
    _lock: FolderLock | None = field(default=None, init=False)

    @classmethod
    def open(cls, search: Search, options: dict[str, Any]) -> Studies:
        """Make the study, or load it where `load_if_exists` says so, and take over what was cut off."""
        optuna = require("optuna", _PURPOSE)
        storage, resumes = open_storage(options.pop("storage", None)), bool(options.get("load_if_exists"))
        if resumes and (storage is None or options.get("study_name") is None):
            raise ArgumentError(
                "load_if_exists=True needs a study to look for: give storage, such as 'study.db', and study_name."
            )
        try:
            study = optuna.create_study(storage=storage, directions=list(search.directions), **options)
        except optuna.exceptions.DuplicatedStudyError as error:
            raise ArgumentError(
                f"The storage holds a study named '{options.get('study_name')}' already. Write load_if_exists=True to "
                "go on with it, or another study_name."
            ) from error
        studies = cls(study, search, shared=storage is not None, resumed=resumes)
        studies._check_directions()
        if studies.resumed and study.get_trials(deepcopy=False):
            # A seeded sampler would begin again with the values that the first trials had.
            study.sampler.reseed_rng()
            studies._take_over()
        return studies

    def _check_directions(self) -> None:
        there = tuple(direction.name.lower() for direction in self.study.directions)
        if there != self.search.directions:
            raise ArgumentError(
                f"The study '{self.study.study_name}' has the direction {list(there)}, and the search "
                f"{list(self.search.directions)}. Write the study's, or another study_name."
            )

    # What is left to do

    def trials_left(self, n_trials: int | None) -> int | None:
        """Return how many trials this process has to run, None for as many as time allows; tell where it goes on."""
        if n_trials is None or not self.resumed:
            return n_trials
        left = max(n_trials - self._begun(), 0)
        states = [trial.state.name.lower() for trial in self._trials()]
        if states:
            counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            _logger.warning("The study '%s' goes on (%s): %d trials are left.", self.study.study_name, counted, left)
        return left

    def stop_at(self, n_trials: int | None) -> Callable[[Any, Any], None]:
        """Return a callback that ends this process's part once the study has its trials, whoever ran them."""

        def stop(study: Any, trial: Any) -> None:
            del trial
            if self.resumed and n_trials is not None and self._begun() >= n_trials:
                study.stop()

        return stop

    def _begun(self) -> int:
        """Count the trials that came to an end or are on their way; those that were cut off do not count."""
        return sum(trial.state.name != "WAITING" and not trial.user_attrs.get(CUT_OFF) for trial in self._trials())

    def _trials(self) -> list[Any]:
        trials: list[Any] = self.study.get_trials(deepcopy=False)
        return trials

    # Trials that were cut off

    def _take_over(self) -> None:
        """Queue the trials that were cut off once more: the same values, from their newest checkpoint."""
        optuna = require("optuna", _PURPOSE)
        for trial in self._trials():
            if trial.state.name == "RUNNING":
                self._end_if_dead(optuna, trial)
        taken_over = {trial.user_attrs.get(CONTINUES) for trial in self._trials()}
        for trial in self._trials():
            if trial.user_attrs.get(CUT_OFF) and trial.number not in taken_over and trial.params:
                self.study.enqueue_trial(trial.params, user_attrs={CONTINUES: trial.number})

    def _end_if_dead(self, optuna: Any, trial: Any) -> None:
        """Mark a trial whose process is gone. On other machines nobody can tell; their trials are left alone."""
        folder = trial.user_attrs.get(FOLDER)
        if folder is None:
            if trial.datetime_start is not None and datetime.now() - trial.datetime_start < _BEGINNING:
                return
        elif trial.user_attrs.get(HOST) != socket.gethostname():
            return
        if folder is not None and not _is_free(Path(folder)):
            return
        storage = self.study._storage
        if storage.get_trial(trial._trial_id).state == optuna.trial.TrialState.RUNNING:
            storage.set_trial_user_attr(trial._trial_id, CUT_OFF, value=True)
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def checkpoint_of(self, trial: Any) -> str | None:
        """Return the checkpoint that a trial goes on from, where it continues another; what that reported is kept."""
        number = trial.user_attrs.get(CONTINUES)
        if number is None:
            return None
        before = self._trials()[number]
        folder = Path(before.user_attrs.get(FOLDER, ""))
        if FOLDER not in before.user_attrs or not folder.is_dir():
            return None
        found = CheckpointStore(folder, world=self.search.trainer._world).newest_valid().path
        if found is None:
            return None
        step = load_state(str(found)).global_step
        for reported, value in sorted(before.intermediate_values.items()):
            if reported <= step:
                trial.report(value, reported)
        _logger.warning("Trial %d takes over trial %d, which was cut off, at step %d.", trial.number, number, step)
        return str(found)

    # The trial that this process works on

    def note(self, trial: Any, folder: Path) -> None:
        """Take the lock of the trial's folder and note where that is."""
        if not self.shared:
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
        lock.acquire()
        self._lock = lock
        trial.set_user_attr(HOST, socket.gethostname())
        trial.set_user_attr(FOLDER, str(folder.resolve()))

    @contextmanager
    def keeping(self, trial: Any, catch: Any) -> Iterator[None]:
        """Mark a trial that ends with the search (Ctrl-C, an error that is not caught), and free its folder."""
        optuna = require("optuna", _PURPOSE)
        expected = (optuna.TrialPruned, *((catch,) if isinstance(catch, type) else catch))
        try:
            yield
        except expected as error:
            # Whoever keeps the error, such as a handler of logs, is not to keep the model with it.
            traceback.clear_frames(error.__traceback__)
            raise
        except BaseException:
            if self.shared:
                trial.set_user_attr(CUT_OFF, value=True)
            raise
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.release()


def _is_free(folder: Path) -> bool:
    """Say whether nobody works in a folder."""
    if not folder.is_dir():
        return True
    lock = FolderLock(folder)
    try:
        lock.acquire()
    except CheckpointError:
        return False
    lock.release()
    return True


def open_storage(storage: Any) -> Any:
    """Return a storage of Optuna for a path by its suffix, for an URL, or for what is one already."""
    if not isinstance(storage, str | os.PathLike):
        return storage
    optuna, text = require("optuna", _PURPOSE), os.fspath(storage)
    if "://" in text:
        return _database(optuna, text) if text.startswith("sqlite") else text
    path = Path(text).expanduser().absolute()
    if path.suffix not in (*_DATABASES, *_JOURNALS):
        raise ArgumentError(
            f"storage is '{text}'. Write a path that ends in {' or '.join(_DATABASES)} for a database, in "
            f"{' or '.join(_JOURNALS)} for a journal, or an URL such as 'postgresql://...'."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in _DATABASES:
        return _database(optuna, f"sqlite:///{path}")
    journal = optuna.storages.journal
    return journal.JournalStorage(journal.JournalFileBackend(str(path)))


def _database(optuna: Any, url: str) -> Any:
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
