"""Weights: written once each, read by others, read from others, and errors that name what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.unit.checkpoint.nets import Plain, Tied, same
from torch import nn

from surestep.checkpoint.names import name_list, parameter_names, unwrap
from surestep.checkpoint.tensors import read_metadata
from surestep.checkpoint.weights import load_weights, save_weights
from surestep.errors import ArgumentError, CheckpointError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", ["50GB", 150, "0.1KB", 1])
def test_a_model_comes_back_to_the_last_bit(tmp_path: Path, dtype: torch.dtype, size: int | str) -> None:
    model, other = Plain(1, dtype), Plain(2, dtype)
    pointers = [parameter.data_ptr() for parameter in other.parameters()]
    save_weights(model, tmp_path / "new" / "folder", max_shard_size=size)
    report = load_weights(other, tmp_path / "new" / "folder")
    assert report.missing == report.unexpected == []
    same(model, other)
    assert [parameter.data_ptr() for parameter in other.parameters()] == pointers


def test_weights_spread_over_files_as_others_expect(tmp_path: Path) -> None:
    model = Plain(1)
    save_weights(model, tmp_path, max_shard_size=200)
    names = sorted(path.name for path in tmp_path.iterdir())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in model.state_dict().values())
    assert set(index["weight_map"]) == set(model.state_dict())
    assert set(index["weight_map"].values()) | {"model.safetensors.index.json"} == set(names)
    total = len(names) - 1
    assert names[0] == f"model-00001-of-{total:05d}.safetensors"
    for name in set(index["weight_map"].values()):
        tensors = safetensors.torch.load_file(tmp_path / name)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 200


@pytest.mark.parametrize(("first", "second"), [(200, "1GB"), ("1GB", 200), (150, 400)])
def test_an_earlier_save_leaves_nothing_behind(tmp_path: Path, first: int | str, second: int | str) -> None:
    (tmp_path / "model-card.safetensors").write_text("another's")
    save_weights(WithExtra(), tmp_path, max_shard_size=first)
    save_weights(Plain(1), tmp_path, max_shard_size=second)
    alone = tmp_path / "alone"
    save_weights(Plain(1), alone, max_shard_size=second)
    assert {path.name for path in alone.iterdir()} | {"alone", "model-card.safetensors"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_shared_memory_is_stored_once(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    save_weights(model, tmp_path)
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert set(stored) == {"embed.weight", "head.bias", "whole", "left", "right"}
    assert set(json.loads(read_metadata(tmp_path / "model.safetensors")["surestep.aliases"])) == {"head.weight", "part"}
    load_weights(other, tmp_path)
    same(model, other)
    assert other.head.weight is other.embed.weight


@pytest.mark.parametrize("size", ["1GB", 100])
def test_a_model_that_ties_nothing_finds_every_name(tmp_path: Path, size: int | str) -> None:
    model, other = Tied(), Tied(tied=False)
    save_weights(model, tmp_path, max_shard_size=size)
    load_weights(other, tmp_path)
    same(model, other)


def test_a_model_that_ties_needs_one_of_the_names(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    # The safetensors library takes neither views that are not contiguous nor halves of one memory.
    for module in (model, other):
        del module.part, module.left, module.right
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    load_weights(other, tmp_path)
    same(model, other)


class Fused(nn.Module):
    """One memory under the names of its parts and of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(6, 2))
        self.register_buffer("q", self.qkv.data[:2])
        self.register_buffer("k", self.qkv.data[2:4])
        self.register_buffer("v", self.qkv.data[4:])


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["qkv"], []),
        (["q", "k", "v"], []),
        (["q", "v"], ["k", "qkv"]),
        (["k", "v"], ["q", "qkv"]),
        (["q", "k"], ["qkv", "v"]),
        ([], ["k", "q", "qkv", "v"]),
    ],
)
def test_a_memory_is_filled_when_all_its_parts_are(tmp_path: Path, names: list[str], missing: list[str]) -> None:
    model, other = Fused(), Fused()
    state = {name: value.clone() for name, value in model.state_dict().items() if name in names}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    assert sorted(load_weights(other, tmp_path, strict=False).missing) == missing
    if not missing:
        same(model, other)


def test_a_tied_view_with_gaps_needs_one_of_its_names(tmp_path: Path) -> None:
    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            columns = torch.randn(4, 6)[:, ::2]
            self.first, self.second = nn.Parameter(columns), nn.Parameter(columns)

    model, other = Columns(), Columns()
    safetensors.torch.save_file({"first": model.first.detach().contiguous()}, tmp_path / "model.safetensors")
    load_weights(other, tmp_path)
    same(model, other)


def test_overlapping_tensors_that_none_holds_are_stored_apart(tmp_path: Path) -> None:
    class Overlapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.randn(10)
            self.register_buffer("first", memory[:6])
            self.register_buffer("second", memory[4:])
            self.register_buffer("words", memory[:6].view(torch.int32))

    model, other = Overlapping(), Overlapping()
    save_weights(model, tmp_path)
    assert set(safetensors.torch.load_file(tmp_path / "model.safetensors")) == {"first", "second", "words"}
    load_weights(other, tmp_path)
    same(model, other)


def test_lazy_views_are_stored_by_value(tmp_path: Path) -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            numbers = torch.randn(3, dtype=torch.complex64)
            self.register_buffer("numbers", numbers)
            self.register_buffer("mirrored", numbers.conj())

    model = Lazy()
    save_weights(model, tmp_path)
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["mirrored"], model.mirrored.resolve_conj())


def test_a_subclass_of_a_tensor_with_memory_of_its_own_is_stored(tmp_path: Path) -> None:
    class Named(torch.Tensor):
        pass

    model = nn.Linear(2, 2)
    save_weights(model, tmp_path, state_dict={"weight": torch.ones(2, 2).as_subclass(Named), "bias": torch.ones(2)})
    load_weights(model, tmp_path)
    assert torch.equal(model.weight, torch.ones(2, 2))


def test_strides_do_not_matter(tmp_path: Path) -> None:
    model, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    model = model.to(memory_format=torch.channels_last)
    save_weights(model, tmp_path)
    load_weights(other, tmp_path)
    same(model, other)


def test_an_empty_model_can_be_stored(tmp_path: Path) -> None:
    save_weights(nn.ReLU(), tmp_path)
    assert load_weights(nn.ReLU(), tmp_path).missing == []


@pytest.mark.parametrize("wrapper", ["parallel", "compiled", "both", "inner"])
def test_wrappers_leave_no_trace_in_the_names(tmp_path: Path, wrapper: str) -> None:
    def wrapped(model: Plain) -> Any:
        if wrapper == "inner":
            model.body[0] = torch.compile(model.body[0])  # type: ignore[assignment]
            return model
        parallel: nn.Module = nn.DataParallel(model) if wrapper != "compiled" else model
        return torch.compile(parallel) if wrapper != "parallel" else parallel

    model, plain, other = Plain(1), Plain(2), wrapped(Plain(3))
    names = parameter_names(model)
    whole = wrapped(model)
    assert parameter_names(whole) == names
    assert wrapper == "inner" or unwrap(whole) is model
    save_weights(whole, tmp_path)
    load_weights(plain, tmp_path)
    load_weights(other, tmp_path)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, safetensors.torch.load_file(tmp_path / "model.safetensors")[name])
    for found, expected in zip(other.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_with_the_marks_of_wrappers_are_understood(tmp_path: Path, prefix: str) -> None:
    model, other = Plain(1), Plain(2)
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    load_weights(other, tmp_path)
    same(model, other)


def test_a_state_can_be_given(tmp_path: Path) -> None:
    model, other = Plain(1), Plain(2)
    save_weights(other, tmp_path, state_dict=model.state_dict())
    load_weights(other, tmp_path)
    same(model, other)


class WithExtra(nn.Module):
    """Has state that is no tensor."""

    def __init__(self, extra: object = None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.extra = extra

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


@pytest.mark.parametrize("extra", [{"scale": 0.5, "history": [1, 2]}, "text", None, torch.arange(3)])
def test_state_that_is_no_tensor_comes_back(tmp_path: Path, extra: object) -> None:
    other = WithExtra()
    save_weights(WithExtra(extra), tmp_path)
    load_weights(other, tmp_path)
    assert str(other.extra) == str(extra)


def test_state_that_is_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"_extra_state .*builtins.object"):
        save_weights(WithExtra(object()), tmp_path)


def test_a_tensor_without_memory_of_its_own_is_refused(tmp_path: Path) -> None:
    class Quantized(torch.Tensor):
        def __tensor_flatten__(self) -> None: ...

    state = {"weight": torch.ones(2).as_subclass(Quantized)}
    with pytest.raises(CheckpointError, match=r"'weight' is a .*Quantized"):
        save_weights(nn.Linear(1, 1), tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match="'weight' is on the meta device"):
        save_weights(nn.Linear(1, 1), tmp_path, state_dict={"weight": torch.ones(2, device="meta")})
    with pytest.raises(CheckpointError, match=r"'weight' is of layout torch.sparse_coo"):
        save_weights(nn.Linear(1, 1), tmp_path, state_dict={"weight": torch.ones(2).to_sparse()})
    with pytest.raises(CheckpointError, match=r"'weight' has dtype torch.complex128"):
        save_weights(nn.Linear(1, 1), tmp_path, state_dict={"weight": torch.ones(2, dtype=torch.complex128)})


@pytest.mark.parametrize("size", ["", "5 parsecs", "GB", 0, -5, "0GB", "5XB", "-1GB"])
def test_a_size_that_is_none_is_named(tmp_path: Path, size: int | str) -> None:
    with pytest.raises(ArgumentError, match="max_shard_size"):
        save_weights(Plain(), tmp_path, max_shard_size=size)


# What does not fit


def changed(tmp_path: Path, **changes: torch.Tensor | None) -> Path:
    state = {name: value.clone() for name, value in Plain(1).state_dict().items()}
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": None}, r"They lack 'scale'\.$"),
        ({"scael": torch.ones(())}, r"The model has no 'scael'\.$"),
        (
            {"body__0__weight": None, "body__0__weigth": torch.ones(8, 4)},
            r"lack 'body.0.weight' \(nearest: 'body.0.weigth'\). The model has no 'body.0.weigth' \(nearest: 'body.0.w",
        ),
        ({f"new{number}": torch.ones(()) for number in range(12)}, r"'new5' and 4 more"),
    ],
)
def test_names_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_weights(Plain(2), changed(tmp_path, **changes))


def test_without_strictness_what_fits_is_read_and_the_rest_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, other = Plain(1), Plain(2)
    report = load_weights(other, changed(tmp_path, scale=None, new=torch.ones(())), strict=False)
    assert (report.missing, report.unexpected) == (["scale"], ["new"])
    assert "They lack 'scale'. The model has no 'new'." in caplog.text
    assert torch.equal(other.body[0].weight, model.body[0].weight)
    assert not torch.equal(other.scale, model.scale)


@pytest.mark.parametrize("strict", [True, False])
def test_a_shape_that_differs_is_named(tmp_path: Path, strict: bool) -> None:
    with pytest.raises(CheckpointError, match=r"body.0.weight.*\[8, 5\].*\[8, 4\]"):
        load_weights(Plain(2), changed(tmp_path, body__0__weight=torch.ones(8, 5)), strict=strict)


def test_another_dtype_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_weights(Plain(1, torch.bfloat16), tmp_path)
    load_weights(Plain(2), tmp_path)
    assert "converted from bfloat16 into float32" in caplog.text


def test_a_model_without_memory_is_refused(tmp_path: Path) -> None:
    save_weights(Plain(1), tmp_path)
    with pytest.raises(CheckpointError, match=r"meta device.*'body.0.weight'.*to_empty"):
        load_weights(Plain(2).to("meta"), tmp_path)


def test_names_are_listed_with_the_nearest() -> None:
    assert name_list(["abc"], ["abd", "xyz"]) == "'abc' (nearest: 'abd')"
    assert name_list([str(number) for number in range(10)]).endswith("'7' and 2 more")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither model.safetensors nor"),
        ({"pytorch_model.bin": b""}, "pytorch_model.bin is damaged"),
        ({"pytorch_model.bin.index.json": b"{}"}, "bin.index.json is damaged"),
        ({"pytorch_model_fsdp.bin": b""}, "files of FSDP.*accelerate merge-weights"),
        ({"adapter_model.bin": b""}, "adapters only"),
        ({"adapter_model.safetensors": b""}, "adapters only"),
        ({"model.safetensors": b""}, "model.safetensors is damaged"),
        ({"model.safetensors.index.json": b""}, "index.json is damaged"),
        ({"model.safetensors.index.json": b"[1]"}, "index.json is damaged"),
        ({"model.safetensors.index.json": b'{"weight_map": 5}'}, "index.json is damaged"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": 5}}'}, "index.json is damaged"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../b"}}'}, "outside of its folder"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'}, "b.safetensors is missing"),
    ],
)
def test_a_folder_without_weights_says_what_it_has(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_weights(Plain(), tmp_path)


def test_an_index_that_lists_what_no_file_has_is_damage(tmp_path: Path) -> None:
    safetensors.torch.save_file({"b": torch.ones(1)}, tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lists 'a', which no file"):
        load_weights(Plain(), tmp_path)


@pytest.mark.parametrize(
    "aliases",
    ["{", "[]", '{"a": {}}', '{"a": {"of": "b"}}', '{"a": {"of": "x", "shape": [99], "stride": [1], "offset": 0}}'],
)
def test_a_list_of_shared_tensors_that_does_not_fit_is_damage(tmp_path: Path, aliases: str) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors", {"surestep.aliases": aliases})
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged: its list of shared tensors"):
        load_weights(Plain(), tmp_path)


def test_pickles_under_our_names_are_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    payload = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    for name in ("pytorch_model.bin", "model.safetensors.index.json", "model.safetensors", "model_extra.json"):
        (tmp_path / name).write_bytes(payload)
        with pytest.raises(CheckpointError):
            load_weights(Plain(), tmp_path)
    assert not marker.exists()
