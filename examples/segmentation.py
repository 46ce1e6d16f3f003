"""Say of every pixel what it shows: semantic segmentation with a Segformer.

    python examples/segmentation.py --do_train --do_eval --ignored_class 11 --learning_rate 1e-3 --output_dir runs/roads

The flags are those of the script of the same purpose that comes with transformers. Files hold columns `image` and
`label` (or `mask`), a picture whose values are classes. Without --model_name_or_path a small Segformer is made anew.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForSemanticSegmentation, SegformerConfig

from common import ModelArguments, parse, run, wanted
from pictures import PictureArguments, cropped, decode, encode, load_model, load_processor, read_pictures, tensors
from surestep import EvalPrediction, Trainer, TrainingArguments, seed_everything

IGNORED = 255


@dataclass
class SegmentArguments(PictureArguments):
    """What the classes are."""

    do_reduce_labels: bool = field(default=False, metadata={"help": "0 is no class, and classes begin at 1."})
    ignored_class: int | None = field(default=None, metadata={"help": "A class that is not counted."})


def rows() -> list[dict[str, Any]]:
    """Return 80 invented pictures: a bright square on a dark ground."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(80):
        pixels = generator.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), dtype=np.uint8)
        top, left = generator.integers(0, 16, 2)
        mask[top : top + 16, left : left + 16] = 1
        pixels[mask == 1] += 120
        found.append({"image": encode(pixels), "label": encode(mask)})
    return found


def small(**settings: Any) -> SegformerConfig:
    return SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=64,
        semantic_loss_ignore_index=IGNORED, **settings,
    )  # fmt: skip


def best_classes(logits: Any, labels: Tensor) -> Tensor:
    """Return the class of every pixel; the model gives a quarter of the resolution."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    return nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False).argmax(dim=1)


def measures(num_classes: int) -> Any:
    def measure(prediction: EvalPrediction) -> dict[str, float]:
        counted = prediction.label_ids != IGNORED
        pairs = prediction.label_ids[counted] * num_classes + prediction.predictions[counted]
        table = np.bincount(pairs.astype(np.int64), minlength=num_classes**2).reshape(num_classes, num_classes)
        right, there, said = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
        shown = (there + said) > 0
        shares = right[shown] / (there + said - right)[shown]
        known = there > 0
        return {
            "mean_iou": float(shares.mean()),
            "mean_accuracy": float((right[known] / there[known]).mean()),
            "overall_accuracy": float(right.sum() / table.sum()),
        }

    return measure


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, SegmentArguments, TrainingArguments)
    args.remove_unused_columns = False  # pictures become tensors when they are read
    seed_everything(args.seed)
    splits = read_pictures(data_args, model_args, "camvid_240x180", rows)
    columns = next(iter(splits.values())).column_names
    image = data_args.image_column_name
    label = "mask" if data_args.label_column_name not in columns else data_args.label_column_name
    processor = load_processor(model_args, data_args)
    size = processor.size["height"]

    def classes_of(mask: Any) -> np.ndarray[Any, Any]:
        found = np.array(mask, dtype=np.int64)
        if data_args.do_reduce_labels:
            found = np.where(found == 0, IGNORED, found - 1)
        return np.where(found == data_args.ignored_class, IGNORED, found)

    masks = (classes_of(decode(mask)) for split in splits.values() for mask in split[label])
    num_classes = int(max(mask[mask != IGNORED].max(initial=0) for mask in masks)) + 1
    model = load_model(AutoModelForSemanticSegmentation, model_args, small, num_labels=num_classes)

    def reader(train: bool) -> Any:
        def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            both = zip(batch[image], batch[label], strict=True)
            pairs = [[decode(one).convert("RGB"), decode(mask)] for one, mask in both]
            pairs = [cropped(pair, 0.5, mirror=True) for pair in pairs] if train else pairs
            masks = [mask.resize((size, size), Image.Resampling.NEAREST) for _, mask in pairs]
            labels = [torch.from_numpy(classes_of(mask)) for mask in masks]
            return {"pixel_values": tensors(processor, [one for one, _ in pairs]), "labels": labels}

        return read

    ready = wanted(splits, data_args, args)
    for name, split in ready.items():
        ready[name] = split.with_transform(reader(name == "train"))
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=processor,
        compute_metrics=measures(num_classes),
        preprocess_logits_for_metrics=best_classes,
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
