"""Image classification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from surestep.errors import ModelError
from surestep.tasks.data.splits import Split, Splits
from surestep.tasks.labels import LabelSet
from surestep.tasks.prepared import ClassificationTask, Samples, read_pretrained
from surestep.tasks.settings import ImageClassification, ModelSettings, Pretrained, ResidualNetwork, VisionTransformer
from surestep.tasks.vision.pictures import Augmentation, PictureDataset, PictureFormat, Pictures, decode
from surestep.tasks.vision.residual import ResidualNetworkModel
from surestep.tasks.vision.transformer import VisionTransformerModel

# So many training pictures, evenly spread, are enough to know mean and deviation.
_MEASURED = 2000


class ImageClassificationTask(ClassificationTask):
    """One class for each picture."""

    def __init__(self, settings: ImageClassification) -> None:
        self.settings = settings

    def learn_inputs(self, splits: Splits, column: str, model: ModelSettings, base: Path) -> PictureFormat:
        """Take size, channels and statistics from the settings, else the model's folder, else the training pictures."""
        facts = _folder_facts(base / model.path) if isinstance(model, Pretrained) else {}
        table = splits.train.table
        place = f"train data of {table.origin}"
        rows = np.unique(np.linspace(0, len(table) - 1, min(_MEASURED, len(table)), dtype=int)).tolist()
        declared = self.settings.channels or facts.get("channels")
        pictures = [decode(table.columns[column][i], table.folder, f"{place}, row {i}", declared) for i in rows]
        channels = declared or max(picture.shape[2] for picture in pictures)
        side = self.settings.image_size or facts.get("image_size")
        height, width = (side, side) if side else pictures[0].shape[:2]
        mean, std = _statistics(pictures)
        return PictureFormat(
            channels,
            height,
            width,
            tuple(facts.get("mean") or mean),
            tuple(facts.get("std") or std),
            resize=side is not None,
            to_grey=declared == 1,
        )

    def samples(self, split: Split, name: str, column: str, inputs: PictureFormat) -> Samples:
        """Return pictures as samples; those of `train` are augmented as the settings say."""
        place = f"{name} data of {split.table.origin}"
        pictures = Pictures(split.table.columns[column], inputs, split.table.folder, place)
        augment = Augmentation(self.settings.random_shift, self.settings.random_flip) if name == "train" else None
        return PictureDataset(pictures, split.label_ids, inputs, augment)

    def own_model(self, model: ModelSettings, inputs: PictureFormat, num_classes: int) -> nn.Module:
        """Build the vision transformer or the residual network."""
        if isinstance(model, VisionTransformer):
            return VisionTransformerModel(model, inputs.shape, num_classes)
        if isinstance(model, ResidualNetwork):
            return ResidualNetworkModel(model, inputs.shape, num_classes)
        raise AssertionError(model)

    def pretrained_model(self, folder: Path, labels: LabelSet, *, from_scratch: bool) -> nn.Module:
        """Build a transformers image classifier."""
        return read_pretrained("AutoModelForImageClassification", folder, labels, from_scratch=from_scratch)

    def read_inputs(self, description: Mapping[str, Any], folder: Path) -> PictureFormat:
        """Return the format that was saved."""
        facts = dict(description)
        try:
            return PictureFormat(**(facts | {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}))
        except (KeyError, TypeError) as error:
            raise ModelError(f"{folder} does not say in which format its model takes pictures: {error}") from error


def _statistics(pictures: list[Any]) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel, on a scale from 0 to 1; grey ones among coloured count in all."""
    channels = max(picture.shape[2] for picture in pictures)
    pixels = [np.broadcast_to(picture, (*picture.shape[:2], channels)).reshape(-1, channels) for picture in pictures]
    count = sum(len(part) for part in pixels)
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in pixels) / (255.0 * count)
    square = sum((part.astype(np.float64) ** 2).sum(axis=0) for part in pixels) / (255.0**2 * count)
    # The floor keeps a channel of one single value from being blown up.
    std = np.sqrt(np.maximum(square - mean**2, (1.0 / 255.0) ** 2))
    return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]


def _folder_facts(folder: Path) -> dict[str, Any]:
    """Return what a model folder of transformers says of its pictures: side, channels, mean and deviation."""
    config = _read_json(folder / "config.json")
    processor = _read_json(folder / "preprocessor_config.json")
    side = config.get("image_size")
    return {
        "image_size": side[0] if isinstance(side, list) else side,
        "channels": config.get("num_channels"),
        "mean": processor.get("image_mean"),
        "std": processor.get("image_std"),
    }


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
