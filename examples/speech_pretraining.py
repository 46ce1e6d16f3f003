"""Teach a model speech without a word of text: wav2vec 2.0.

    python examples/speech_pretraining.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/speech

The script of this purpose that comes with transformers has a loop of its own. Here the loop is the Trainer's, and what
is special is in its places: masks and distractors in the collator, the mean over masked frames in `compute_loss`, the
temperature of the codebook in a callback. Its flags for data and model are the same. Files hold a column `audio`, of
the bytes of WAV files. Without --model_name_or_path a small model is made anew.
"""

from __future__ import annotations

import io
import math
import sys
import wave
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from common import DataArguments, ModelArguments, parse, read_splits, run, wanted
from surestep import Trainer, TrainerCallback, TrainingArguments, seed_everything


@dataclass
class SpeechArguments(DataArguments):
    """Which recordings, and what is hidden in them."""

    audio_column_name: str = field(default="audio", metadata={"help": "Column of the recordings."})
    max_duration_in_seconds: float = field(default=5.0, metadata={"help": "Longer recordings are cut."})
    min_duration_in_seconds: float = field(default=0.25, metadata={"help": "Shorter recordings are left out."})
    max_gumbel_temperature: float = field(default=2.0, metadata={"help": "Temperature of the codebook at the start."})
    min_gumbel_temperature: float = field(default=0.5, metadata={"help": "The lowest temperature."})
    gumbel_temperature_decay: float = field(default=0.999995, metadata={"help": "What it is multiplied with a step."})
    mask_time_prob: float = field(default=0.65, metadata={"help": "Share of the frames that is hidden."})
    mask_time_length: int = field(default=10, metadata={"help": "Frames that are hidden together."})
    pad_to_multiple_of: int | None = field(default=None, metadata={"help": "Pad to a multiple of so many values."})


def rows() -> list[dict[str, Any]]:
    """Return 40 invented recordings: two tones, one after the other."""
    found = []
    for number in range(40):
        times = np.arange(8000) / 16000
        tones = np.where(times < 0.25, 200 + 40 * (number % 5), 500 + 60 * (number % 7))
        samples = (8000 * np.sin(2 * math.pi * tones * times)).astype("<i2")
        file = io.BytesIO()
        with wave.open(file, "wb") as written:
            written.setparams((1, 2, 16000, 0, "NONE", ""))
            written.writeframes(samples.tobytes())
        found.append({"audio": file.getvalue()})
    return found


def heard(value: Any, rate: int) -> np.ndarray[Any, Any]:
    """Return the samples of a recording, of one channel, at `rate` a second."""
    with wave.open(io.BytesIO(value["bytes"] if isinstance(value, dict) else value)) as file:
        own, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if width != 2:
            sys.exit(f"A recording has {8 * width} bits a sample; WAV files of 16 bits are read.")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels).mean(axis=1) / 32768
    length = round(len(samples) * rate / own)
    found = np.interp(np.arange(length) * own / rate, np.arange(len(samples)), samples)
    return found.astype(np.float32)


@dataclass
class Hiding:
    """Makes a batch: pads recordings, hides frames, and draws the frames that each hidden one is told from."""

    model: Wav2Vec2ForPreTraining
    extractor: Wav2Vec2FeatureExtractor
    data: SpeechArguments

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        config = self.model.config
        batch = self.extractor.pad(
            [{"input_values": sample["input_values"]} for sample in samples],
            padding=True, return_tensors="pt", return_attention_mask=True,
            pad_to_multiple_of=self.data.pad_to_multiple_of,
        )  # fmt: skip
        shape = (len(samples), int(self.model._get_feat_extract_output_lengths(batch["input_values"].shape[-1])))
        frames = self.model._get_feature_vector_attention_mask(shape[1], batch["attention_mask"])
        # Drawn by numpy, from torch's generator, so that a run that is resumed draws what it would have drawn.
        np.random.seed(int(torch.randint(2**31, ())))
        hidden = _compute_mask_indices(shape, self.data.mask_time_prob, self.data.mask_time_length, frames, min_masks=2)
        others = _sample_negative_indices(shape, config.num_negatives, mask_time_indices=hidden)
        found = {"mask_time_indices": torch.from_numpy(hidden), "sampled_negative_indices": torch.from_numpy(others)}
        # Models that normalise over groups were trained without a mask of the padding.
        kept = batch if config.feat_extract_norm == "layer" else {"input_values": batch["input_values"]}
        return {**kept, **found}


class Pretrainer(Trainer):
    """The model sums its loss over hidden frames; what is minimised is the mean over them."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss / inputs["mask_time_indices"].sum()
        return (loss, outputs) if return_outputs else loss


@dataclass
class Cooling(TrainerCallback):
    """Lets the choice among the codebook's vectors grow harder with every step."""

    data: SpeechArguments

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        warm = self.data.max_gumbel_temperature * self.data.gumbel_temperature_decay**state.global_step
        model.set_gumbel_temperature(max(warm, self.data.min_gumbel_temperature))


def small() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_codevectors_per_group=16, codevector_dim=32,
        proj_codevector_dim=32, num_negatives=10, do_stable_layer_norm=True, feat_extract_norm="layer", layerdrop=0.0,
    )  # fmt: skip


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, SpeechArguments, TrainingArguments)
    # Nothing is labelled: what is hidden is what a loss is made of.
    args.remove_unused_columns, args.label_names = False, ["mask_time_indices"]
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "fsdd", rows)
    if model_args.model_name_or_path is None:
        model, extractor = Wav2Vec2ForPreTraining(small()), Wav2Vec2FeatureExtractor(return_attention_mask=True)
    else:
        name, options = model_args.model_name_or_path, model_args.options()
        fitting = {"ignore_mismatched_sizes": model_args.ignore_mismatched_sizes}
        model = Wav2Vec2ForPreTraining.from_pretrained(name, **fitting, **options)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(name, **options)
    rate = extractor.sampling_rate
    longest = round(rate * data_args.max_duration_in_seconds)
    shortest = round(rate * data_args.min_duration_in_seconds)

    def hear(sample: dict[str, Any]) -> dict[str, Any]:
        samples = heard(sample[data_args.audio_column_name], rate)[:longest]
        return {"input_values": extractor(samples, sampling_rate=rate)["input_values"][0]}

    ready = wanted(splits, data_args, args)
    for name, split in ready.items():
        found = split.map(hear, remove_columns=split.column_names, num_proc=data_args.preprocessing_num_workers)
        ready[name] = found.filter(lambda sample: len(sample["input_values"]) >= shortest)
    trainer = Pretrainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=extractor,
        data_collator=Hiding(model, extractor, data_args),
        callbacks=[Cooling(data_args)],
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
