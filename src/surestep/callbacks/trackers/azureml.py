"""Azure Machine Learning."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from surestep.callbacks.trackers.entries import Entry, number
from surestep.callbacks.trackers.tracker import Tracker
from surestep.training.state import TrainerState


class AzureMLCallback(Tracker):
    """Reports the numbers of the log to the run of Azure Machine Learning in which the script runs.

    Outside of Azure the client prints them. Azure opens and ends the run.

    Args:
        azureml_run: a run of your own to use.
        strict: whether a failure stops the run.
    """

    name = "azure_ml"
    package = "azureml"

    def __init__(self, azureml_run: Any = None, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.azureml_run = azureml_run

    def _import(self) -> ModuleType | None:
        from surestep.optional import require

        return require("azureml.core.run", f"{type(self).__name__} (report_to='azure_ml')")

    def open_run(self, args: Any, state: TrainerState, model: Any) -> None:
        """Take the run that the script is in."""
        if self.azureml_run is None:
            self.azureml_run = self._library.Run.get_context()
        self.run_id = str(self.azureml_run.id)

    def send(self, entry: Entry) -> None:
        """Log the numbers of an entry, which Azure puts in their order."""
        for name, value in entry.values.items():
            figure = number(value)
            if figure is not None:
                self.azureml_run.log(name, figure, description=name)
