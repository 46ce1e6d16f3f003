"""A stream of `datasets`, shuffled through a buffer and mapped while it is read, as a user trains on one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from tests.compat.clients.scripts.tiny import causal_model, sentence, tokenizer


def train(folder: Path, *, shuffled: bool, resume: str | None = None, **settings: Any) -> Trainer:
    words = tokenizer()
    rows = Dataset.from_dict({"text": [sentence(number, 4 + number % 6) for number in range(26)]})
    stream = rows.select(range(22)).to_iterable_dataset(num_shards=2)
    if shuffled:
        stream = stream.shuffle(seed=3, buffer_size=8)
    stream = stream.map(lambda row: words(row["text"]), remove_columns=["text"])
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=4,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = Trainer(
        model=causal_model(),
        args=arguments,
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
        train_dataset=stream,
        eval_dataset=rows.select(range(22, 26)).to_iterable_dataset().map(lambda row: words(row["text"])),
        processing_class=words,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def main(root: Path) -> None:
    seen: dict[str, Any] = {}
    cases: dict[str, dict[str, Any]] = {
        "in order": {"shuffled": False},
        "shuffled": {"shuffled": True},
        "workers": {"shuffled": True, "dataloader_num_workers": 2},
    }
    for name, settings in cases.items():
        folder = root / name.replace(" ", "_")
        seen[name] = {"logs": train(folder, **settings).state.log_history}
        resumed = train(folder, resume=str(folder / "checkpoint-4"), **settings)
        seen[name]["resumed"] = resumed.state.log_history
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
