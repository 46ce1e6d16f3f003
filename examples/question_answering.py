"""Find the answer to a question in a text, in the form of SQuAD.

    python examples/question_answering.py --do_train --do_eval --learning_rate 1e-3 --output_dir runs/answers

The flags are those of the script of the same purpose that comes with transformers. Files hold `id`, `context`,
`question` and `answers`, {"text": [...], "answer_start": [...]}. A long text becomes several features that overlap.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from torchmetrics.functional.text import squad
from transformers import AutoModelForQuestionAnswering

from common import DataArguments, ModelArguments, parse, read_splits, run, wanted
from encoders import load_model, load_tokenizer, prepared
from surestep import EvalPrediction, Trainer, TrainingArguments, seed_everything


@dataclass
class AnswerArguments(DataArguments):
    """How texts are cut, and how answers are chosen."""

    max_seq_length: int = field(default=384, metadata={"help": "Tokens of question and text together."})
    doc_stride: int = field(default=128, metadata={"help": "Tokens that neighbouring parts of a text share."})
    pad_to_max_length: bool = field(default=True, metadata={"help": "Pad every feature to the longest allowed."})
    n_best_size: int = field(default=20, metadata={"help": "Beginnings and ends that are looked at for each feature."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of the longest answer."})
    version_2_with_negative: bool = field(default=False, metadata={"help": "Some questions have no answer."})
    null_score_diff_threshold: float = field(default=0.0, metadata={"help": "By how much no answer must be better."})


def rows() -> list[dict[str, Any]]:
    """Return 60 invented texts of one sentence."""
    who, what = ["Ann", "Ben", "Carl", "Dora", "Emil"], ["a drum", "two cats", "the map", "red shoes"]
    where = ["Rome", "Oslo", "Bonn"]
    found = []
    for number, (person, thing, place) in enumerate((a, b, c) for a in who for b in what for c in where):
        text, asked = f"In {place} {person} bought {thing}.", (person, "Who bought something?")
        if number % 2:
            asked = (place, "Where was it?")
        answers = {"text": [asked[0]], "answer_start": [text.index(asked[0])]}
        found.append({"id": str(number), "context": text, "question": asked[1], "answers": answers})
    return found


def answers_of(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the answers to a question, in SQuAD's form."""
    if "answers" in sample:
        return sample["answers"]
    return {"text": list(sample["answer_texts"]), "answer_start": list(sample["answer_starts"])}


class Features:
    """From questions to features, and from what the model found in each feature back to an answer."""

    def __init__(self, tokenizer: Any, data: AnswerArguments) -> None:
        self.tokenizer, self.data = tokenizer, data
        self.length = min(data.max_seq_length, tokenizer.model_max_length)

    def make(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        found = self.tokenizer(
            [question.lstrip() for question in batch["question"]], batch["context"], truncation="only_second",
            max_length=self.length, stride=min(self.data.doc_stride, self.length // 3),
            return_overflowing_tokens=True, return_offsets_mapping=True,
            padding="max_length" if self.data.pad_to_max_length else False,
        )  # fmt: skip
        samples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        offsets, origin = found.pop("offset_mapping"), found.pop("overflow_to_sample_mapping")
        features: dict[str, list[Any]] = {name: list(values) for name, values in found.items()}
        more: dict[str, list[Any]] = {name: [] for name in ("start_positions", "end_positions", "offsets", "sample")}
        for number, which in enumerate(origin):
            # Where each token of the text is; None for those of the question and for marks.
            kinds = found.sequence_ids(number)
            places = [pair if kind == 1 else None for pair, kind in zip(offsets[number], kinds, strict=True)]
            first, last = self._place(places, answers_of(samples[which]))
            for name, value in zip(more, (first, last, places, samples[which]["id"]), strict=True):
                more[name].append(value)
        return features | more

    @staticmethod
    def _place(places: list[Any], answers: dict[str, Any]) -> tuple[int, int]:
        """Return the first and the last token of the answer; (0, 0) where it is not in this feature."""
        if not answers["answer_start"]:
            return 0, 0
        begin = answers["answer_start"][0]
        end = begin + len(answers["text"][0])
        tokens = [one for one, place in enumerate(places) if place and place[0] < end and place[1] > begin]
        whole = tokens and places[tokens[0]][0] <= begin and places[tokens[-1]][1] >= end
        return (tokens[0], tokens[-1]) if whole else (0, 0)

    def answers(self, samples: Dataset, features: Dataset, scores: tuple[Any, Any]) -> dict[str, str]:
        """Return the best answer to each question, "" for none."""
        texts = {sample["id"]: sample["context"] for sample in samples}
        best: dict[str, tuple[float, str]] = {}
        nothing: dict[str, float] = {}
        for feature, starts, ends in zip(features, *scores, strict=False):
            name = feature["sample"]
            nothing[name] = min(nothing.get(name, np.inf), float(starts[0] + ends[0]))
            firsts, lasts = (np.argsort(one)[::-1][: self.data.n_best_size] for one in (starts, ends))
            for first, last in ((a, b) for a in firsts for b in lasts if a <= b < a + self.data.max_answer_length):
                places, score = feature["offsets"], float(starts[first] + ends[last])
                inside = last < len(places) and places[first] is not None and places[last] is not None
                if inside and score > best.get(name, (-np.inf, ""))[0]:
                    best[name] = (score, texts[name][places[first][0] : places[last][1]])
        found = {name: best.get(name, (-np.inf, "")) for name in texts}
        gap, none = self.data.null_score_diff_threshold, self.data.version_2_with_negative
        return {name: "" if none and nothing[name] - score > gap else text for name, (score, text) in found.items()}


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, AnswerArguments, TrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "xquad_en", rows)
    texts = (text for split in splits.values() for name in ("question", "context") for text in split[name])
    tokenizer = load_tokenizer(model_args, texts)
    features = Features(tokenizer, data_args)
    model = load_model(AutoModelForQuestionAnswering, model_args, tokenizer, features.length)
    asked = wanted(splits, data_args, args)
    ready: DatasetDict = prepared(asked, data_args, features.make)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=ready.get("train"),
        eval_dataset=ready.get("validation"),
        processing_class=tokenizer,
    )

    def measure(name: str) -> Any:
        def metrics(prediction: EvalPrediction) -> dict[str, float]:
            found = features.answers(asked[name], ready[name], prediction.predictions[:2])
            path = Path(args.output_dir) / f"{name}_predictions.json"
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
            guesses = [{"id": one, "prediction_text": text} for one, text in found.items()]
            # A question without an answer is answered by no text.
            none = {"text": [""], "answer_start": [0]}
            known = [(one["id"], answers_of(one)) for one in asked[name]]
            truth = [{"id": one, "answers": answers if answers["text"] else none} for one, answers in known]
            return {figure: float(value) for figure, value in squad(guesses, truth).items()}

        return metrics

    trainer.compute_metrics = measure("validation")
    figures, _ = run(trainer, DatasetDict({name: split for name, split in ready.items() if name != "test"}))
    if "test" in ready:
        trainer.compute_metrics = measure("test")
        more, _ = run(trainer, DatasetDict({"test": ready["test"]}))
        figures |= more
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
