"""Preference training with TRL, as a user writes it: from a folder, also with reference figures made beforehand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from tests.compat.clients.scripts.tiny import causal_model, sentence, tokenizer


def train(
    model: str, folder: Path, *, resume: str | None = None, adapter: LoraConfig | None = None, **settings: Any
) -> DPOTrainer:
    numbers = range(20)
    rows = Dataset.from_dict(
        {
            "prompt": [sentence(number, 3) for number in numbers],
            "chosen": [" " + sentence(number + 1, 2 + number % 4) for number in numbers],
            "rejected": [" " + sentence(number + 2, 2 + number % 3) for number in numbers],
        }
    )
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
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
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.select(range(16)),
        eval_dataset=rows.select(range(16, 20)),
        peft_config=adapter,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def main(root: Path) -> None:
    model = str(root / "start")
    causal_model().save_pretrained(model)
    tokenizer().save_pretrained(model)
    seen = {}
    cases: dict[str, dict[str, Any]] = {
        "reference": {},
        "precomputed": {"precompute_ref_log_probs": True},
        "adapter": {"adapter": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")},
    }
    for name, settings in cases.items():
        folder = root / name
        trainer = train(model, folder, **settings)
        trainer.save_model(str(folder / "final"))
        seen[name] = {"logs": [*trainer.state.log_history], "evaluated": trainer.evaluate()}
    resumed = train(model, root / "reference", resume=str(root / "reference" / "checkpoint-3"))
    seen["reference"]["resumed"] = resumed.state.log_history
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
