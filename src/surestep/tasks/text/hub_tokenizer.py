"""The tokenizer of a transformers model folder, as an input form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surestep.errors import ModelError
from surestep.optional import require
from surestep.tasks.text.batches import TextInputs


class HubTokenizer(TextInputs):
    """Texts to numbers by the folder's own tokenizer, cut off at `max_length`."""

    def __init__(self, folder: Path, max_length: int) -> None:
        transformers = require("transformers", "model.name='pretrained'")
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"model.path: {folder} holds no tokenizer that can be read: {error}") from error
        self.max_length = min(max_length, self.tokenizer.model_max_length)
        self.pad_id = self.tokenizer.pad_token_id or 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        numbers: list[list[int]] = encoded["input_ids"]
        return numbers

    def describe(self) -> dict[str, Any]:
        """Return what is not in the tokenizer's own files, which `save` writes."""
        return {"tokenizer": "transformers", "max_length": self.max_length}

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(folder)
