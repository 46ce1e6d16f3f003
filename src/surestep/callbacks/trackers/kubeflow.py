"""Kubeflow Trainer."""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from surestep.callbacks.trackers.entries import number
from surestep.callbacks.trackers.reporter import Reporter
from surestep.errors import ArgumentError
from surestep.training.state import TrainerControl, TrainerState

_SERVER, _CERTIFICATE, _TOKEN = (
    f"KUBEFLOW_TRAINER_SERVER_{what}" for what in ("URL", "CA_CERT", "TOKEN")
)  # fmt: skip
# Seconds between two reports, and how long one may take.
_INTERVAL, _TIMEOUT = 5.0, 5.0


class KubeflowCallback(Reporter):
    """Reports progress, remaining time and figures to Kubeflow Trainer, at most every 5 seconds.

    Kubeflow sets `KUBEFLOW_TRAINER_SERVER_URL`, `KUBEFLOW_TRAINER_SERVER_CA_CERT` and `KUBEFLOW_TRAINER_SERVER_TOKEN`
    (the last two name files) in the pods of a TrainJob. `DISABLE_KUBEFLOW_INTEGRATION` switches the reports off.
    """

    name = "kubeflow"

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        url = os.environ.get(_SERVER)
        if not url:
            raise ArgumentError(
                f"report_to='kubeflow' needs {_SERVER}, which Kubeflow sets in the pods of a TrainJob. Leave it out "
                "of report_to elsewhere."
            )
        self._url = url
        self._figures: dict[str, float] = {}
        self._began, self._first_step, self._reported = 0.0, 0, 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the beginning."""
        self._figures, self._began, self._first_step = {}, time.monotonic(), state.global_step
        self._report(state, {"progressPercentage": 0}, {"total_steps": state.max_steps}, at_once=True)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the figures for the next report."""
        found = {name: number(value) for name, value in (logs or {}).items()}
        self._figures |= {name: value for name, value in found.items() if value is not None}

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report how far the training is, now and then."""
        done, all_steps = state.global_step, state.max_steps
        here = done - self._first_step
        if all_steps <= 0 or here <= 0:
            return
        seconds = (time.monotonic() - self._began) / here * (all_steps - done)
        progress = {"progressPercentage": min(100 * done // all_steps, 99), "estimatedRemainingSeconds": int(seconds)}
        figures = {**self._figures, "current_step": done, "total_steps": all_steps}
        self._report(state, progress, {**figures, "current_epoch": round(state.epoch or 0, 2)})

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the end."""
        done = {"progressPercentage": 100, "estimatedRemainingSeconds": 0}
        self._report(state, done, self._figures, at_once=True)
        self._tell_what_was_not_sent()

    def _report(
        self, state: TrainerState, progress: dict[str, int], figures: Mapping[str, float], *, at_once: bool = False
    ) -> None:
        now = time.monotonic()
        if not state.is_world_process_zero or (not at_once and now - self._reported < _INTERVAL):
            return
        self._reported = now
        figures_as_text = [{"name": name, "value": str(value)} for name, value in figures.items()]
        status = {"lastUpdatedTime": datetime.now(UTC).isoformat(), **progress, "metrics": figures_as_text}
        self._guarded(f"the report of step {state.global_step}", lambda: self._post({"trainerStatus": status}))

    def _post(self, content: dict[str, Any]) -> None:
        token = Path(os.environ.get(_TOKEN, "")).read_text(encoding="utf-8").strip()
        certificate = os.environ.get(_CERTIFICATE)
        request = urllib.request.Request(
            self._url,
            data=json.dumps(content).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        context = ssl.create_default_context(cafile=certificate) if certificate else None
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context):
            return
