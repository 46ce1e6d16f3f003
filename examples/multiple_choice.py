"""Choose the right ending of a sentence, in the form of SWAG.

    python examples/multiple_choice.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/choice

The flags are those of the script of the same purpose that comes with transformers. Files hold `sent1`, `sent2` (the
beginning of every ending), `ending0` to `ending3` and `label`; or `context`, `endings` (a list) and `label`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import AutoModelForMultipleChoice

from common import DataArguments, ModelArguments, parse, read_splits, run, wanted
from encoders import load_model, load_tokenizer, prepared
from surestep import DataCollatorForMultipleChoice, EvalPrediction, Trainer, TrainingArguments, seed_everything


@dataclass
class ChoiceArguments(DataArguments):
    """How long a beginning and its ending are."""

    max_seq_length: int = field(default=128, metadata={"help": "Cut them to so many tokens together."})
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every sample to the longest allowed."})


def rows() -> list[dict[str, Any]]:
    """Return 60 invented sentences with one ending that can be."""
    things = {"cat": "purrs", "dog": "barks", "clock": "ticks", "baby": "cries", "bell": "rings"}
    absurd = ["reads the news", "pays the rent", "writes a book", "drives a bus"]
    found = []
    for index, thing in enumerate(list(things) * 12):
        right, place = things[thing], index % 4
        others = [absurd[(index + shift) % 4] for shift in range(3)]
        found.append({"context": f"The {thing}", "endings": [*others[:place], right, *others[place:]], "label": place})
    return found


def parts(sample: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the beginning and its endings."""
    if "endings" in sample:
        return sample["context"], list(sample["endings"])
    endings = [f"{sample['sent2']} {sample[name]}" for name in sorted(sample) if name.startswith("ending")]
    return sample["sent1"], endings


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, ChoiceArguments, TrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "codah", rows)
    texts = (text for split in splits.values() for one in split for text in (parts(one)[0], *parts(one)[1]))
    tokenizer = load_tokenizer(model_args, texts)
    length = min(data_args.max_seq_length, tokenizer.model_max_length)
    model = load_model(AutoModelForMultipleChoice, model_args, tokenizer, length)
    padding = "max_length" if data_args.pad_to_max_length else False

    def make(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        samples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        encoded = []
        for beginning, endings in map(parts, samples):
            pairs = ([beginning] * len(endings), endings)
            encoded.append(tokenizer(*pairs, truncation=True, max_length=length, padding=padding))
        return {**{name: [one[name] for one in encoded] for name in encoded[0]}, "labels": batch["label"]}

    ready = prepared(wanted(splits, data_args, args), data_args, make)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=8 if args.fp16 else None),
        compute_metrics=accuracy,
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
