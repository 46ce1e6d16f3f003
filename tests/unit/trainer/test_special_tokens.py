"""Special tokens of tokenizer and model: brought together when training begins, as by the original."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.small import line, quick
from transformers import GenerationConfig, GPT2Config, PreTrainedTokenizerFast
from transformers.trainer_utils import align_special_tokens as theirs

from surestep import default_data_collator
from surestep.trainer.special_tokens import align_special_tokens as ours


def tokenizer(**tokens: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {word: place for place, word in enumerate(("[a]", "[b]", "[c]", "[d]"))}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="[a]")), **tokens)


TOKENIZERS = {
    "all": {"eos_token": "[b]", "bos_token": "[c]", "pad_token": "[d]"},
    "pad alone": {"pad_token": "[d]"},
    "none": {},
}
CONFIGS = {"unset": (None, None, None), "the same": (1, 2, 3), "others": (0, 0, 0), "several ends": ([0, 1], 2, None)}
GENERATIONS = {"none": None, "empty": {}, "some": {"eos_token_id": [0, 2], "pad_token_id": 0}}


@pytest.mark.parametrize("tokens", TOKENIZERS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_configurations_become_what_they_become_there(tokens: str, config: str, generation: str) -> None:
    ids = dict(zip(("eos_token_id", "bos_token_id", "pad_token_id"), CONFIGS[config], strict=True))
    settings = GENERATIONS[generation]
    model = SimpleNamespace(
        config=GPT2Config(**ids), generation_config=None if settings is None else GenerationConfig(**settings)
    )
    other = copy.deepcopy(model)
    ours(model, tokenizer(**TOKENIZERS[tokens]))
    theirs(other, tokenizer(**TOKENIZERS[tokens]))

    assert model.config.to_dict() == other.config.to_dict()
    assert vars(model.generation_config or object) == vars(other.generation_config or object) or (
        model.generation_config.to_dict() == other.generation_config.to_dict()
    )


def test_what_has_no_tokens_is_left_alone() -> None:
    ours(line(), tokenizer(**TOKENIZERS["all"]))
    ours(SimpleNamespace(config=SimpleNamespace()), None)
    processor = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=5))
    model = SimpleNamespace(config=SimpleNamespace(eos_token_id=1))
    ours(model, processor)

    assert model.config.eos_token_id == 5


def test_training_begins_with_them_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = line()
    model.config = GPT2Config(pad_token_id=None)  # type: ignore[assignment]
    pads = tokenizer(**TOKENIZERS["pad alone"])
    trainer = quick(tmp_path, model=model, processing_class=pads, data_collator=default_data_collator, max_steps=1)
    assert model.config.pad_token_id is None
    trainer.train()

    assert model.config.pad_token_id == 3
    assert any("now have pad_token_id=3" in message for message in caplog.messages)
