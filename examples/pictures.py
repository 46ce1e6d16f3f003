"""What the scripts for pictures share: where they come from, and how they become tensors."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict, load_dataset
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from common import DataArguments, ModelArguments, read_splits


@dataclass
class PictureArguments(DataArguments):
    """Where pictures are."""

    train_dir: str | None = field(default=None, metadata={"help": "Folder of pictures, one folder for each class."})
    validation_dir: str | None = field(default=None, metadata={"help": "The same, to evaluate on."})
    image_column_name: str = field(default="image", metadata={"help": "Column of the pictures."})
    label_column_name: str = field(default="label", metadata={"help": "Column of the classes, or of the masks."})
    train_val_split: float = field(default=0.15, metadata={"help": "Share to evaluate on, where nothing else is."})
    image_size: int | None = field(default=None, metadata={"help": "Pixels of a side; None is 32, or the model's."})
    image_processor_name: str | None = field(default=None, metadata={"help": "Another processor than the model's."})


def read_pictures(data: PictureArguments, model: ModelArguments, shared: str, rows: Callable[..., Any]) -> DatasetDict:
    """Return the splits: of folders, or as every script reads them; one for evaluation is drawn where there is none."""
    folders = {"train": data.train_dir, "validation": data.validation_dir}
    found = {name: f"{folder}/**" for name, folder in folders.items() if folder is not None}
    if found:
        splits = load_dataset("imagefolder", data_files=found, cache_dir=model.cache_dir)
    else:
        splits = read_splits(data, model, shared, rows)
    if "validation" not in splits and "train" in splits:
        splits = splits["train"].train_test_split(data.train_val_split, seed=0)
        splits["validation"] = splits.pop("test")
    return splits


def decode(value: Any) -> Image.Image:
    """Return a picture of a column: its file's bytes, or what `datasets` has decoded."""
    if isinstance(value, dict):
        value = value["bytes"]
    return Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value


def encode(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return the bytes of a file with these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def load_processor(names: ModelArguments, data: PictureArguments) -> Any:
    """Return what brings pictures to the size and the range that the model is used to."""
    size = {} if data.image_size is None else {"size": {"height": data.image_size, "width": data.image_size}}
    name = data.image_processor_name or names.model_name_or_path
    if name is not None:
        return AutoImageProcessor.from_pretrained(name, **size, **names.options())
    return ViTImageProcessorPil(size={"height": data.image_size or 32, "width": data.image_size or 32})


def load_model(auto: Any, names: ModelArguments, small: Callable[..., Any], **settings: Any) -> Any:
    """Return the model that is named, else a small one; `settings` go into its configuration."""
    if names.model_name_or_path is None:
        return auto.from_config(small(**settings))
    config = AutoConfig.from_pretrained(names.config_name or names.model_name_or_path, **settings, **names.options())
    options = {"ignore_mismatched_sizes": names.ignore_mismatched_sizes, **names.options()}
    return auto.from_pretrained(names.model_name_or_path, config=config, **options)


def drawn(low: float, high: float) -> float:
    """Return a random number; of torch's generator, so that a run that is resumed goes on with it."""
    return low + (high - low) * torch.rand(()).item()


def cropped(pictures: list[Image.Image], least: float, *, mirror: bool) -> list[Image.Image]:
    """Return the same part, of at least a share of the area, of a picture and what belongs to it; perhaps mirrored."""
    width, height = pictures[0].size
    share = drawn(least, 1.0) ** 0.5
    left, top = drawn(0, width * (1 - share)), drawn(0, height * (1 - share))
    box = tuple(map(round, (left, top, left + width * share, top + height * share)))
    parts = [one.crop(box) for one in pictures]
    return [ImageOps.mirror(one) for one in parts] if mirror and drawn(0, 1) < 0.5 else parts


def tensors(processor: Any, pictures: list[Image.Image]) -> list[Tensor]:
    """Return pictures as the model takes them, channels first."""
    found = processor([one.convert("RGB") for one in pictures], return_tensors="pt")["pixel_values"]
    return list(found)
