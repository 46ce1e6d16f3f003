"""Leaving columns out before collating, as the original's collator does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any


class RemoveColumnsCollator:
    """Calls `data_collator` with samples that have only the names in `signature_columns`.

    Samples that are no dictionary pass as they are. With a `logger` and a `model_name` the first sample that loses
    something is told, at info level. The trainer's own is `surestep.data.columns.ColumnFilter`, which also refuses a
    dataset that would lose its inputs or labels.
    """

    def __init__(
        self,
        data_collator: Callable[[list[Any]], Any],
        signature_columns: Collection[str],
        logger: logging.Logger | None = None,
        model_name: str | None = None,
        description: str | None = None,
    ) -> None:
        self.data_collator = data_collator
        self.signature_columns = signature_columns
        self.logger = logger
        self.model_name = model_name
        self.description = description
        self.message_logged = False

    def __call__(self, features: list[Any]) -> Any:
        """Collate the samples without the columns that are not named."""
        return self.data_collator([self._remove_columns(feature) for feature in features])

    def _remove_columns(self, feature: Any) -> Any:
        if not isinstance(feature, dict):
            return feature
        ignored = [name for name in feature if name not in self.signature_columns]
        if ignored and self.logger is not None and self.model_name and not self.message_logged:
            self.message_logged = True
            where = f"{self.description} set" if self.description else "dataset"
            self.logger.info(
                "The %s has columns that %s.forward does not take, and they are left out: %s.",
                *(where, self.model_name, ", ".join(ignored)),
            )
        return {name: value for name, value in feature.items() if name in self.signature_columns}
