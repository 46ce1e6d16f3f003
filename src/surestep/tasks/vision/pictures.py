"""Pictures as arrays: decoded, checked, brought to one size, and given out as normalised samples."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from surestep.errors import DataError
from surestep.optional import require
from surestep.tasks.labels import IntArray

Pixels = npt.NDArray[np.uint8]
# Decoded pictures are kept up to this size; beyond it they are decoded whenever they are asked for.
_BYTES_KEPT = 2 * 1024**3
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class PictureFormat:
    """The one form that every picture of a run is brought to, and the statistics it is normalised with (0 to 1).

    Other sizes are refused unless `resize`, pictures in colour unless there are 3 channels or they go `to_grey`.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: bool = False
    to_grey: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    def read(self, value: Any, folder: Path, place: str) -> Pixels:
        """Decode a picture to the shape (channels, height, width), or raise and name its `place`."""
        pixels = decode(value, folder, place, self.channels if self.to_grey or self.channels == 3 else None)
        if pixels.shape[2] != self.channels:
            raise DataError(
                f"{place}: this picture is in colour, others are grey. Write task.channels=3, or 1 to lose it."
            )
        if pixels.shape[:2] != (self.height, self.width):
            if not self.resize:
                raise DataError(
                    f"{place}: this picture is {pixels.shape[0]} pixels high and {pixels.shape[1]} wide, the first one "
                    f"{self.height} and {self.width}. Write task.image_size={self.height} to resize them all."
                )
            image = require("PIL.Image", "resizing pictures")
            resized = image.fromarray(pixels[:, :, 0] if self.channels == 1 else pixels).resize(
                (self.width, self.height), image.Resampling.BILINEAR
            )
            pixels = np.asarray(resized).reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def normalise(self, pixels: Pixels) -> Tensor:
        """Return pixels (..., channels, height, width) as float32, mean 0 and deviation 1 over the training data."""
        scale, offset = self._line
        return torch.from_numpy(np.ascontiguousarray(pixels)) * scale + offset

    @property
    def collate(self) -> None:
        """How samples become a batch: by stacking them."""

    def batch(self, values: Sequence[Any]) -> dict[str, Tensor]:
        """Return what the model takes for pictures in any of the forms that `decode` knows."""
        pixels = [self.read(value, Path(), f"picture {i}") for i, value in enumerate(values)]
        return {"pixel_values": self.normalise(np.stack(pixels))}

    def describe(self) -> dict[str, Any]:
        """Return the format as JSON can hold it; `PictureFormat(**description)` is the way back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        """Factor and summand of each channel that take a byte to its normalised value."""
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float64).view(2, self.channels, 1, 1)
        return (1.0 / (255.0 * std)).float(), (-mean / std).float()


def decode(value: Any, folder: Path, place: str, channels: int | None) -> Pixels:
    """Decode a picture to the shape (height, width, channels), with its own channels (1 or 3) when none are given.

    A picture is an array (height, width[, channels]) of values from 0 to 255, the bytes of a PNG or JPEG file, a path
    relative to `folder`, or the dictionary of bytes and path that the datasets library keeps.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, list):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return _with_channels(_checked_array(value, place), channels)
    if isinstance(value, str | Path):
        path = folder / value
        if not path.is_file():
            raise DataError(f"{place}: the picture {path} does not exist.")
        value = path.read_bytes()
    if not isinstance(value, bytes):
        raise DataError(f"{place}: expected a picture (file bytes, a path or an array), found {value!r:.40}.")
    return _decode_file(value, place, channels)


def _checked_array(array: npt.NDArray[Any], place: str) -> Pixels:
    right_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _MODES)
    numbers = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not right_shape or not array.size or not numbers:
        raise DataError(
            f"{place}: expected pixels of shape (height, width[, 1 or 3]), found {array.shape} {array.dtype}."
        )
    with np.errstate(invalid="ignore"):
        pixels = array.astype(np.uint8)
    if not np.array_equal(pixels, array):
        raise DataError(f"{place}: pixels must be whole numbers from 0 to 255, found {array.min()} to {array.max()}.")
    return pixels.reshape(*array.shape[:2], -1)


def _with_channels(pixels: Pixels, channels: int | None) -> Pixels:
    if channels is None or pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    # The luminance weights of ITU-R 601, which picture libraries use for grey as well.
    grey: Pixels = np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[:, :, None]
    return grey


def _decode_file(content: bytes, place: str, channels: int | None) -> Pixels:
    image = require("PIL.Image", "reading pictures")
    try:
        with image.open(io.BytesIO(content)) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"its mode is {opened.mode}; write pictures with 8 bits per channel")
            mode = _MODES[channels or (1 if opened.mode in {"1", "L", "LA"} else 3)]
            pixels = np.asarray(opened.convert(mode), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{place}: the picture cannot be read: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1)


class Pictures(Sequence[Pixels]):
    """The pictures of a split in one format; all are decoded once at the start, so that a damaged one is found then."""

    def __init__(self, values: Sequence[Any], form: PictureFormat, folder: Path, place: str) -> None:
        self._values, self._form, self._folder, self._place = values, form, folder, place
        keep = len(values) * math.prod(form.shape) <= _BYTES_KEPT
        self._kept: Pixels | None = np.empty((len(values), *form.shape), dtype=np.uint8) if keep else None
        for i in range(len(values)):
            pixels = self._read(i)
            if self._kept is not None:
                self._kept[i] = pixels

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._read(index) if self._kept is None else self._kept[index]

    def _read(self, index: int) -> Pixels:
        return self._form.read(self._values[index], self._folder, f"{self._place}, row {index}")


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training pictures, from torch's default generator, which the trainer seeds and restores."""

    shift: int = 0
    flip: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return the picture moved by up to `shift` pixels each way (the border repeated), and mirrored or not."""
        if self.flip and torch.rand(()).item() < 0.5:
            pixels = pixels[:, :, ::-1]
        if not self.shift:
            return pixels
        _, height, width = pixels.shape
        down, right = torch.randint(0, 2 * self.shift + 1, (2,)).tolist()
        padded = np.pad(pixels, ((0, 0), (self.shift, self.shift), (self.shift, self.shift)), mode="edge")
        return padded[:, down : down + height, right : right + width]


class PictureDataset(Dataset[dict[str, Tensor]]):
    """Samples with `pixel_values` of shape (channels, height, width) and `labels`, a class id."""

    def __init__(
        self, pictures: Pictures, label_ids: IntArray, form: PictureFormat, augment: Augmentation | None = None
    ) -> None:
        self._pictures, self._labels, self._form, self._augment = pictures, torch.from_numpy(label_ids), form, augment

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pixels = self._pictures[index]
        if self._augment is not None:
            pixels = self._augment(pixels)
        return {"pixel_values": self._form.normalise(pixels), "labels": self._labels[index]}
