"""Predictions in a folder: safetensors of so many samples, and an index, written rank by rank and read back.

```
<folder>/
  predictions-00000-00000.safetensors   rank, number: the outputs of some samples, and `positions`, their numbers
  predictions-00001-00000.safetensors
  predictions.json                      what the outputs are called, and which files there are
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surestep.errors import DataError
from surestep.metrics.blocks import Blocks, apart
from surestep.metrics.prediction import PredictionOutput
from surestep.metrics.ranks import Ranks

INDEX = "predictions.json"
_POSITIONS = "positions"
# A file has about so many bytes: they are held in memory until it is written.
_SHARD_BYTES = 256 * 2**20


class ShardWriter:
    """Writes this rank's outputs, a file whenever enough have come; `finish` writes the index, on the main process.

    The folder is made; one that holds an index already is refused, so that no two predictions are mixed.
    """

    def __init__(
        self, folder: str | Path, rank: int = 0, *, padding: int = -100, shard_bytes: int = _SHARD_BYTES
    ) -> None:
        self.folder, self.rank, self.padding = Path(folder), rank, padding
        self._bytes = shard_bytes
        self._held: list[dict[str, Tensor]] = []
        self._blocks = Blocks()
        self._size = self._files = self._samples = 0
        self._structure: Any = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / INDEX).exists():
            raise DataError(f"output_dir={str(folder)!r} holds predictions already. Give another folder, or empty it.")

    def add(self, outputs: Mapping[str, Any], positions: Any) -> None:
        """Take the outputs of a batch, each a nested structure of tensors, and the numbers of its samples."""
        given = {name: value for name, value in outputs.items() if value is not None}
        if not given:
            return
        self._structure = _structure(given)
        tensors = {name: _rows(value) for name, value in _flat(given)}
        kept = {name: self._blocks.keep_tensor(apart(value.detach().cpu())) for name, value in tensors.items()}
        self._held.append({**kept, _POSITIONS: torch.as_tensor(positions, dtype=torch.int64)})
        self._samples += len(positions)
        self._size += sum(value.numel() * value.element_size() for value in kept.values())
        if self._size >= self._bytes:
            self._write()

    def _write(self) -> None:
        from safetensors.torch import save_file

        if not self._held:
            return
        columns = {name: [batch[name] for batch in self._held] for name in self._held[0]}
        joined = {name: _joined(parts, self.padding) for name, parts in columns.items()}
        self._held.clear()
        self._blocks = Blocks()
        save_file(joined, self.folder / _file_name(self.rank, self._files))
        self._files, self._size = self._files + 1, 0

    def abandon(self) -> None:
        """Remove what this rank has written; predictions that did not come to their end are none."""
        for number in range(self._files + 1):
            (self.folder / _file_name(self.rank, number)).unlink(missing_ok=True)
        self._held.clear()
        with suppress(OSError):
            # Only where nothing else is in it.
            self.folder.rmdir()

    def finish(self, ranks: Ranks) -> None:
        """Write what is left, wait for the other ranks, and let the main process write the index."""
        self._write()
        counts = ranks.agree(self._files)
        samples = sum(ranks.agree(self._samples))
        structures = [one for one in ranks.gather_objects(self._structure) if one is not None]
        if ranks.world.is_main:
            index = {
                "samples": samples,
                "padding": self.padding,
                "outputs": structures[0] if structures else {},
                "files": [_file_name(rank, number) for rank, count in enumerate(counts) for number in range(count)],
            }
            (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        ranks.agree(0)


@dataclass(frozen=True)
class StoredPredictions:
    """Predictions that `Trainer.predict(..., output_dir=folder)` wrote.

    `len` is the number of samples. Iterating gives one file after the other, as `(positions, outputs)`; `load` puts all
    of it together.
    """

    folder: Path
    samples: int
    files: list[str]
    _padding: int = field(repr=False)
    _outputs: Any = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> StoredPredictions:
        """Read the index of a folder."""
        path = Path(folder) / INDEX
        if not path.exists():
            raise DataError(
                f"{str(folder)!r} holds no {INDEX}: nothing was predicted into it, or the prediction did not end. Give "
                "the folder that was output_dir."
            )
        index = json.loads(path.read_text(encoding="utf-8"))
        return cls(Path(folder), index["samples"], index["files"], index["padding"], index["outputs"])

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        from safetensors.torch import load_file

        for name in self.files:
            tensors = load_file(self.folder / name)
            yield tensors.pop(_POSITIONS), _filled(self._outputs, tensors)

    def load(self) -> PredictionOutput:
        """Return predictions and labels as arrays in the order of the dataset; bfloat16 becomes float32."""
        places, parts = [], []
        for positions, outputs in self:
            places.append(positions)
            parts.append(dict(_flat(outputs)))
        if not parts:
            return PredictionOutput(None, None, None)
        order = torch.cat(places).argsort()
        columns = {name: _joined([part[name] for part in parts], self._padding)[order] for name in parts[0]}
        whole = _filled(self._outputs, {name: _array(value) for name, value in columns.items()})
        return PredictionOutput(whole.get("predictions"), whole.get("label_ids"), None)


def load_predictions(folder: str | Path) -> PredictionOutput:
    """Return what `Trainer.predict(..., output_dir=folder)` wrote, as it would have returned it; metrics are None."""
    return StoredPredictions.open(folder).load()


def _file_name(rank: int, number: int) -> str:
    return f"predictions-{rank:05}-{number:05}.safetensors"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every tensor with its path, such as `predictions/0`."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, tuple | list):
        pairs = list(enumerate(value))
    else:
        yield name, value
        return
    for key, inner in pairs:
        yield from _flat(inner, f"{name}/{key}" if name else str(key))


def _structure(value: Any, name: str = "") -> Any:
    """Return a nesting of dicts and lists with the paths of the tensors in it; tuples are read back as tuples."""
    if isinstance(value, Mapping):
        return {str(key): _structure(inner, f"{name}/{key}" if name else str(key)) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_structure(inner, f"{name}/{place}") for place, inner in enumerate(value)]
    return name


def _filled(structure: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(structure, dict):
        return {key: _filled(inner, tensors) for key, inner in structure.items()}
    if isinstance(structure, list):
        return tuple(_filled(inner, tensors) for inner in structure)
    return tensors[structure]


def _rows(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise DataError(
            f"predict(output_dir=...) writes tensors, and the outputs hold a {type(value).__name__}. Leave it out with "
            "ignore_keys, or predict without output_dir."
        )
    return value.reshape(1) if value.ndim == 0 else value


def _joined(parts: list[Tensor], padding: int) -> Tensor:
    """Concatenate along samples; shorter second dimensions are padded on the right."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=0)
    return torch.cat([part if part.ndim < 2 else _as_wide(part, width, padding) for part in parts]).contiguous()


def _as_wide(part: Tensor, width: int, padding: int) -> Tensor:
    if part.shape[1] == width:
        return part
    room = [0, 0] * (part.ndim - 2) + [0, width - part.shape[1]]
    return nn.functional.pad(part, room, value=padding)


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return array
