"""Translation: teach an encoder-decoder pairs of sentences, and count BLEU on what it writes.

    python examples/translation.py --do_train --do_eval --predict_with_generate --source_lang en --target_lang de \
        --max_source_length 64 --max_target_length 64 --num_beams 4 --learning_rate 1e-3 --output_dir runs/translation

The flags are those of the script of the same purpose that comes with transformers. Files hold a column `translation`,
{"en": "A dog.", "de": "Ein Hund."}, or a column for each language. Without --model_name_or_path a small Marian model
is made anew, with a tokenizer learnt from the data. BLEU is torchmetrics' count of sacreBLEU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from torchmetrics.functional.text import sacre_bleu_score
from transformers import MarianConfig, MarianMTModel

from common import ModelArguments, parse, read_splits
from sequences import SequenceArguments, load, set_languages, train_and_score
from surestep import Seq2SeqTrainingArguments, seed_everything


@dataclass
class TranslationArguments(SequenceArguments):
    """Which languages, besides which data."""

    source_lang: str = field(default="en", metadata={"help": "Language to translate from; a column of the data."})
    target_lang: str = field(default="de", metadata={"help": "Language to translate to; a column of the data."})


def rows() -> list[dict[str, str]]:
    """Return 60 invented pairs."""
    who = {"a man": "ein Mann", "a woman": "eine Frau", "a dog": "ein Hund", "the girl": "das Mädchen", "he": "er"}
    does = {"sleeps": "schläft", "runs": "rennt", "plays": "spielt", "waits": "wartet"}
    where = {"in the park": "im Park", "at home": "zu Hause", "on the beach": "am Strand"}
    return [
        {"en": " ".join(english), "de": " ".join(german)}
        for english, german in (
            zip(*triple, strict=True) for triple in product(who.items(), does.items(), where.items())
        )
    ]


def small_model(**sizes: Any) -> MarianMTModel:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    widths = {"d_model": 128, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "scale_embedding": True}
    return MarianMTModel(MarianConfig(**layers, **widths, **sizes, forced_eos_token_id=None))


def bleu(written: list[str], references: list[str]) -> dict[str, float]:
    """Return BLEU in percent."""
    return {"bleu": 100 * float(sacre_bleu_score(written, [[text] for text in references]))}


def main(argv: list[str]) -> dict[str, float]:
    model_args, data_args, args = parse(argv, ModelArguments, TranslationArguments, Seq2SeqTrainingArguments)
    seed_everything(args.seed)
    splits = read_splits(data_args, model_args, "multi30k_en_de", rows)
    source, target = (name.split("_")[0] for name in (data_args.source_lang, data_args.target_lang))

    def texts(sample: dict[str, Any]) -> tuple[str, str]:
        pair = sample.get("translation", sample)
        return pair[source], pair[target]

    loaded = load(model_args, data_args, splits, texts, small_model)
    set_languages(loaded[1], data_args.source_lang, data_args.target_lang)
    return train_and_score(args, data_args, loaded, splits, texts, bleu)


if __name__ == "__main__":
    main(sys.argv[1:])
