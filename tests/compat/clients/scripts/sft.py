"""Supervised fine-tuning with TRL, as a user writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from tests.compat.clients.scripts.tiny import causal_model, sentence, tokenizer


def train(folder: Path, *, resume: str | None = None, adapter: LoraConfig | None = None, **settings: Any) -> SFTTrainer:
    rows = Dataset.from_dict({"text": [sentence(number, 4 + number % 9) for number in range(24)]})
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=6,
        learning_rate=1e-2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        max_length=16,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = SFTTrainer(
        model=causal_model(),
        args=arguments,
        train_dataset=rows.select(range(20)),
        eval_dataset=rows.select(range(20, 24)),
        processing_class=tokenizer(),
        peft_config=adapter,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def main(root: Path) -> None:
    adapter = LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    cases: dict[str, dict[str, Any]] = {
        "padded": {},
        "packed": {"packing": True},
        "adapter": {"adapter": adapter},
    }
    seen = {}
    for name, settings in cases.items():
        folder = root / name
        trainer = train(folder, **settings)
        trainer.save_model(str(folder / "final"))
        seen[name] = {"logs": [*trainer.state.log_history], "evaluated": trainer.evaluate()}
        resumed = train(folder, resume=str(folder / "checkpoint-3"), **settings)
        seen[name]["resumed"] = resumed.state.log_history
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
