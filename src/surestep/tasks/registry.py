"""The tasks by their settings. A task's code, and with it torch, is loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surestep.tasks.settings import ImageClassification, TaskSettings

if TYPE_CHECKING:
    from surestep.tasks.prepared import ClassificationTask

# The column setting of `data` that holds what each task's model sees.
INPUT_OF_TASK = {"image_classification": "image", "text_classification": "text"}


def task_of(settings: TaskSettings) -> ClassificationTask:
    """Return the task that the settings declare."""
    if isinstance(settings, ImageClassification):
        from surestep.tasks.vision.task import ImageClassificationTask

        return ImageClassificationTask(settings)
    from surestep.tasks.text.task import TextClassificationTask

    return TextClassificationTask(settings)
