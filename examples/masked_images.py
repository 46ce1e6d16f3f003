"""Teach a vision transformer to paint what is hidden from it: masked image modelling, as SimMIM does it.

    python examples/masked_images.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/masked_images

The flags are those of the script of the same purpose that comes with transformers. Pictures come from --train_dir, or
from files with a column `image`. Without --model_name_or_path a small ViT is made anew.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedImageModeling, ViTConfig

from common import ModelArguments, parse, run, wanted
from pictures import PictureArguments, cropped, decode, load_model, load_processor, read_pictures, tensors
from surestep import Trainer, TrainingArguments, seed_everything
from vision_classification import rows


@dataclass
class HiddenArguments(PictureArguments):
    """What is hidden."""

    mask_patch_size: int = field(default=8, metadata={"help": "Pixels of a side of what is hidden at once."})
    mask_ratio: float = field(default=0.6, metadata={"help": "Share of the picture that is hidden."})
    patch_size: int | None = field(default=None, metadata={"help": "Patches of a new model; None is 4."})


@dataclass
class Hidden:
    """Draws what is hidden: squares of `square` pixels, told in patches of the model."""

    size: int
    patch: int
    square: int
    share: float

    def __post_init__(self) -> None:
        if self.size % self.square or self.square % self.patch:
            sys.exit(
                f"--mask_patch_size={self.square} must divide pictures of {self.size} pixels, and be a multiple of the "
                f"model's patches of {self.patch}."
            )

    def draw(self) -> Tensor:
        """Return True for each patch that is hidden, in the order of the patches."""
        side = self.size // self.square
        chosen = torch.randperm(side * side) < round(side * side * self.share)
        scale = self.square // self.patch
        return chosen.view(side, side).repeat_interleave(scale, 0).repeat_interleave(scale, 1).flatten()


def small(**settings: Any) -> ViTConfig:
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTConfig(hidden_size=64, intermediate_size=128, **layers, **settings)


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, HiddenArguments, TrainingArguments)
    args.remove_unused_columns, args.label_names = False, ["bool_masked_pos"]
    seed_everything(args.seed)
    splits = read_pictures(data_args, model_args, "cifar10_small", rows)
    processor = load_processor(model_args, data_args)
    size = processor.size["height"]
    settings = {"image_size": size}
    if data_args.patch_size is not None or model_args.model_name_or_path is None:
        # What is painted is a square of `encoder_stride` pixels for each patch.
        settings |= dict.fromkeys(("patch_size", "encoder_stride"), data_args.patch_size or 4)
    model = load_model(AutoModelForMaskedImageModeling, model_args, small, **settings)
    hidden = Hidden(size, model.config.patch_size, data_args.mask_patch_size, data_args.mask_ratio)

    def reader(train: bool) -> Any:
        def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            found = [decode(one).convert("RGB") for one in batch[data_args.image_column_name]]
            found = [cropped([one], 0.67, mirror=True)[0] for one in found] if train else found
            return {"pixel_values": tensors(processor, found), "bool_masked_pos": [hidden.draw() for _ in found]}

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
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
