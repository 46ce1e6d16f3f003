"""Uploads to the Hugging Face Hub that never hold up a run and never end one.

Owner of what is under way: one parcel is sent after the other, each in a thread that lives as long as it takes. What
could not be sent waits in the outbox and goes with the next push. No token is written anywhere.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surestep.errors import ArgumentError
from surestep.logs import get_logger
from surestep.optional import require
from surestep.trainer.outbox import Outbox

_logger = get_logger(__name__)
# How long the start of a run waits for the hub to make a repository, in seconds.
_START_PATIENCE = 20.0
# How often the end of a run says that it is still waiting, in seconds.
_REMINDER = 60.0
_TOKEN = re.compile(r"hf_\w{8,}")
# What the hub answers where the settings are wrong, not the hub.
_REFUSALS = {400, 401, 402, 403}
_ANSWERS = {
    401: "it does not know the token",
    403: "the token may not write there",
    404: "there is no such repository or revision",
    413: "it is too large",
    429: "it takes no more for now",
}
_SHOWN = 3


@dataclass(frozen=True)
class Destination:
    """Where uploads go. The repository's name lacks its owner until the hub has told it."""

    name: str
    token: str | None = None
    private: bool | None = None


class Hub:
    """One repository, and what a run sends there."""

    def __init__(self, destination: Destination, outbox: Outbox) -> None:
        self.repo_id = destination.name
        self._destination = destination
        self._outbox = outbox
        self._client = require("huggingface_hub", "push_to_hub=True")
        self._made = False
        self._last: Future[Any] | None = None
        outbox.recover()

    @property
    def outbox(self) -> Outbox:
        """What is not in the repository yet."""
        return self._outbox

    @property
    def busy(self) -> bool:
        """Whether a push is under way or in line."""
        return self._last is not None and not self._last.done()

    def reach(self) -> None:
        """Make the repository, unless it is there. If the hub is away, the first push does it.

        Raises:
            ArgumentError: the hub refuses the name or the token.
        """
        made = self._submit(self._make_repository)
        try:
            made.result(timeout=_START_PATIENCE)
        except NotYet:
            _logger.warning("The hub has not answered yet. Training starts; '%s' is made meanwhile.", self.repo_id)
        except Exception as error:
            self._judge(error)

    def _judge(self, error: Exception) -> None:
        """Raise what the settings are to blame for; warn of what the hub is."""
        invalid = isinstance(error, self._client.errors.HFValidationError)
        if invalid or _status(error) in _REFUSALS:
            raise ArgumentError(
                f"push_to_hub: the hub refuses the repository '{self.repo_id}': {self._plain(error)}. Write "
                "hub_model_id='<owner>/<name>', and log in with `hf auth login` or set hub_token to a token that may "
                "write there."
            ) from None
        _logger.warning(
            "The hub is away (%s). Training starts; '%s' is made with the first push.", self._plain(error), self.repo_id
        )

    def push(self, message: str, *, revision: str | None = None, token: str | None = None) -> Future[Any]:
        """Send what waits, behind what is under way. The result is the commit, or None where it failed or was empty."""
        parcel = self._outbox.pack()
        return self._submit(lambda: None if parcel is None else self._send(parcel, message, revision, token))

    def wait(self) -> None:
        """Wait until nothing is under way, and say so from time to time."""
        while self.busy:
            assert self._last is not None
            _logger.info("Waiting for the upload to '%s'.", self.repo_id)
            try:
                self._last.exception(timeout=_REMINDER)
            except NotYet:
                _logger.warning(
                    "Still uploading to '%s'. Ctrl+C ends the wait: what is not there yet is kept in '%s'.",
                    self.repo_id,
                    self._outbox.waiting.parent,
                )

    def finish(self, message: str, *, revision: str | None = None, token: str | None = None) -> None:
        """Wait for what is under way, send what waits, and say what is missing after that."""
        self.wait()
        if self._outbox.left():
            self.push(message, revision=revision, token=token)
            self.wait()
        left = self._outbox.left()
        if left:
            shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
            _logger.warning(
                "%d files are not on the hub: %s. Upload them with: hf upload %s '%s' .%s",
                *(len(left), shown, self.repo_id, self._outbox.waiting),
                f" --revision {revision}" if revision else "",
            )

    def _submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Begin a job once those before it are done, in a thread that does not keep the process alive."""
        before, future = self._last, Future[Any]()

        def work() -> None:
            if before is not None:
                before.exception()
            try:
                future.set_result(job())
            # Whoever waits must be told of anything.
            except BaseException as error:
                future.set_exception(error)

        self._last = future
        threading.Thread(target=work, name="surestep-hub", daemon=True).start()
        return future

    def _make_repository(self) -> None:
        where = self._destination
        url = self._client.HfApi().create_repo(where.name, token=where.token, private=where.private, exist_ok=True)
        self.repo_id, self._made = url.repo_id, True

    def _send(self, parcel: Path, message: str, revision: str | None, token: str | None) -> Any:
        try:
            if not self._made:
                self._make_repository()
            with _no_progress_bars(self._client.utils):
                commit = self._client.HfApi().upload_folder(
                    repo_id=self.repo_id,
                    folder_path=parcel,
                    commit_message=message,
                    token=token or self._destination.token,
                    revision=revision,
                )
        # Whatever the network, the hub or its client comes up with must not end a run.
        except Exception as error:
            self._outbox.put_back(parcel)
            _logger.warning(
                "The push to '%s' failed (%s): %s. Its files are kept in '%s' and go with the next push.",
                *(self.repo_id, message, self._plain(error), self._outbox.waiting),
            )
            return None
        self._outbox.arrived(parcel)
        return commit

    def _plain(self, error: Exception) -> str:
        """Return what went wrong in a line without secrets."""
        root = _root(error)
        status = _status(root)
        if status is not None:
            return f"it answers {status}: {_ANSWERS.get(status, 'an error of its own')}"
        first = next(iter(str(root).splitlines()), "")
        text = f"{type(root).__name__}: {first}" if first else type(root).__name__
        secret = self._destination.token
        return _TOKEN.sub("hf_***", text.replace(secret, "***") if secret else text)


def _root(error: BaseException) -> BaseException:
    """Return the first cause of an error: the client wraps what happens to one file of many."""
    while error.__cause__ is not None and _status(error) is None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """Return the status with which the hub answered, where it did."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


@contextmanager
def _no_progress_bars(utils: Any) -> Iterator[None]:
    """Keep the client's bars out of a terminal that shows the training."""
    shown = not utils.are_progress_bars_disabled()
    if shown:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()
