"""A tokenizer and models made on the spot, small enough to train in seconds."""

from __future__ import annotations

from typing import Any

import torch

WORDS = [
    "the", "a", "cat", "dog", "bird", "sees", "likes", "finds", "small", "big", "red",
    "blue", "tree", "house", "river", "and", "then", "quickly", "slowly", "now",
]  # fmt: skip
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")


def sentence(number: int, length: int) -> str:
    """Return the sentence of this number: words in an order that depends on nothing else."""
    return " ".join(WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(length))


def tokenizer(**extra: Any) -> Any:
    """Return a tokenizer of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **names, **extra)


def causal_model(seed: int = 0) -> Any:
    """Return a small Llama with weights of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return LlamaForCausalLM(config)


def encoder(folder: str, seed: int = 0) -> Any:
    """Write a small BERT and its tokenizer into `folder`, and return a sentence encoder of it that averages words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    words = Transformer(folder)
    return SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu")
