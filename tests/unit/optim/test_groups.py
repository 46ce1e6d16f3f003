import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_parameter_names

from surestep.errors import ArgumentError, ModelError
from surestep.optim.groups import (
    GroupRule,
    clean_name,
    decay_parameter_names,
    default_groups,
    layerwise_groups,
    parameter_names,
    pattern_groups,
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Linear(4, 4)
        self.attn_norm = nn.BatchNorm1d(4)
        self.ln = nn.LayerNorm(4)


class Model(nn.Module):
    """Every case of the rule: own parameters, norms by type and by name, a part that only looks like a norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.layers = nn.ModuleList([Block() for _ in range(3)])
        self.pre_normal = nn.Linear(4, 4)
        self.norm = nn.RMSNorm(4)
        self.Bias_net = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)


def bert():
    return BertForSequenceClassification(
        BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    )


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=8))


def t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=3, num_heads=2)
    )


def shared():
    model = Model()
    model.again = model.layers[0]
    return model


def names_of(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in groups]


@pytest.mark.parametrize("make", [Model, bert, gpt2, t5, shared, lambda: nn.LayerNorm(3), lambda: nn.Linear(2, 2)])
def test_decay_names_and_order_are_the_originals(make):
    model = make()
    patterns = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    assert decay_parameter_names(model) == get_parameter_names(model, [nn.LayerNorm], patterns)


@pytest.mark.parametrize("make", [Model, bert, gpt2, t5])
def test_default_groups_are_the_originals(make, tmp_path):
    model = make()
    next(model.parameters()).requires_grad_(False)
    args = TrainingArguments(output_dir=str(tmp_path), weight_decay=0.3, report_to=[], use_cpu=True)
    theirs = Trainer(model=model, args=args, train_dataset=[{}]).create_optimizer().param_groups
    ours = default_groups(model, 0.3)
    assert names_of(model, ours) == names_of(model, theirs)
    assert [group["weight_decay"] for group in ours] == [group["weight_decay"] for group in theirs] == [0.3, 0.0]


def test_both_groups_are_there_even_if_one_is_empty():
    model = nn.Linear(2, 2, bias=False)
    decayed, plain = default_groups(model, 0.1)
    assert len(decayed["params"]) == 1
    assert plain == {"params": [], "weight_decay": 0.0}


@pytest.mark.parametrize("make", [nn.ReLU, lambda: nn.Linear(2, 2).requires_grad_(False)])
def test_nothing_to_train_is_an_error(make):
    with pytest.raises(ModelError, match="nothing to train"):
        default_groups(make(), 0.1)


def test_each_mesh_has_its_own_groups(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[1].weight = nn.Parameter(distribute_tensor(model[1].weight.detach(), mesh))
        groups = default_groups(model, 0.1)
        assert names_of(model, groups) == [["0.weight"], ["1.weight"], ["0.bias", "1.bias"]]
        assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    finally:
        torch.distributed.destroy_process_group()


def test_the_first_rule_that_matches_holds():
    model = Model()
    rules = [
        (r"^layers\.0\.", {"lr": 1e-5}),
        GroupRule(r"^layers\.", lr_scale=0.5, weight_decay=0.2),
        (r"head", {"weight_decay": 0.0}),
    ]
    groups = pattern_groups(model, rules, 0.1, learning_rate=1e-3)
    described = [
        (group.get("name"), group["weight_decay"], group.get("lr"), names)
        for group, names in zip(groups, names_of(model, groups), strict=True)
    ]
    norms = [f"layers.{i}.{part}" for i in (1, 2) for part in ("attn.bias", "attn_norm.weight", "attn_norm.bias")]
    assert described[:4] == [
        (None, 0.1, None, ["scale", "embed.weight", "pre_normal.weight"]),
        (None, 0.0, None, ["pre_normal.bias", "norm.weight", "Bias_net.weight", "Bias_net.bias"]),
        (r"^layers\.0\.", 0.1, 1e-5, ["layers.0.attn.weight"]),
        (
            r"^layers\.0\.",
            0.0,
            1e-5,
            [n.replace("1", "0", 1) for n in norms[:3]] + ["layers.0.ln.weight", "layers.0.ln.bias"],
        ),
    ]
    assert described[4][:3] == (r"^layers\.", 0.2, 5e-4)
    assert described[4][3] == ["layers.1.attn.weight", "layers.2.attn.weight"]
    assert described[5][:3] == (r"^layers\.", 0.0, 5e-4)
    assert set(norms) < set(described[5][3])
    assert described[6:] == [("head", 0.0, None, ["head.weight"]), ("head", 0.0, None, ["head.bias"])]
    everything = [name for names in names_of(model, groups) for name in names]
    assert sorted(everything) == sorted(name for name, _ in model.named_parameters())


def test_without_rules_the_groups_are_the_default_ones():
    model = Model()
    assert names_of(model, pattern_groups(model, [], 0.1)) == names_of(model, default_groups(model, 0.1))


def test_frozen_parameters_are_in_no_group_and_need_no_gradient():
    model = Model()
    groups = pattern_groups(model, [(r"^(embed|layers)", {"freeze": True})], 0.1)
    left = {name for names in names_of(model, groups) for name in names}
    assert left == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("embed", "layers")) for name in left)


def test_what_a_rule_froze_before_is_still_its_own():
    model = Model()
    rules = [("embed", {"freeze": True}), ("head", {"lr": 1.0})]
    first, second = (names_of(model, pattern_groups(model, rules, 0.1)) for _ in range(2))
    assert first == second
    with pytest.raises(ArgumentError, match="'embed' matches no trainable parameter"):
        pattern_groups(model, [("embed", {"lr": 1.0})], 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: pattern_groups(model, [("head", {"lr": 1.0})], 0.1, decayed=["scale", "head.bias"]),
        lambda model: layerwise_groups(model, 1.0, 0.5, weight_decay=0.1, decayed=["scale", "head.bias"]),
    ],
)
def test_a_list_of_what_decays_is_heeded(make):
    model = Model()
    groups = make(model)
    decayed = [names for group, names in zip(groups, names_of(model, groups), strict=True) if group["weight_decay"]]
    assert sorted(name for names in decayed for name in names) == ["head.bias", "scale"]


def test_freezing_everything_is_an_error():
    with pytest.raises(ModelError, match="nothing to train"):
        pattern_groups(Model(), [(".", {"freeze": True})], 0.1)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("layer.0.attn", {"lr": 1e-3})], r"'layer.0.attn' matches no trainable parameter.*layers\.0\.attn\.weight"),
        ([("head", {"lr": 1e-3}), (r"head\.bias", {"lr": 1e-4})], r"earlier rule takes \(head.bias"),
        ([("head", {"lr": 1e-3, "lr_scale": 2.0})], "both lr and lr_scale"),
        ([("head", {"lr_scale": 2.0})], "needs the run's learning_rate"),
        ([("head", {"rate": 2.0})], "sets rate; a rule takes freeze, lr, lr_scale, weight_decay"),
        ([("he(ad", {"lr": 2.0})], "no regular expression"),
    ],
)
def test_a_wrong_rule_is_an_error(rules, message):
    with pytest.raises(ArgumentError, match=message):
        pattern_groups(Model(), rules, 0.1)


def test_rules_see_names_without_wrappers():
    model = Model()
    model.layers[0] = torch.compile(model.layers[0], backend="eager")
    groups = pattern_groups(model, [(r"layers\.0\.attn\.weight", {"lr": 1.0})], 0.0)
    assert names_of(model, groups)[2] == ["layers.0._orig_mod.attn.weight"]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    assert parameter_names(optimizer, model)[2] == ["layers.0.attn.weight"]
    assert clean_name("a._orig_mod._checkpoint_wrapped_module.b") == "a.b"


def rates(model, groups):
    named = zip(groups, names_of(model, groups), strict=True)
    return {name: group["lr"] for group, names in named for name in names}


def test_rates_fall_by_layer_from_the_head_down():
    model = Model()
    groups = layerwise_groups(model, 1.0, 0.5, weight_decay=0.1)
    found = rates(model, groups)
    assert found["head.weight"] == found["norm.weight"] == 1.0
    assert found["layers.2.attn.weight"] == found["layers.2.ln.bias"] == 0.5
    assert found["layers.1.attn.weight"] == 0.25
    assert found["layers.0.attn.weight"] == 0.125
    assert found["embed.weight"] == found["scale"] == 0.0625
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    decays = {
        name: g["weight_decay"] for g, names in zip(groups, names_of(model, groups), strict=True) for name in names
    }
    decayed = set(decay_parameter_names(model))
    assert decays == {name: 0.1 if name in decayed else 0.0 for name in decays}


def test_the_group_of_the_head_comes_first():
    found = [group["lr"] for group in layerwise_groups(Model(), 1.0, 0.5)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0


def test_an_embedding_lies_below_the_layers_wherever_it_stands():
    model = Model()
    model.late = nn.Embedding(3, 4)
    assert rates(model, layerwise_groups(model, 1.0, 0.5))["late.weight"] == 0.0625


def test_each_stack_of_layers_counts_from_its_own_top():
    model = t5()
    found = rates(model, layerwise_groups(model, 1.0, 0.5))
    assert found["encoder.block.1.layer.0.SelfAttention.q.weight"] == 0.5
    assert found["encoder.block.0.layer.0.SelfAttention.q.weight"] == 0.25
    assert found["decoder.block.2.layer.0.SelfAttention.q.weight"] == 0.5
    assert found["decoder.block.0.layer.0.SelfAttention.q.weight"] == 0.125
    assert found["shared.weight"] == 0.0625


def test_layers_under_a_pattern_of_ones_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match=r"numbered layer.*0\.weight, 0\.bias"):
        layerwise_groups(model, 1.0, 0.5)
    found = rates(model, layerwise_groups(model, 1.0, 0.5, layer_pattern=r"^(\d+)\."))
    assert found == {"2.weight": 0.5, "2.bias": 0.5, "0.weight": 0.125, "0.bias": 0.125}


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_a_layerwise_decay_out_of_range_is_an_error(decay):
    with pytest.raises(ArgumentError, match="at most 1"):
        layerwise_groups(Model(), 1.0, decay)


def test_parameters_that_are_not_the_models_are_called_after_their_place():
    model = nn.Linear(2, 2)
    foreign = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias, foreign]}], lr=0.1)
    assert parameter_names(optimizer, model) == [["weight"], ["bias", "group1.1"]]
