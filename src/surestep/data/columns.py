"""Which columns of a dataset the model takes, and leaving the others out without losing the labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from surestep.errors import DataError
from surestep.logs import get_logger

_logger = get_logger(__name__)
# Names that the collators turn into `labels`.
LABEL_ALIASES = ("label", "label_ids")
_NAMELESS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Collators that pass labels on and make none, ours and the original's alike.
_PASSING_COLLATORS = frozenset(
    {
        "default_data_collator",
        "DefaultDataCollator",
        "DataCollatorWithPadding",
        "DataCollatorForTokenClassification",
        "DataCollatorForMultipleChoice",
        "DataCollatorForSeq2Seq",
    }
)


def inspected_model(model: Any) -> Any:
    """Return the model whose `forward` says what is taken: under a compiled, parallel or adapted one."""
    while hasattr(model, "_orig_mod"):
        model = model._orig_mod
    if type(model).__name__ in {"DataParallel", "DistributedDataParallel"}:
        return inspected_model(model.module)
    if callable(getattr(model, "get_base_model", None)):
        return model.get_base_model()
    # Mixed adapters name no base model; a transformer's own `base_model` means something else.
    if any(base.__module__.partition(".")[0] == "peft" for base in type(model).__mro__):
        return model.base_model.model
    return model


def find_labels(model_class: type) -> list[str]:
    """Return the parameters of the class's `forward` that are labels: "label" in the name, or a span's ends."""
    spans = ("start_positions", "end_positions") if "QuestionAnswering" in model_class.__name__ else ()
    return [name for name in _parameters(model_class) if "label" in name or name in spans]


def can_return_loss(model_class: type) -> bool:
    """Say whether `forward` gives a loss without being asked: `return_loss` is true by default."""
    parameter = _parameters(model_class).get("return_loss")
    return parameter is not None and parameter.default is True


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The columns that a model takes.

    `names` are the parameters of `forward`, the label names and their aliases, in this order. With `takes_all` the
    forward names no input of its own and takes whatever it is given. `labels` are the names that the model's loss
    needs. Instances are small and picklable; they hold no model.
    """

    model_name: str
    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    takes_all: bool = False

    @classmethod
    def of(cls, model: Any, label_names: Sequence[str] | None = None) -> ModelColumns:
        """Read the signature of `model`; `label_names` default to what `find_labels` finds in it."""
        inner = inspected_model(model)
        parameters = _parameters(inner)
        found = find_labels(type(inner))
        labels = found if label_names is None else list(label_names)
        named = [name for name, parameter in parameters.items() if parameter.kind not in _NAMELESS]
        open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        return cls(
            model_name=type(model).__name__,
            names=tuple(dict.fromkeys([*named, *LABEL_ALIASES, *labels])),
            labels=tuple(name for name in labels if name in parameters),
            takes_all=open_ended and not set(named) - {*labels, *found},
        )

    def unused(self, columns: Iterable[str]) -> list[str]:
        """Return those of `columns` that the model does not take, in their order."""
        if self.takes_all:
            return []
        names = set(self.names)
        return [column for column in columns if column not in names]

    def check(self, columns: Sequence[str], description: str, *, need_labels: bool = False) -> list[str]:
        """Return what is to be dropped of `columns`; raise `DataError` where nothing, or no label, would be left.

        `need_labels` says that the loss comes from the model and its labels from the dataset (see
        `labels_come_from_dataset`): only then is a missing label certain to be a mistake.
        """
        dropped = self.unused(columns)
        if columns and len(dropped) == len(columns):
            raise DataError(
                f"{description}: no column is left, for {self.model_name}.forward takes ({', '.join(self.names)}) and "
                f"the columns are ({', '.join(columns)}). Rename the columns to what the model takes, or set "
                "remove_unused_columns=False and give a data_collator that makes its inputs."
            )
        accepted = {*self.labels, *LABEL_ALIASES}
        if need_labels and self.labels and dropped and not accepted & set(columns):
            raise DataError(
                f"{description}: no labels are left, for {self.model_name}.forward takes its labels as "
                f"({', '.join(self.labels)}) and would lose ({', '.join(dropped)}). Rename the column that holds the "
                f"labels to '{self.labels[0]}', or set remove_unused_columns=False."
            )
        return dropped

    def say_dropped(self, dropped: Collection[str], description: str) -> None:
        """Log, at info level, what is left out."""
        if dropped:
            _logger.info(
                "%s: %s.forward takes no %s; left out (remove_unused_columns=False keeps them).",
                description,
                self.model_name,
                ", ".join(dropped),
            )


def labels_come_from_dataset(collator: Any) -> bool:
    """Say whether `collator` is one of those that make no labels themselves, so that the dataset must hold them."""
    name = collator.__name__ if inspect.isfunction(collator) else type(collator).__name__
    return name in _PASSING_COLLATORS


def has_columns(dataset: Any) -> bool:
    """Say whether the dataset is a table whose columns can be dropped before any row is read (`datasets.Dataset`)."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "remove_columns"):
        return False
    return isinstance(getattr(dataset, "column_names", None), list | tuple)


def drop_unused(dataset: Any, columns: ModelColumns, description: str = "dataset", *, need_labels: bool = False) -> Any:
    """Return the table without the columns that the model does not take; see `ModelColumns.check` for the errors."""
    dropped = columns.check(list(dataset.column_names), description, need_labels=need_labels)
    columns.say_dropped(dropped, description)
    return dataset.remove_columns(dropped) if dropped else dataset


class ColumnFilter:
    """A collator that leaves out what the model does not take, then hands over to `data_collator`.

    For datasets that are no tables. Samples that are no `dict` pass as they are. The first batch is checked as
    `ModelColumns.check` does it, so a dataset that loses its inputs or labels is refused before the first step.
    """

    def __init__(
        self,
        data_collator: Callable[[list[Any]], Any],
        columns: ModelColumns,
        description: str = "dataset",
        *,
        need_labels: bool = False,
    ) -> None:
        self.data_collator = data_collator
        self.columns = columns
        self.description = description
        self.need_labels = need_labels
        self._names = frozenset(columns.names)
        self._checked = False

    def __call__(self, features: list[Any]) -> Any:
        """Collate `features` without the unused columns; the samples themselves are left alone."""
        if not self._checked:
            self._check(features)
        if self.columns.takes_all:
            return self.data_collator(features)
        kept = []
        for feature in features:
            if isinstance(feature, dict):
                # A copy, for collators may take keys out of a sample that the dataset still holds.
                row = dict(feature)
                for name in feature.keys() - self._names:
                    del row[name]
                kept.append(row)
            else:
                kept.append(feature)
        return self.data_collator(kept)

    def _check(self, features: list[Any]) -> None:
        self._checked = True
        first = features[0] if features else None
        if not isinstance(first, dict):
            return
        dropped = self.columns.check(list(first), self.description, need_labels=self.need_labels)
        worker = get_worker_info()
        if worker is None or worker.id == 0:
            self.columns.say_dropped(dropped, self.description)


def _parameters(model: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of `forward`, without `self` where a class is given."""
    forward = getattr(model, "forward", None)
    if forward is None:
        raise DataError(
            f"{getattr(model, '__name__', type(model).__name__)} has no forward to read its columns from; "
            "set remove_unused_columns=False."
        )
    return dict(inspect.signature(forward).parameters)
