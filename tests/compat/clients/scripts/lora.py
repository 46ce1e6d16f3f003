"""An adapter trained with PEFT and the original's Trainer: saved, resumed, merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from tests.compat.clients.scripts.tiny import causal_model, sentence, tokenizer


def train(start: str, folder: Path, *, resume: bool | str = False, **settings: Any) -> Trainer:
    from transformers import AutoModelForCausalLM

    words = tokenizer()
    rows = Dataset.from_dict({"text": [sentence(number, 4 + number % 6) for number in range(28)]})
    rows = rows.map(lambda batch: words(batch["text"]), batched=True, remove_columns="text")
    torch.manual_seed(1)
    adapter = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32), adapter)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=5e-2,
        logging_steps=1,
        eval_strategy="epoch",
        save_steps=2,
        load_best_model_at_end=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
        train_dataset=rows.select(range(24)),
        eval_dataset=rows.select(range(24, 28)),
        processing_class=words,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def main(root: Path) -> None:
    start = str(root / "start")
    causal_model().save_pretrained(start)
    seen: dict[str, Any] = {}
    trainer = train(start, root / "run")
    seen["logs"] = [*trainer.state.log_history]
    seen["evaluated"] = trainer.evaluate()
    adapter = root / "final"
    trainer.save_model(str(adapter))
    seen["files"] = sorted(path.name for path in adapter.iterdir() if path.suffix == ".safetensors")
    seen["resumed"] = train(start, root / "run", resume=str(root / "run" / "checkpoint-2")).state.log_history
    seen["checkpointed"] = train(start, root / "saving", gradient_checkpointing=True).state.log_history

    merged = AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype=torch.float32).merge_and_unload()
    words = tokenizer()(sentence(3, 8), return_tensors="pt")
    with torch.no_grad():
        seen["merged"] = merged.eval()(words["input_ids"]).logits[0, -1].tolist()
        seen["trained"] = trainer.model.eval()(words["input_ids"]).logits[0, -1].tolist()
    merged.save_pretrained(str(root / "merged"))
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
