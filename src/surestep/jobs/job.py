"""The job: everything that one file declares, checked as far as it can be without data, torch or any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from surestep.config.fields import AllFields
from surestep.errors import JobError
from surestep.jobs.problems import explain
from surestep.jobs.space import MODEL, SearchSettings
from surestep.tasks.nearest import nearest
from surestep.tasks.registry import INPUT_OF_TASK
from surestep.tasks.settings import MODELS_OF_TASK, DataSettings, ModelSettings, Settings, TaskSettings

# The same names as surestep.tasks.classification.METRICS, which a test compares; that module needs numpy.
METRIC_NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "matthews_correlation")
# The blocks that may be written as one word, and the key that the word stands for.
SHORT_FORMS = {"data": "source", "task": "name", "model": "name"}


def _expander(block: str) -> BeforeValidator:
    key = SHORT_FORMS[block]
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Job(Settings):
    """A whole training run: data, task, model, arguments, metrics, a search for the best, and where results go."""

    name: str = Field(min_length=1, pattern=r"^[^/\\]+$", description="what the run is called")
    output_dir: str = Field(min_length=1, description="folder of the run, relative to where the command is given")
    task: Annotated[TaskSettings, _expander("task")] = Field(description="what is to be learnt")
    data: Annotated[DataSettings, _expander("data")] = Field(description="what it is learnt from")
    model: Annotated[ModelSettings, _expander("model")] = Field(description="what learns it")
    metrics: list[str] = Field(["accuracy", "macro_f1"], min_length=1, description="scores of every evaluation")
    arguments: dict[str, Any] = Field(default_factory=dict, description="the names and values of TrainingArguments")
    search: SearchSettings | None = Field(None, description="train many times with other settings, and keep the best")

    @classmethod
    def answer(cls, key: str) -> str:
        """Return what to write in the place of a key: it may belong into a block."""
        blocks = {"arguments": [*AllFields.__dataclass_fields__], "data": [*DataSettings.model_fields]}
        block = next((block for block, known in blocks.items() if key in known), None)
        return nearest(key, cls.model_fields) if block is None else f"write {block}.{key}."

    @field_validator("metrics")
    @classmethod
    def _know_every_metric(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in METRIC_NAMES:
                raise PydanticCustomError(
                    "metric", "{said}", {"said": f"unknown metric '{name}': {nearest(name, METRIC_NAMES)}"}
                )
        return names

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """Refuse a model of another task, and column settings that the task does not read."""
        known = MODELS_OF_TASK[self.task.name]
        if self.model.name not in known:
            names = ", ".join(known)
            said = f"model.name='{self.model.name}' does not serve the task {self.task.name}; write one of {names}."
            raise PydanticCustomError("model_of_task", "{said}", {"said": said})
        for task, column in INPUT_OF_TASK.items():
            if task != self.task.name and column in self.data.model_fields_set:
                said = (
                    f"data.{column} is not read by the task {self.task.name}; write data.{self.input_setting} instead"
                )
                raise PydanticCustomError("column_of_task", "{said}", {"said": said})
        return self

    @model_validator(mode="after")
    def _search_what_is_there(self) -> Self:
        """Refuse a search without an evaluation to compare trials by, or over what the job does not have."""
        if self.search is None:
            return self
        self.search.check_model(self.model)
        metric, figures = self.search.metric, ("loss", *self.metrics)
        said = ""
        if metric is not None and metric not in figures:
            said = f"search.metric='{metric}' is not among the metrics of the job: {nearest(metric, figures)}"
        elif self.data.validation is None:
            said = "search compares trials on validation data: write a fraction such as data.validation=0.15, or a file"
        if said:
            raise PydanticCustomError("search", "{said}", {"said": said})
        return self

    @property
    def input_setting(self) -> str:
        """The setting of `data` that names the column which the model sees."""
        return INPUT_OF_TASK[self.task.name]

    @property
    def input_column(self) -> str:
        """The column that the model sees."""
        column: str = getattr(self.data, self.input_setting)
        return column

    @property
    def search_metric(self) -> str:
        """What the trials of a search are compared by."""
        figures = ("loss", *self.metrics)
        named = str(self.arguments.get("metric_for_best_model", "")).removeprefix("eval_")
        asked = None if self.search is None else self.search.metric
        return asked or (named if named in figures else self.metrics[0])

    @property
    def search_direction(self) -> str:
        """Which way that gets better."""
        return "minimize" if self.search_metric == "loss" else "maximize"

    def with_values(self, values: Mapping[str, Any]) -> Job:
        """Return the job that a trial of a search with these values runs, or raise `JobError`."""
        declared = self.model_dump(exclude_unset=True, exclude={"search"})
        for name, value in values.items():
            block = declared["model"] if name.startswith(MODEL) else declared.setdefault("arguments", {})
            block[name.removeprefix(MODEL)] = value
        return make_job(declared, self.name)


def make_job(declared: dict[str, Any], default_name: str) -> Job:
    """Check a declared job and fill in what it leaves out, or raise `JobError` with all that is wrong."""
    full = dict(declared)
    name = full.setdefault("name", default_name)
    arguments = full.get("arguments")
    if isinstance(arguments, dict) and "output_dir" in arguments:
        full["arguments"] = {key: value for key, value in arguments.items() if key != "output_dir"}
        if full.setdefault("output_dir", arguments["output_dir"]) != arguments["output_dir"]:
            raise JobError(
                f"output_dir is '{full['output_dir']}' and arguments.output_dir is '{arguments['output_dir']}': leave "
                "the second out."
            )
    full.setdefault("output_dir", f"runs/{name}")
    _fill_model(full)
    try:
        return Job.model_validate(full)
    except ValidationError as error:
        raise JobError(explain(error, full)) from None


def _fill_model(full: dict[str, Any]) -> None:
    """Give a job without a model's name the first model of its task (any, where the task itself is the mistake)."""
    task = full.get("task")
    task_name = task.get("name") if isinstance(task, dict) else task
    model = full.get("model", {})
    models = MODELS_OF_TASK.get(str(task_name), ("text_encoder",))
    if isinstance(model, dict) and "name" not in model:
        full["model"] = {"name": models[0], **model}
