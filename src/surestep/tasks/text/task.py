"""Text classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from surestep.errors import DataError
from surestep.tasks.data.splits import Split, Splits
from surestep.tasks.labels import LabelSet
from surestep.tasks.prepared import ClassificationTask, InputForm, Samples, read_pretrained
from surestep.tasks.settings import ModelSettings, Pretrained, TextClassification, TextEncoder
from surestep.tasks.text.batches import TextDataset
from surestep.tasks.text.encoder import TextEncoderModel
from surestep.tasks.text.hub_tokenizer import HubTokenizer
from surestep.tasks.text.vocabulary import Vocabulary


class TextClassificationTask(ClassificationTask):
    """One class for each text."""

    def __init__(self, settings: TextClassification) -> None:
        self.settings = settings

    def learn_inputs(self, splits: Splits, column: str, model: ModelSettings, base: Path) -> InputForm:
        """Take the tokenizer of the model's folder, else learn a vocabulary from the training texts."""
        if isinstance(model, Pretrained):
            return HubTokenizer(base / model.path, self.settings.max_length)
        return Vocabulary.learn(
            _texts(splits.train, "train", column),
            size=self.settings.vocabulary_size,
            min_count=self.settings.min_count,
            lowercase=self.settings.lowercase,
            max_length=self.settings.max_length,
        )

    def samples(self, split: Split, name: str, column: str, inputs: Vocabulary | HubTokenizer) -> Samples:
        """Return the texts as numbers."""
        return TextDataset(inputs.encode(_texts(split, name, column)), split.label_ids)

    def own_model(self, model: ModelSettings, inputs: Vocabulary, num_classes: int) -> nn.Module:
        """Build the encoder for the vocabulary."""
        if not isinstance(model, TextEncoder):
            raise AssertionError(model)
        return TextEncoderModel(model, len(inputs), inputs.max_length, num_classes, inputs.pad_id)

    def pretrained_model(self, folder: Path, labels: LabelSet, *, from_scratch: bool) -> nn.Module:
        """Build a transformers sequence classifier."""
        return read_pretrained("AutoModelForSequenceClassification", folder, labels, from_scratch=from_scratch)

    def read_inputs(self, description: Mapping[str, Any], folder: Path) -> InputForm:
        """Return the vocabulary or the tokenizer that was saved."""
        if description.get("tokenizer") == "transformers":
            return HubTokenizer(folder, description["max_length"])
        return Vocabulary(tuple(description["words"]), description["lowercase"], description["max_length"])


def _texts(split: Split, name: str, column: str) -> Sequence[str]:
    """Return the texts of a split, or raise and name the first row that holds none."""
    values = split.table.columns[column]
    for row, value in enumerate(values):
        if not isinstance(value, str):
            place = f"column '{column}', row {row} of the {name} data of {split.table.origin}"
            raise DataError(f"{place}: expected a text, found {value!r:.40}.")
    return values
