"""A model's special tokens follow its tokenizer's: what ends, begins and pads a text is one id in both."""

from __future__ import annotations

from typing import Any

from surestep.logs import get_logger

_logger = get_logger(__name__)

# Of several ids that end a text each does, so the tokenizer's comes first and the others stay.
_ENDS = "eos_token_id"
_NAMES = (_ENDS, "bos_token_id", "pad_token_id")


def align_special_tokens(model: Any, processing_class: Any) -> None:
    """Write the tokenizer's special tokens into the model's configurations, and warn of what that changed.

    Done when training begins, as in the original. A token that the tokenizer lacks stays as the model has it; a
    `processing_class` without tokens, or a model without a configuration, is left alone.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    config = getattr(model, "config", None)
    if config is None or not hasattr(tokenizer, _ENDS):
        return
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    generation = getattr(model, "generation_config", None)
    changed = {
        name: token
        for name in _NAMES
        if (token := getattr(tokenizer, name, None)) is not None and _align(name, token, config, generation)
    }
    if changed:
        listed = ", ".join(f"{name}={token}" for name, token in changed.items())
        _logger.warning("The tokenizer's special tokens are not the model's; its configurations now have %s.", listed)


def _align(name: str, token: int, config: Any, generation: Any) -> bool:
    """Write a token where it is not known; say whether that changed anything."""
    in_config = getattr(config, name, None)
    known = [in_config] if generation is None else [in_config, getattr(generation, name)]
    if all(token in ids if isinstance(ids, list) else token == ids for ids in known):
        return False
    several = name == _ENDS
    setattr(config, name, _joined(token, in_config) if several and isinstance(in_config, list) else token)
    if generation is not None:
        setattr(generation, name, _joined(token, getattr(generation, name)) if several else token)
    return True


def _joined(token: int, ids: Any) -> list[int]:
    others = ids if isinstance(ids, list) else [ids]
    return [token, *(other for other in others if other is not None and other != token)]
