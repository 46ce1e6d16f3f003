"""Trackio."""

from __future__ import annotations

import re
import secrets
from typing import Any

from surestep.callbacks.trackers.describe import num_parameters, run_config
from surestep.callbacks.trackers.entries import Entry
from surestep.callbacks.trackers.record import Known, Record, Sent, Stored
from surestep.callbacks.trackers.tracker import Tracker
from surestep.optional import require
from surestep.training.state import TrainerControl, TrainerState

_STEP = "train/global_step"


class TrackioCallback(Tracker):
    """Reports to Trackio: the log over steps, the arguments, the model's configuration.

    The run is in `args.project`, named `args.run_name`, on this machine (`TRACKIO_DIR`), or in the Space
    `args.trackio_space_id` with the bucket `args.trackio_bucket_id`, private as `args.hub_private_repo` says. After the
    training a Space is frozen into a static one, `args.trackio_static_space_id` (a name is made up for None; False for
    none); without a Space, the static one is made when the model is pushed to the hub.
    """

    name = "trackio"
    package = "trackio"
    quiet = (("GRADIO_ANALYTICS_ENABLED", "False"),)
    takes_predictions = True
    hint = "Log in with `hf auth login` for a Space, or leave out trackio_space_id to stay on this machine."

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self._trackio = self._library
        self._space_id: str | None = None
        self._static_space_id: str | None = None
        self._project: str | None = None

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Open a run, or go on in the one of the same name."""
        trial = state.trial_name if state.is_hyper_param_search else None
        run = self._trackio.init(
            project=args.project,
            name=self.run_id or trial or args.run_name,
            group=args.run_name if trial else None,
            space_id=args.trackio_space_id,
            resume="allow",
            private=args.hub_private_repo,
            bucket_id=args.trackio_bucket_id,
        )
        self.run_id, self._run, self._project = run.name, run, args.project
        self._space_id = self._trackio.context_vars.current_space_id.get()
        count = num_parameters(model)
        about = {} if count is None else {"model/num_parameters": count}
        run.config.update({**run_config(args, model), **about})

    def known(self, record: Record) -> Known:
        """Return what the run has: read from this machine, for a Space what was sent."""
        if self._space_id is not None or not self._run._is_local:
            return Sent(record)
        storage = require("trackio.sqlite_storage", "TrackioCallback").SQLiteStorage
        rows = storage.get_logs(self._project, self._run.name, run_id=self._run.id)
        return Stored(((row["step"], name) for row in rows for name in row), record)

    def send(self, entry: Entry) -> None:
        """Log the curves of an entry."""
        self._run.log({**entry.series(), _STEP: entry.step}, step=entry.step)

    def end_run(self, *, failed: bool) -> None:
        """Finish the run."""
        self._trackio.finish()

    def on_train_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """End the run, and freeze its Space into a static one."""
        super().on_train_end(args, state, control, model, processing_class, **kwargs)
        if self._space_id is not None and args.trackio_static_space_id is not False and state.is_world_process_zero:
            self._guarded("the static Space", lambda: self._freeze(args, model))
            self._tell_what_was_not_sent()

    def on_push_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Send a run of this machine into a static Space, beside the model that is pushed."""
        if not state.is_world_process_zero or self._project is None:
            return
        if self._space_id is None and args.trackio_static_space_id is not False:
            self._guarded("the static Space", lambda: self._sync(args, model))

    def _freeze(self, args: Any, model: Any) -> None:
        self._static_space_id = self._trackio.freeze(
            space_id=self._space_id,
            project=args.project,
            new_space_id=self._static_name(args),
            private=args.hub_private_repo,
        )
        _tag(model, self._static_space_id)

    def _sync(self, args: Any, model: Any) -> None:
        self._static_space_id = self._trackio.sync(
            project=self._project,
            sdk="static",
            space_id=self._static_name(args),
            private=args.hub_private_repo,
            bucket_id=args.trackio_bucket_id,
            force=True,
        )
        _tag(model, self._static_space_id)

    def _static_name(self, args: Any) -> str:
        """Return the name of the static Space; one is made up of the project and six random digits."""
        plain = re.sub(r"-+", "-", re.sub(r"[^a-z0-9._-]", "-", args.project.strip().lower())).strip("-_.")
        made_up = f"{(plain or 'trackio-project')[:81].rstrip('-')}-static-{secrets.token_hex(3)}"
        return self._static_space_id or args.trackio_static_space_id or made_up


def _tag(model: Any, space: str | None) -> None:
    """Tag the model with its Space, which its page on the hub then shows."""
    others = [tag for tag in getattr(model, "model_tags", None) or [] if not str(tag).startswith("trackio")]
    model.model_tags = [*others, "trackio", f"trackio:https://huggingface.co/spaces/{space}"]
