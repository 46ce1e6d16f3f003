import pytest
from torch import nn
from transformers.trainer_utils import check_target_module_exists

from surestep.errors import ArgumentError
from surestep.optim import targets
from surestep.optim.targets import base_groups, divide, is_target, target_weights


def model():
    block = nn.ModuleDict(
        {"attn": nn.Linear(2, 2), "mlp": nn.ModuleDict({"up": nn.Linear(2, 2)}), "ln": nn.LayerNorm(2)}
    )
    return nn.ModuleDict({"embed": nn.Embedding(3, 2), "block": block, "head": nn.Linear(2, 2)})


@pytest.mark.parametrize(
    "names", [r".*attn", "block.attn", "attn", ["attn"], ["block"], [r"block\.m.p\.up", "xyz"], ["head", "up"]]
)
def test_modules_are_named_as_in_the_original(names):
    for name, _ in model().named_modules():
        assert is_target(name, names) == bool(check_target_module_exists(names, name)), name


def names_of(net, members):
    ids = {id(parameter) for parameter in members}
    return [name for name, parameter in net.named_parameters() if id(parameter) in ids]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("all-linear", ["block.attn.weight", "block.mlp.up.weight", "head.weight"]),
        ("all_linear", ["block.attn.weight", "block.mlp.up.weight", "head.weight"]),
        (["mlp", "head"], ["block.mlp.up.weight", "head.weight"]),
        (r"block\..*", ["block.attn.weight", "block.mlp.up.weight"]),
    ],
)
def test_the_weights_of_linear_layers_are_found(names, expected):
    net = model()
    assert names_of(net, target_weights(net, names)) == expected


def test_frozen_layers_are_no_target():
    net = model()
    net["head"].requires_grad_(False)
    assert names_of(net, target_weights(net, ["head", "up"])) == ["block.mlp.up.weight"]


def test_a_named_layer_of_another_kind_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(targets._logger, "warning", lambda message, *values: said.append(message % values))
    target_weights(model(), ["block", "embed"])
    assert [message.split()[2] for message in said] == ["embed,", "block.ln,"]
    said.clear()
    target_weights(model(), "all-linear")
    assert not said


def test_no_target_is_an_error():
    with pytest.raises(
        ArgumentError, match=r"\['atn'\] names no trainable linear layer.*block.attn, block.mlp.up, head"
    ):
        target_weights(model(), ["atn"])
    with pytest.raises(ArgumentError, match="the model has none"):
        target_weights(nn.LayerNorm(2), "all-linear")


def test_groups_to_divide():
    net = model()
    net["embed"].requires_grad_(False)
    assert len(base_groups(net, None, 0.1)) == 2
    (single,) = base_groups(net, None, 0.0)
    assert names_of(net, single["params"]) == [n for n, _ in net.named_parameters() if n != "embed.weight"]
    mine = [{"params": [net["head"].weight]}]
    assert base_groups(net, mine, 0.1) is mine


def test_dividing_drops_empty_parts_and_keeps_options():
    net = model()
    groups = [{"params": [net["head"].weight], "lr": 1.0}, {"params": [net["head"].bias, net["block"]["attn"].bias]}]
    divided = divide(groups, [net["head"].weight, net["head"].bias], {"rank": 2}, {"rank": 0})
    assert [(names_of(net, group.pop("params")), group) for group in divided] == [
        (["head.weight"], {"lr": 1.0, "rank": 2}),
        (["block.attn.bias"], {"rank": 0}),
        (["head.bias"], {"rank": 2}),
    ]
