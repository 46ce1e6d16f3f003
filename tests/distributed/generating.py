"""What runs on every rank: generation whose lengths differ, and loaders that a user prepares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from surestep import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer
from tests.distributed.training import Sentences, Tagger, arguments
from tests.parity.sequences import Pairs, bart, tokenizer


def generated(folder: Path) -> dict[str, Any]:
    settings = {"predict_with_generate": True, "generation_max_length": 6, "per_device_eval_batch_size": 2}
    args = Seq2SeqTrainingArguments(str(folder / "out"), use_cpu=True, disable_tqdm=True, report_to="none", **settings)
    torch.manual_seed(0)
    words, model = tokenizer(), bart()
    collator = DataCollatorForSeq2Seq(words, model=model)
    output = Seq2SeqTrainer(model, args, processing_class=words, data_collator=collator).predict(Pairs(7))
    return {"predictions": torch.as_tensor(output.predictions), "labels": torch.as_tensor(output.label_ids)}


def prepared(folder: Path) -> dict[str, Any]:
    trainer = Trainer(Tagger(), arguments(folder, "prepared"), train_dataset=Sentences())
    plain = trainer.accelerator.prepare(DataLoader(Sentences(), batch_size=3, shuffle=True))
    own = BatchSampler(SequentialSampler(Sentences()), 3, drop_last=False)
    batched = trainer.accelerator.prepare(DataLoader(Sentences(), batch_sampler=own))
    return {
        "plain": [batch["number"].tolist() for batch in plain],
        "batched": [batch["number"].tolist() for batch in batched],
        "summed": trainer.accelerator.reduce(torch.tensor([1.0, 2.0])),
        "gathered": trainer.accelerator.gather(torch.full((2,), float(trainer.args.process_index))),
    }


def work(folder: Path) -> dict[str, Any]:
    """Generate, and prepare."""
    return {"generated": generated(folder), "prepared": prepared(folder)}
