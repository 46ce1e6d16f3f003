"""What a trainer asks of a model that generates: its settings, and the arguments of `generate`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from surestep.errors import ArgumentError, ModelError
from surestep.optional import require

# How many positions a model of transformers generates where nothing says it.
_DEFAULT_LENGTH = 20


def load_generation_config(source: Any) -> Any:
    """Return generation settings that are fit to be saved.

    `source` is a `GenerationConfig` (a copy is returned), its fields as a mapping, the path of its file, or a folder
    or name to load it from.

    Raises:
        ArgumentError: nothing is found there, or the settings contradict each other.
    """
    if isinstance(source, str | os.PathLike):
        config = _read(source)
    elif isinstance(source, Mapping):
        config = require("transformers", "A generation_config").GenerationConfig.from_dict(dict(source))
    else:
        config = deepcopy(source)
    _validate(config, "Correct generation_config before training: a model with it cannot be saved.")
    return config


def _read(source: str | os.PathLike[str]) -> Any:
    kind = require("transformers", "Loading a generation_config").GenerationConfig
    path = Path(source)
    try:
        return kind.from_pretrained(path.parent, path.name) if path.is_file() else kind.from_pretrained(source)
    except OSError as error:
        raise ArgumentError(
            f"generation_config={os.fspath(source)!r} leads to no generation settings. Write the path of a "
            f"generation_config.json, of a folder that holds one, or the name of a model. {error}"
        ) from error


def _validate(config: Any, instead: str) -> None:
    if not callable(getattr(config, "validate", None)):
        return
    try:
        config.validate(strict=True)
    except ValueError as error:
        raise ArgumentError(f"{error}\n{instead}") from error


def check_generation_config(model: Any) -> None:
    """Raise what saving the model would raise about its generation settings.

    Models of transformers save them, if they generate. Settings that are as they were loaded can always be saved,
    contradictions included; adapters are saved without any.
    """
    generates = getattr(model, "can_generate", None)
    if not callable(generates) or not generates() or getattr(model, "peft_config", None):
        return
    config = getattr(model, "generation_config", None)
    loaded = getattr(config, "_original_object_hash", None)
    if loaded is None or loaded != hash(config):
        _validate(
            config,
            f"Correct generation_config of {type(model).__name__}, or write save_strategy='no': it cannot be saved.",
        )


def generated_width(config: Any, num_tokens: int) -> int:
    """Return how wide generated tokens, or the labels beside them, are to be: the longest that the settings name.

    `num_tokens` is what they have. Settings given for one evaluation do not count, as in the original.
    """
    if config is None:
        return num_tokens
    longest = _DEFAULT_LENGTH if config.max_length is None else config.max_length
    if num_tokens >= longest and config.max_new_tokens is not None:
        longest = config.max_new_tokens + 1
    return int(max(num_tokens, longest))


def generation_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model generates from: the batch without the decoder's inputs, where they came from the labels.

    With them it would go on from the end of the answer.
    """
    labels, start = batch.get("labels"), batch.get("decoder_input_ids")
    given = dict(batch)
    if labels is not None and start is not None and labels.shape == start.shape:
        del given["decoder_input_ids"]
        given.pop("decoder_attention_mask", None)
    return given


def arguments_of(
    generate: Callable[..., Any], inputs: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keywords to call `generate` with; a setting goes before an input of the same name.

    One that names its parameters gets those of the inputs that it names, as `forward` does.

    Raises:
        ModelError: it names none of the inputs.
        ArgumentError: it does not take one of the settings.
    """
    parameters = inspect.signature(generate).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return {**inputs, **settings}
    known = {name: value for name, value in inputs.items() if name in parameters}
    owner, takes = getattr(generate, "__qualname__", "generate"), ", ".join(parameters)
    if not known:
        raise ModelError(f"{owner} takes ({takes}) and the batch has ({', '.join(inputs)}). Give them common names.")
    for name, value in settings.items():
        if name not in parameters and value is not False:
            raise ArgumentError(f"{owner} takes no {name}={value!r}; it takes ({takes}).")
    return {**known, **{name: value for name, value in settings.items() if name in parameters}}
