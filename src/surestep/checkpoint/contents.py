"""What a checkpoint holds, ours or the original's, without a model to load it into. Tensors are windows on files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from surestep.checkpoint import layout
from surestep.checkpoint.files import files_in
from surestep.checkpoint.foreign.files import OPTIMIZER, SCALER, SCHEDULER
from surestep.checkpoint.foreign.pickles import read_pickle
from surestep.checkpoint.foreign.weights import read_state_dict
from surestep.checkpoint.tensors import read_tensors
from surestep.checkpoint.tree import read_tree, trees_in
from surestep.errors import CheckpointError

# What the original pickles, by the name that the same part has here.
_PICKLED_WEIGHTS = ("pytorch_model", "adapter_model")
_PICKLED = {OPTIMIZER: layout.OPTIMIZER, SCHEDULER: layout.SCHEDULER, SCALER: layout.SCALER}


@dataclass(frozen=True)
class Contents:
    """The parts of one checkpoint. Each is read when it is asked for.

    Raises:
        CheckpointError: a file is damaged, or asks for code.
    """

    folder: Path

    def weights(self) -> dict[str, Any]:
        """Return every stored weight by its name; below another folder with that before it, as adapters are."""
        found: dict[str, Any] = {}
        for path in self._weight_files():
            read = read_state_dict if path.suffix == ".bin" else partial(read_tensors, mapped=True)
            place = path.parent.relative_to(self.folder)
            within = "" if place == Path() else f"{place.as_posix()}/"
            found |= {f"{within}{name}": tensor for name, tensor in read(path).items()}
        return found

    def _weight_files(self) -> Iterator[Path]:
        """Yield the files of weights, but for those of checkpoints within, which a run's folder has."""
        trees = {f"{name}.safetensors" for name in trees_in(self.folder)}
        for path in files_in(self.folder):
            if any(layout.step_of(parent) is not None for parent in path.relative_to(self.folder).parents):
                continue
            pickled = path.suffix == ".bin" and path.name.startswith(_PICKLED_WEIGHTS)
            if pickled or (path.suffix == ".safetensors" and path.name not in trees):
                yield path

    def trees(self) -> dict[str, Any]:
        """Return the state besides the weights, by part: optimizer, schedule, progress, generators."""
        ours = {name: read_tree(self.folder, name, mapped=True) for name in trees_in(self.folder)}
        paths = {name: self.folder / file for file, name in _PICKLED.items()}
        paths |= {path.stem: path for path in self.folder.glob("rng_state*.pth")}
        theirs = {name: read_pickle(path) for name, path in paths.items() if path.is_file()}
        return ours | theirs

    def state(self) -> dict[str, Any]:
        """Return what `trainer_state.json` says, empty where there is none."""
        return self._json(layout.TRAINER_STATE) or {}

    def arguments(self) -> dict[str, Any] | None:
        """Return the arguments of the training; None where nothing tells them but a pickle, which is not read."""
        return self._json(layout.TRAINING_ARGUMENTS)

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return found if isinstance(found, dict) else None


def contents_of(folder: Path) -> Contents:
    """Return what a folder holds that is a checkpoint, or a model.

    Raises:
        CheckpointError: it is none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"'{folder}' is no folder. Name a checkpoint-<step> folder.")
    contents = Contents(folder)
    if not any((folder / name).exists() for name in (layout.TRAINER_STATE, layout.MANIFEST)) and not contents.weights():
        inner = layout.checkpoints_in(folder)
        hint = f" It holds {', '.join(path.name for path in inner[-3:])}: name one of them." if inner else ""
        raise CheckpointError(f"'{folder}' holds no checkpoint: no state, no manifest, no weights.{hint}")
    return contents


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value within nested dicts, lists and tuples with its path, such as `state.first.weight.exp_avg`.

    Lists of nothing but numbers, such as the state of a generator, are one value.
    """
    if isinstance(value, Mapping) and value:
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple) and not all(isinstance(item, int | float) for item in value):
        parts = [(str(place), part) for place, part in enumerate(value)]
    else:
        yield name, value
        return
    for key, part in parts:
        yield from leaves(part, f"{name}.{key}" if name else key)
