"""Classify pictures with a vision transformer.

    python examples/vision_classification.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/pictures

The flags are those of the script of the same purpose that comes with transformers. Pictures come from --train_dir (a
folder for each class), or from files with columns `image` and `label`. Without --model_name_or_path a small ViT is
made anew.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageClassification, ViTConfig

from common import ModelArguments, parse, run, wanted
from pictures import PictureArguments, cropped, decode, encode, load_model, load_processor, read_pictures, tensors
from surestep import EvalPrediction, Trainer, TrainingArguments, seed_everything


def rows() -> list[dict[str, Any]]:
    """Return 120 invented pictures: reddish, greenish, bluish."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(120):
        pixels = generator.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[..., number % 3] += 60
        found.append({"image": encode(pixels), "label": number % 3})
    return found


def small(**settings: Any) -> ViTConfig:
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTConfig(hidden_size=64, intermediate_size=128, patch_size=8, **layers, **settings)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, PictureArguments, TrainingArguments)
    args.remove_unused_columns = False  # pictures become tensors when they are read
    seed_everything(args.seed)
    splits = read_pictures(data_args, model_args, "cifar10_small", rows)
    image, label = data_args.image_column_name, data_args.label_column_name
    classes = sorted({one for split in splits.values() for one in split[label]})
    processor = load_processor(model_args, data_args)
    size = processor.size["height"]
    names = {"id2label": dict(enumerate(map(str, classes))), "label2id": {str(one): n for n, one in enumerate(classes)}}
    model = load_model(AutoModelForImageClassification, model_args, small, image_size=size, **names)

    def reader(train: bool) -> Any:
        def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            found = [decode(one).convert("RGB") for one in batch[image]]
            found = [cropped([one], 0.7, mirror=True)[0] for one in found] if train else found
            labels = [torch.tensor(classes.index(one)) for one in batch[label]]
            return {"pixel_values": tensors(processor, found), "labels": labels}

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
        compute_metrics=accuracy,
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
