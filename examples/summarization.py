"""Summarization: teach an encoder-decoder to say a text in a sentence, and count ROUGE on what it writes.

    python examples/summarization.py --do_train --do_eval --predict_with_generate --max_source_length 256 \
        --max_target_length 48 --num_beams 4 --learning_rate 1e-3 --output_dir runs/summarization

The flags are those of the script of the same purpose that comes with transformers. Without --text_column and
--summary_column the first two columns that look like it are taken. Without --model_name_or_path a small T5 is made
anew, with a tokenizer learnt from the data. ROUGE-1, ROUGE-2 and ROUGE-L are those of torchmetrics, without stemming;
ROUGE-Lsum would download a splitter of sentences and is left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from torchmetrics.functional.text.rouge import rouge_score
from transformers import T5Config, T5ForConditionalGeneration

from common import ModelArguments, parse, read_splits
from sequences import SequenceArguments, load, set_languages, train_and_score
from surestep import Seq2SeqTrainingArguments, seed_everything

TEXTS = ("document", "text", "article", "dialogue", "body")
SUMMARIES = ("summary", "summaries", "highlights", "title", "headline")


@dataclass
class SummarizationArguments(SequenceArguments):
    """Which columns, besides which data."""

    text_column: str | None = field(default=None, metadata={"help": "Column of the texts."})
    summary_column: str | None = field(default=None, metadata={"help": "Column of the summaries."})
    lang: str | None = field(default=None, metadata={"help": "Language of the texts, for multilingual models."})
    resize_position_embeddings: bool | None = field(
        default=None, metadata={"help": "Let a model take longer texts than it was made for, where it can."}
    )


def rows() -> list[dict[str, str]]:
    """Return 60 invented reports and what they come to."""
    who = ("The council", "Our team", "The school", "A small company", "The orchestra")
    what = ("build a bridge", "plant trees", "buy new bicycles", "open a library")
    when = ("Monday", "Wednesday", "Friday")
    return [
        {
            "document": f"{one} met on {day}. The weather was fine and many came. After a long talk it was decided to "
            f"{plan}. The next meeting will be in a month.",
            "summary": f"{one} will {plan}.",
        }
        for one, plan, day in product(who, what, when)
    ]


def small_model(**sizes: Any) -> T5ForConditionalGeneration:
    # A T5 counts distances, not positions: it knows no longest text.
    del sizes["max_position_embeddings"]
    return T5ForConditionalGeneration(T5Config(d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, **sizes))


def rouge(written: list[str], references: list[str]) -> dict[str, float]:
    """Return the F-measures of ROUGE in percent."""
    scores = rouge_score(written, references, rouge_keys=("rouge1", "rouge2", "rougeL"))
    return {name.removesuffix("_fmeasure"): 100 * float(scores[name]) for name in scores if name.endswith("_fmeasure")}


def columns_of(data: SummarizationArguments, names: list[str]) -> tuple[str, str]:
    """Return the columns of texts and summaries; leave with a message where they are not there."""
    found = []
    for flag, asked, usual in (
        ("--text_column", data.text_column, TEXTS),
        ("--summary_column", data.summary_column, SUMMARIES),
    ):
        column = asked or next((name for name in usual if name in names), None)
        if column not in names:
            sys.exit(f"{flag}={asked}: write one of the columns {', '.join(names)}.")
        found.append(column)
    return found[0], found[1]


def texts_of(text: str, summary: str, sample: dict[str, Any]) -> tuple[str, str]:
    """Return a text and its summary, the first of several."""
    first = sample[summary]
    return sample[text], first[0] if isinstance(first, list) else first


def make_room(model: Any, data: SummarizationArguments) -> None:
    """Let the model take texts of `max_source_length`, or leave with a message."""
    room = getattr(model.config, "max_position_embeddings", None)
    if room is None or room >= data.max_source_length:
        return
    if data.resize_position_embeddings is False:
        sys.exit(
            f"--max_source_length={data.max_source_length}, and the model takes {room} positions. Write {room}, or "
            "--resize_position_embeddings."
        )
    model.resize_position_embeddings(data.max_source_length)


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, SummarizationArguments, Seq2SeqTrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "scitldr_a", rows)
    texts = partial(texts_of, *columns_of(data_args, next(iter(splits.values())).column_names))
    model, tokenizer = load(model_args, data_args, splits, texts, small_model)
    set_languages(tokenizer, data_args.lang, data_args.lang)
    make_room(model, data_args)
    return train_and_score(args, data_args, (model, tokenizer), splits, texts, rouge)


if __name__ == "__main__":
    main(sys.argv[1:])
