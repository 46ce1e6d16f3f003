"""More of TRL, as users write it: a reward model, unpaired preferences, rewards by a function, chats from a stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaForSequenceClassification
from trl import GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from tests.compat.clients.scripts.tiny import causal_model, sentence, tokenizer

NUMBERS = range(12)
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "max_steps": 3,
    "logging_steps": 1,
    "save_steps": 2,
    "learning_rate": 1e-2,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
}
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }} </s> "
    "{% endgeneration %}{% else %}<s> {{ message['content'] }} {% endif %}{% endfor %}"
)


def log_of(trainer: Any) -> list[dict[str, Any]]:
    trainer.train()
    log: list[dict[str, Any]] = trainer.state.log_history
    return log


def reward_model(folder: Path) -> Any:
    config = causal_model().config
    config.num_labels = 1
    torch.manual_seed(0)
    rows = {"chosen": [sentence(n, 4) for n in NUMBERS], "rejected": [sentence(n + 1, 4) for n in NUMBERS]}
    trainer = RewardTrainer(
        LlamaForSequenceClassification(config),
        RewardConfig(str(folder), max_length=16, **SETTINGS),
        train_dataset=Dataset.from_dict(rows),
        eval_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer(),
    )
    return [log_of(trainer), trainer.evaluate()]


def unpaired(folder: Path) -> Any:
    rows = {
        "prompt": [sentence(number, 4) for number in NUMBERS],
        "completion": [" " + sentence(number + 1, 4) for number in NUMBERS],
        "label": [number % 2 == 0 for number in NUMBERS],
    }
    arguments = KTOConfig(str(folder), max_length=16, **SETTINGS)
    trainer = KTOTrainer(
        causal_model(),
        ref_model=causal_model(),
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer(),
    )
    return log_of(trainer)


def length_of(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) % 5) for text in completions]


def generated(folder: Path) -> Any:
    arguments = GRPOConfig(
        str(folder), num_generations=2, max_completion_length=6, gradient_accumulation_steps=2, **SETTINGS
    )
    trainer = GRPOTrainer(
        causal_model(),
        reward_funcs=length_of,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [sentence(number, 4) for number in NUMBERS]}),
        processing_class=tokenizer(padding_side="left"),
    )
    return log_of(trainer)


def chats(folder: Path) -> Any:
    words = tokenizer()
    words.chat_template = CHAT
    rows = [
        [{"role": "user", "content": sentence(n, 4)}, {"role": "assistant", "content": sentence(n + 1, 4)}]
        for n in NUMBERS
    ]
    arguments = SFTConfig(
        str(folder),
        max_length=16,
        assistant_only_loss=True,
        include_num_input_tokens_seen="all",
        neftune_noise_alpha=5.0,
        **SETTINGS,
    )
    stream = Dataset.from_dict({"messages": rows}).to_iterable_dataset()
    return log_of(SFTTrainer(causal_model(), args=arguments, train_dataset=stream, processing_class=words))


def main(root: Path) -> None:
    seen = {make.__name__: make(root / make.__name__) for make in (reward_model, unpaired, generated, chats)}
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
