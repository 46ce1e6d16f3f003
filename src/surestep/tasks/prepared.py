"""What a task makes of declared data and a declared model: everything that a trainer asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from surestep.errors import ModelError
from surestep.optional import require
from surestep.tasks.data.splits import Split, Splits
from surestep.tasks.labels import LabelSet
from surestep.tasks.settings import ModelSettings, Pretrained

Samples = Dataset[dict[str, Tensor]]
Collate = Callable[[list[dict[str, Any]]], dict[str, Tensor]]


class InputForm(Protocol):
    """How raw values of the input column become what the model takes; learnt from the training data, saved with it."""

    @property
    def collate(self) -> Collate | None:
        """How samples become a batch; None where stacking them is enough."""
        ...

    def batch(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Return the model's arguments for raw values."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the form as JSON can hold it."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A model, its data sets by split name, and how samples become batches (None: stacked)."""

    model: nn.Module
    samples: Mapping[str, Samples]
    collate: Collate | None
    labels: LabelSet
    inputs: InputForm


class ClassificationTask(ABC):
    """The steps that are the same for pictures and texts; a subclass fills in what differs."""

    @abstractmethod
    def learn_inputs(self, splits: Splits, column: str, model: ModelSettings, base: Path) -> InputForm:
        """Find the input form in the training data and the model."""

    @abstractmethod
    def samples(self, split: Split, name: str, column: str, inputs: Any) -> Samples:
        """Return the samples of the split called `name`; only those of `train` are augmented."""

    @abstractmethod
    def own_model(self, model: ModelSettings, inputs: Any, num_classes: int) -> nn.Module:
        """Build a model of ours with fresh weights."""

    @abstractmethod
    def pretrained_model(self, folder: Path, labels: LabelSet, *, from_scratch: bool) -> nn.Module:
        """Build a model of transformers from a local folder."""

    @abstractmethod
    def read_inputs(self, description: Mapping[str, Any], folder: Path) -> InputForm:
        """Return the input form that `InputForm.describe` described; `folder` holds files that belong to it."""

    def prepare(self, splits: Splits, column: str, model: ModelSettings, base: Path) -> Prepared:
        """Make model and samples, as `build_model` and `samples` do."""
        inputs = self.learn_inputs(splits, column, model, base)
        samples = {name: self.samples(split, name, column, inputs) for name, split in splits.parts.items()}
        built = self.build_model(model, inputs, splits.labels, base)
        return Prepared(built, samples, inputs.collate, splits.labels, inputs)

    def build_model(self, model: ModelSettings, inputs: Any, labels: LabelSet, base: Path) -> nn.Module:
        """Build the model anew. Fresh weights are drawn from torch's default generator, so seed it before."""
        if isinstance(model, Pretrained):
            return self.pretrained_model(base / model.path, labels, from_scratch=model.from_scratch)
        return self.own_model(model, inputs, len(labels))


def read_pretrained(kind: str, folder: Path, labels: LabelSet, *, from_scratch: bool) -> nn.Module:
    """Build transformers' auto class `kind` from a local folder, with a head for `labels`."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path: {folder} holds no config.json, so it is no model folder of transformers.")
    transformers = require("transformers", "model.name='pretrained'")
    names = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels.names)),
        "label2id": {name: i for i, name in enumerate(labels.names)},
    }
    auto = getattr(transformers, kind)
    try:
        if from_scratch:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **names)
            built: nn.Module = auto.from_config(config)
        else:
            built = auto.from_pretrained(folder, local_files_only=True, ignore_mismatched_sizes=True, **names)
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path: {folder} cannot be read as {kind}: {error}") from error
    return built
