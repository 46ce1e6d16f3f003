"""Extension points of sharing: the hub."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from surestep.checkpoint import files
from surestep.checkpoint.layout import step_of
from surestep.checkpoint.weights import is_stored_otherwise, save_weights
from surestep.config.enums import HubStrategy, SaveStrategy
from surestep.logs import get_logger
from surestep.trainer.points.reporting import ReportingPoints
from surestep.trainer.points.saving import SavingPoints

logger = get_logger(__name__)

# Left out of a push of the output folder: what the original leaves out, and what is this library's own business.
_IGNORED = ("_*", "checkpoint-*", ".git/*", ".surestep-*", ".staging-*", ".deleting-*", ".replaced-*", "damaged-*")


class SharingPoints(SavingPoints, ReportingPoints):
    """`push_to_hub` and its kin. What is under way belongs to `trainer.hub.Hub`."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, its processing class and the arguments to `output_dir` (default: the output folder).

        With `push_to_hub` the output folder is uploaded then.
        """
        super().save_model(output_dir, _internal_call)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _share_checkpoint(self, folder: Path) -> None:
        super()._share_checkpoint(folder)
        if self.args.push_to_hub and folder.is_dir():
            self._push_from_checkpoint(str(folder))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository `hub_model_id`, or one named as the output folder.

        A hub that is away is told, and asked again with the first push.

        Args:
            token: A token that may write; default `args.hub_token`, else that of the login.
            private: Whether a new repository is private; default `args.hub_private_repo`.

        Raises:
            ArgumentError: The hub refuses the name or the token.
        """
        if not self.is_world_process_zero():
            return
        from surestep.trainer.hub import Destination, Hub
        from surestep.trainer.outbox import Outbox

        args = self.args
        destination = Destination(
            name=args.hub_model_id or self._output_folder.absolute().name,
            token=args.hub_token if token is None else token,
            private=args.hub_private_repo if private is None else private,
        )
        self._hub = Hub(destination, Outbox(self._output_folder))
        self._hub.reach()
        self.hub_model_id = self._hub.repo_id

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model with its card and upload the output folder, without checkpoints and names that begin with `_`.

        Args:
            commit_message: The first line of the commit.
            blocking: Whether to wait for the upload.
            token: A token that may write; default `args.hub_token`, else that of the login.
            revision: The branch; default `args.hub_revision`, else `main`.
            private: Whether a new repository is private.
            **kwargs: Handed to `create_model_card`.

        Returns:
            The commit, or None where it failed (a warning says why, and what was to be sent is kept); a future of that
            where `blocking` is False.
        """
        self.callback_handler.fire("on_push_begin")
        main = self.is_world_process_zero()
        if main and self._hub is None:
            self.init_hf_repo(token=token, private=private)
        if self._hub is not None:
            self._hub.wait()
        self.save_model(_internal_call=True)
        if not main or self._hub is None:
            return None
        name = kwargs.pop("model_name", None) or (self.args.hub_model_id or self._output_folder.name).split("/")[-1]
        self.create_model_card(model_name=name, **{**kwargs, "tags": self._all_tags(kwargs.get("tags"))})
        self._hub.outbox.add(dict(self._shared_files()), link=True)
        pushed = self._hub.push(
            commit_message or "End of training", revision=revision or self.args.hub_revision, token=token
        )
        if not blocking:
            return pushed
        self._hub.wait()
        self.hub_model_id = self._hub.repo_id
        return pushed.result()

    def _all_tags(self, tags: Any) -> list[str] | None:
        """Return the tags given and those that the model brings."""
        given = [tags] if isinstance(tags, str) else list(tags or [])
        return list(dict.fromkeys([*given, *(getattr(self.model, "model_tags", None) or [])])) or None

    def _shared_files(self) -> Iterator[tuple[str, Path]]:
        """Yield what lies in the output folder and is for others, by its name there."""
        for path in files.files_in(self._output_folder):
            name = path.relative_to(self._output_folder).as_posix()
            if path.is_file() and not any(fnmatch(name, pattern) for pattern in _IGNORED):
                yield name, path

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Send the model of a checkpoint, and as `hub_strategy` says the checkpoint itself, in the background.

        While a push is under way the files wait for the next one, unless `hub_always_push`. It is called once the
        checkpoint is complete.
        """
        hub, strategy = self._hub, HubStrategy(self.args.hub_strategy)
        if hub is None or not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        self.callback_handler.fire("on_push_begin")
        folder = Path(checkpoint_folder)
        places = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: folder.name}
        everything = {path.relative_to(folder).as_posix(): path for path in files.files_in(folder)}
        model = {name: path for name, path in everything.items() if name in (self._model_files or everything)}
        whole = {f"{places[strategy]}/{name}": path for name, path in everything.items()} if strategy in places else {}
        try:
            hub.outbox.add({name: path for name, path in self._shared_files() if name not in model}, link=False)
            hub.outbox.add(model | whole, link=True)
            if is_stored_otherwise(self.engine.unwrap(self.model)):
                with hub.outbox.adding() as own:
                    save_weights(self.engine.unwrap(self.model), own)
        except OSError as error:
            logger.warning("The push of '%s' is left out: its files could not be put aside (%s).", folder, error)
            return
        if self.args.hub_always_push or not hub.busy:
            hub.push(self._commit_message(step_of(folder)), revision=self.args.hub_revision)

    def _commit_message(self, saved: int | None = None) -> str:
        state = self.state
        by_step, step = self.args.save_strategy == SaveStrategy.STEPS, state.global_step if saved is None else saved
        return f"Training in progress, {f'step {step}' if by_step else f'epoch {int(state.epoch or 0)}'}"

    def _finish_current_push(self) -> None:
        """Wait for the upload that is under way, and send what waited for it."""
        if self._hub is not None:
            self._hub.finish(self._commit_message(), revision=self.args.hub_revision)
            self.hub_model_id = self._hub.repo_id
