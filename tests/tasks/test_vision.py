"""Pictures: every form in, one form out; the small networks that look at them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from surestep.errors import DataError, ModelError
from surestep.tasks.data.splits import Split, Splits
from surestep.tasks.data.table import Table
from surestep.tasks.labels import LabelSet
from surestep.tasks.settings import ImageClassification, Pretrained, ResidualNetwork, VisionTransformer
from surestep.tasks.vision import pictures as pictures_module
from surestep.tasks.vision.pictures import Augmentation, PictureDataset, PictureFormat, Pictures, decode
from surestep.tasks.vision.residual import ResidualNetworkModel
from surestep.tasks.vision.task import ImageClassificationTask
from surestep.tasks.vision.transformer import VisionTransformerModel

COLOURED = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
GREY = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("pixels", [COLOURED, GREY], ids=["coloured", "grey"])
def test_every_form_of_a_picture_decodes_to_the_same_pixels(pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(_png(pixels))
    forms: list[Any] = [
        pixels,
        pixels.astype(np.float64),
        pixels.tolist(),
        _png(pixels),
        Path("x.png"),
        "x.png",
        {"bytes": _png(pixels), "path": None},
        {"bytes": None, "path": "x.png"},
    ]
    expected = pixels.reshape(4, 6, -1)
    for form in forms:
        assert np.array_equal(decode(form, tmp_path, "here", None), expected)


def test_channels_are_made_as_the_picture_library_makes_them() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(decode(GREY, Path(), "here", 3), np.repeat(GREY[:, :, None], 3, axis=2))
    own = decode(noise, Path(), "here", 1)[:, :, 0].astype(int)
    library = np.asarray(Image.fromarray(noise).convert("L")).astype(int)
    assert np.abs(own - library).max() <= 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "expected a picture"),
        (b"not a picture", "the picture cannot be read"),
        ("gone.png", "gone.png does not exist"),
        (np.zeros((2, 2, 2)), "expected pixels of shape"),
        (np.zeros((0, 2)), "expected pixels of shape"),
        (np.zeros((2, 2), dtype=bool), "expected pixels of shape"),
        (np.full((2, 2), 0.5), "pixels must be whole numbers from 0 to 255, found 0.5 to 0.5"),
        (np.full((2, 2), 256), "found 256 to 256"),
        (np.full((2, 2), -1), "found -1 to -1"),
        (np.full((2, 2), np.nan), "found nan to nan"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_place(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        decode(value, tmp_path, "train data, row 3", None)
    assert str(caught.value).startswith("train data, row 3: ")
    assert said in str(caught.value)


def test_pictures_of_16_bits_are_refused_instead_of_clipped() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 60000, dtype=np.uint16)).save(buffer, format="PNG")
    with pytest.raises(DataError, match="8 bits per channel"):
        decode(buffer.getvalue(), Path(), "here", None)


def _format(**changes: Any) -> PictureFormat:
    return PictureFormat(**{"channels": 1, "height": 4, "width": 6, "mean": (0.5,), "std": (0.25,), **changes})


def test_other_sizes_are_refused_or_resized() -> None:
    small = GREY[:2, :3]
    with pytest.raises(DataError, match=r"2 pixels high and 3 wide, the first one 4 and 6\. Write task\.image_size=4"):
        _format().read(small, Path(), "here")
    assert _format(resize=True).read(small, Path(), "here").shape == (1, 4, 6)
    assert _format(resize=True, channels=3).read(COLOURED[:2], Path(), "here").shape == (3, 4, 6)


def test_colour_is_lost_only_when_asked_for() -> None:
    with pytest.raises(DataError, match="this picture is in colour"):
        _format().read(COLOURED, Path(), "here")
    assert _format(to_grey=True).read(COLOURED, Path(), "here").shape == (1, 4, 6)


def test_normalising_is_byte_to_number_then_mean_and_deviation() -> None:
    form = _format(channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6)).astype(np.uint8)
    expected = (pixels / 255.0 - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape([0.4, 0.5, 0.6], (3, 1, 1))
    assert form.normalise(pixels).dtype == torch.float32
    assert np.allclose(form.normalise(pixels).numpy(), expected, atol=1e-5)


def test_a_format_survives_its_description() -> None:
    form = _format(to_grey=True)
    assert ImageClassificationTask(ImageClassification()).read_inputs(form.describe(), Path()) == form
    with pytest.raises(ModelError, match="does not say in which format"):
        ImageClassificationTask(ImageClassification()).read_inputs({"channels": 1}, Path())


def test_pictures_that_do_not_fit_into_memory_are_decoded_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [_png(GREY), _png(GREY[::-1])]
    kept = Pictures(values, _format(), Path(), "here")
    monkeypatch.setattr(pictures_module, "_BYTES_KEPT", 10)
    lazy = Pictures(values, _format(), Path(), "here")
    assert lazy._kept is None
    assert len(kept) == len(lazy) == 2
    for index in range(2):
        assert np.array_equal(kept[index], lazy[index])


def test_a_damaged_picture_is_found_before_training() -> None:
    with pytest.raises(DataError, match="validation data, row 1"):
        Pictures([_png(GREY), b"damaged"], _format(), Path(), "validation data")


def test_augmentation_shifts_within_its_bounds_and_follows_the_seed() -> None:
    pixels = np.zeros((1, 5, 5), dtype=np.uint8)
    pixels[0, 2, 2] = 9
    augment = Augmentation(shift=1)
    torch.manual_seed(0)
    found = [tuple(np.argwhere(augment(pixels)[0] == 9)[0]) for _ in range(200)]
    torch.manual_seed(0)
    assert found == [tuple(np.argwhere(augment(pixels)[0] == 9)[0]) for _ in range(200)]
    assert set(found) == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_augmentation_repeats_the_border_and_mirrors_half() -> None:
    pixels = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)
    torch.manual_seed(0)
    shifted = {Augmentation(shift=1)(pixels).tobytes() for _ in range(100)}
    assert bytes([1, 1, 1, 1]) in shifted
    flipped = [Augmentation(flip=True)(pixels).tobytes() for _ in range(400)]
    assert set(flipped) == {bytes([1, 2, 3, 4]), bytes([2, 1, 4, 3])}
    assert 150 < flipped.count(bytes([2, 1, 4, 3])) < 250


def _splits(train: list[Any], other: list[Any] | None = None) -> Splits:
    def part(values: list[Any]) -> Split:
        return Split(Table({"image": values}, "here"), np.arange(len(values)) % 2)

    parts = {"train": part(train)} | ({"validation": part(other)} if other else {})
    return Splits(parts, LabelSet(("a", "b"), ("a", "b")))


def test_the_format_is_learnt_from_training_pictures_alone() -> None:
    train = [np.full((4, 6), value, dtype=np.uint8) for value in (0, 51, 102)]
    other = [np.full((4, 6), 255, dtype=np.uint8)]
    task = ImageClassificationTask(ImageClassification(random_shift=1))
    form = task.learn_inputs(_splits(train, other), "image", ResidualNetwork(), Path())
    assert form.shape == (1, 4, 6)
    assert form.mean == pytest.approx((0.2,))
    assert form.std == pytest.approx((math.sqrt((0.04 + 0 + 0.04) / 3),), abs=1e-6)


def test_statistics_are_those_of_each_channel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype(np.uint8)
    task = ImageClassificationTask(ImageClassification())
    form = task.learn_inputs(_splits(list(noise)), "image", ResidualNetwork(), Path())
    assert form.mean == pytest.approx(tuple(noise.mean(axis=(0, 1, 2)) / 255), abs=1e-6)
    assert form.std == pytest.approx(tuple(noise.std(axis=(0, 1, 2)) / 255), abs=1e-6)


def test_a_constant_channel_is_not_blown_up() -> None:
    task = ImageClassificationTask(ImageClassification())
    form = task.learn_inputs(_splits([GREY * 0 + 7] * 2), "image", ResidualNetwork(), Path())
    assert form.normalise(np.full((1, 4, 6), 8, dtype=np.uint8)).abs().max() <= 1.01


def test_grey_among_coloured_training_pictures_becomes_coloured() -> None:
    task = ImageClassificationTask(ImageClassification())
    splits = _splits([GREY, COLOURED])
    form = task.learn_inputs(splits, "image", ResidualNetwork(), Path())
    samples = task.samples(splits.train, "train", "image", form)
    assert samples[0]["pixel_values"].shape == (3, 4, 6)


def test_only_training_samples_are_augmented() -> None:
    values = [np.random.default_rng(i).integers(0, 256, (4, 6)).astype(np.uint8) for i in range(2)]
    splits = _splits(values, values)
    task = ImageClassificationTask(ImageClassification(random_shift=2, random_flip=True))
    form = task.learn_inputs(splits, "image", ResidualNetwork(), Path())
    train, judged = (task.samples(splits.parts[name], name, "image", form) for name in ("train", "validation"))
    assert isinstance(train, PictureDataset)
    drawn = [train[0]["pixel_values"] for _ in range(20)]
    assert any(not torch.equal(drawn[0], other) for other in drawn)
    assert all(torch.equal(judged[0]["pixel_values"], judged[0]["pixel_values"]) for _ in range(20))
    assert torch.equal(judged[0]["pixel_values"], form.normalise(values[0][None]))
    assert judged[1]["labels"].item() == 1


MODELS = [
    (ResidualNetwork(width=8, num_stages=2, blocks_per_stage=2, dropout=0.0), ResidualNetworkModel),
    (VisionTransformer(dim=16, num_layers=2, num_heads=2, patch_size=4, dropout=0.0), VisionTransformerModel),
]


@pytest.mark.parametrize(("settings", "kind"), MODELS)
def test_models_score_pictures_and_give_the_mean_loss(settings: Any, kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(settings, (3, 8, 12), 5)
    pixels, labels = torch.randn(6, 3, 8, 12), torch.tensor([0, 1, 2, 3, 4, 0])
    output = model(pixel_values=pixels, labels=labels)
    assert output["logits"].shape == (6, 5)
    assert torch.allclose(output["loss"], nn.functional.cross_entropy(output["logits"], labels))
    assert set(model(pixel_values=pixels)) == {"logits"}
    parts = [
        model(pixel_values=pixels[part], labels=labels[part], num_items_in_batch=6)["loss"]
        for part in (slice(0, 1), slice(1, 6))
    ]
    assert torch.allclose(sum(parts), output["loss"], atol=1e-6)
    output["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("settings", "kind"), MODELS)
def test_a_picture_is_judged_by_itself(settings: Any, kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(settings, (1, 8, 8), 3)
    pixels = torch.randn(4, 1, 8, 8)
    alone = torch.cat([model(pixel_values=picture[None])["logits"] for picture in pixels])
    assert torch.allclose(model(pixel_values=pixels)["logits"], alone, atol=1e-5)


def test_the_transformer_knows_where_a_patch_is() -> None:
    torch.manual_seed(0)
    model = VisionTransformerModel(MODELS[1][0], (1, 8, 8), 3)
    pixels = torch.randn(1, 1, 8, 8)
    swapped = torch.cat([pixels[..., 4:], pixels[..., :4]], dim=-1)
    assert not torch.allclose(model(pixels)["logits"], model(swapped)["logits"], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            VisionTransformerModel,
            VisionTransformer(patch_size=3),
            "model.patch_size=3 does not divide pictures of 8 x 8",
        ),
        (ResidualNetworkModel, ResidualNetwork(num_stages=5), "model.num_stages=5 halves .* write at most 4"),
    ],
)
def test_models_that_do_not_fit_the_pictures_are_refused(kind: Any, settings: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        kind(settings, (1, 8, 8), 3)


def test_as_many_stages_as_fit_work() -> None:
    model = ResidualNetworkModel(ResidualNetwork(width=8, num_stages=4), (1, 8, 9), 3)
    assert model(torch.randn(2, 1, 8, 9))["logits"].shape == (2, 3)


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_channels=3,
        num_labels=7,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.1, 0.2, 0.3]}'
    )
    return tmp_path


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_folder_of_transformers_gives_model_size_and_statistics(vit_folder: Path, from_scratch: bool) -> None:
    task = ImageClassificationTask(ImageClassification())
    settings = Pretrained(path="vit", from_scratch=from_scratch)
    prepared = task.prepare(_splits([GREY, GREY]), "image", settings, vit_folder)
    form = prepared.inputs
    assert isinstance(form, PictureFormat)
    assert (form.shape, form.mean, form.std) == ((3, 8, 8), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert prepared.model.config.id2label == {0: "a", 1: "b"}
    output = prepared.model(**form.batch([GREY]), labels=torch.tensor([1]))
    assert output["logits"].shape == (1, 2)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    task = ImageClassificationTask(ImageClassification())
    with pytest.raises(ModelError, match=r"nowhere holds no config\.json"):
        task.prepare(_splits([GREY, GREY]), "image", Pretrained(path="nowhere"), tmp_path)
