"""Mark names in texts: every word gets a tag.

    python examples/token_classification.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/names

The flags are those of the script of the same purpose that comes with transformers. Files hold `tokens` (a list of
words) and `ner_tags` (a tag for each: O, B-Place, I-Place, ...). Precision, recall and F1 count whole names.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import AutoModelForTokenClassification

from common import DataArguments, ModelArguments, parse, read_splits, run, wanted
from encoders import load_model, load_tokenizer, prepared
from surestep import DataCollatorForTokenClassification, EvalPrediction, Trainer, TrainingArguments, seed_everything

IGNORED = -100


@dataclass
class TagArguments(DataArguments):
    """Where words and tags are, and what is measured."""

    task_name: str = field(default="ner", metadata={"help": "Names the column of the tags: <task_name>_tags."})
    text_column_name: str = field(default="tokens", metadata={"help": "Column of the words."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of the tags."})
    max_seq_length: int = field(default=128, metadata={"help": "Cut texts to so many tokens."})
    pad_to_max_length: bool = field(default=False, metadata={"help": "Pad every sample to the longest allowed."})
    label_all_tokens: bool = field(default=False, metadata={"help": "Tag every part of a word, not only its first."})
    return_entity_level_metrics: bool = field(default=False, metadata={"help": "Measure each kind of name as well."})


def rows() -> list[dict[str, Any]]:
    """Return 60 invented sentences with people and places."""
    people, places = ["Ann", "Ben Hill", "Carl", "Dora Lake"], ["Rome", "New York", "Oslo", "Bonn", "Lima"]
    verbs = ["visits", "leaves", "likes"]
    found = []
    for person, place, verb in ((a, b, c) for a in people for b in places for c in verbs):
        words, tags = [], []
        for text, kind in ((person, "Person"), (verb, ""), (place, "Place")):
            for number, word in enumerate(text.split()):
                words.append(word)
                tags.append(f"{'BI'[number > 0]}-{kind}" if kind else "O")
        found.append({"tokens": words, "ner_tags": tags})
    return found


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Return the names in a list of tags: where each begins and ends, and of what kind it is."""
    found, start = set(), 0
    for place, tag in enumerate([*tags, "O"]):
        before = tags[place - 1] if place else "O"
        if before != "O" and (tag == "O" or tag[0] == "B" or tag[2:] != before[2:]):
            found.add((start, place, before[2:]))
        if tag != "O" and (before == "O" or tag[0] == "B" or tag[2:] != before[2:]):
            start = place
    return found


def scores(truth: set[Any], guesses: set[Any]) -> dict[str, float]:
    """Return precision, recall and their harmonic mean."""
    right = len(truth & guesses)
    precision, recall = right / max(len(guesses), 1), right / max(len(truth), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-12)}


def measures(names: list[str], each_kind: bool) -> Any:
    def measure(prediction: EvalPrediction) -> dict[str, float]:
        truth: set[Any] = set()
        guesses: set[Any] = set()
        best = np.argmax(prediction.predictions, axis=2)
        for number, (labels, found) in enumerate(zip(prediction.label_ids, best, strict=True)):
            counted = labels != IGNORED
            for names_found, ids in ((truth, labels[counted]), (guesses, found[counted])):
                names_found |= {(number, *span) for span in spans([names[one] for one in ids])}
        counted = prediction.label_ids != IGNORED
        figures = {**scores(truth, guesses), "accuracy": float((best == prediction.label_ids)[counted].mean())}
        for kind in sorted({name[2:] for name in names if name != "O"}) if each_kind else ():
            own = ({one for one in every if one[-1] == kind} for every in (truth, guesses))
            figures |= {f"{kind}_{name}": value for name, value in scores(*own).items()}
        return figures

    return measure


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, TagArguments, TrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "ncbi_disease", rows)
    words, tags = data_args.text_column_name, data_args.label_column_name or f"{data_args.task_name}_tags"
    for name in (words, tags):
        if name not in next(iter(splits.values())).column_names:
            sys.exit(f"The data have no column {name}. Name it with --text_column_name or --label_column_name.")
    names = sorted({tag for split in splits.values() for row in split[tags] for tag in row})
    tokenizer = load_tokenizer(
        model_args, (word for split in splits.values() for row in split[words] for word in row), add_prefix_space=True
    )
    length = min(data_args.max_seq_length, tokenizer.model_max_length)
    known = {name: number for number, name in enumerate(names)}
    table = {"id2label": dict(enumerate(names)), "label2id": known}
    model = load_model(AutoModelForTokenClassification, model_args, tokenizer, length, **table)
    padding = "max_length" if data_args.pad_to_max_length else False

    def make(batch: dict[str, list[Any]]) -> dict[str, Any]:
        found = tokenizer(batch[words], is_split_into_words=True, truncation=True, max_length=length, padding=padding)
        labels = []
        for number, row in enumerate(batch[tags]):
            places = found.word_ids(number)
            # The first token of a word has its tag; the others where that is asked for.
            first = [place != before for place, before in zip(places, [None, *places[:-1]], strict=True)]
            labels.append(
                [
                    known[row[place]] if place is not None and (begins or data_args.label_all_tokens) else IGNORED
                    for place, begins in zip(places, first, strict=True)
                ]
            )
        return {**found, "labels": labels}

    ready = prepared(wanted(splits, data_args, args), data_args, make)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8 if args.fp16 else None),
        compute_metrics=measures(names, data_args.return_entity_level_metrics),
    )
    figures, _ = run(trainer, ready)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
