"""A trained model in a folder, with all that is needed to use it, and the way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn

from surestep.errors import ModelError
from surestep.tasks.labels import LabelSet
from surestep.tasks.prepared import InputForm, Prepared
from surestep.tasks.registry import task_of
from surestep.tasks.settings import ModelSettings, Pretrained, TaskSettings

_CARD = "classifier.json"
_WEIGHTS = "model.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class Prediction:
    """The class that a model gives a sample, and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A trained model that takes raw values: texts, or pictures as arrays, file bytes or paths."""

    model: nn.Module
    labels: LabelSet
    inputs: InputForm

    def predict(self, values: Sequence[Any], batch_size: int = 64) -> list[Prediction]:
        """Classify `values`, in their order."""
        found: list[Prediction] = []
        self.model.eval()
        for start in range(0, len(values), batch_size):
            with torch.no_grad():
                logits = self.model(**self.inputs.batch(values[start : start + batch_size]))["logits"]
            best = logits.float().softmax(dim=-1).max(dim=-1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found += [Prediction(self.labels.names[i], probability) for i, probability in pairs]
        return found


def write_card(folder: Path, prepared: Prepared, task: TaskSettings, model: ModelSettings) -> None:
    """Write beside the weights what they need: task, model, class names, input form (and the tokenizer's files)."""
    card = {
        "format": _FORMAT,
        "task": task.model_dump(),
        "model": model.model_dump(),
        "labels": {"names": list(prepared.labels.names), "values": list(prepared.labels.values)},
        "inputs": prepared.inputs.describe(),
    }
    (folder / _CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_files = getattr(prepared.inputs, "save", None)
    if save_files is not None:
        save_files(folder)


def load_classifier(folder: str | Path) -> Classifier:
    """Read the model that a job left in `folder`, ready to predict on the CPU."""
    folder = Path(folder)
    card = _read_card(folder / _CARD)
    settings: TaskSettings = TypeAdapter(TaskSettings).validate_python(card["task"])
    model: ModelSettings = TypeAdapter(ModelSettings).validate_python(card["model"])
    labels = LabelSet(tuple(card["labels"]["names"]), tuple(card["labels"]["values"]))
    task = task_of(settings)
    inputs = task.read_inputs(card["inputs"], folder)
    if isinstance(model, Pretrained):
        return Classifier(task.pretrained_model(folder, labels, from_scratch=False), labels, inputs)
    built = task.own_model(model, inputs, len(labels))
    built.load_state_dict(load_file(folder / _WEIGHTS))
    return Classifier(built, labels, inputs)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.parent} holds no model that a job of surestep left: {error}") from error
    if card.get("format") != _FORMAT:
        raise ModelError(f"{path} has format {card.get('format')!r}; this version of surestep reads {_FORMAT}.")
    return card
