import copy

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers import training_args as theirs_enums

from surestep.config.enums import OptimizerNames
from surestep.errors import ArgumentError, MissingPackageError
from surestep.optim.build import RECIPES, build_optimizer, is_optimizer_factory, optimizer_class_and_kwargs
from surestep.optim.groups import default_groups
from surestep.optim.recipe import Imported, Option, dtype, parse_optim_args, truth

RUN = {"learning_rate": 3e-4, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-7, "weight_decay": 0.1}


def model():
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def theirs(tmp_path, name, optim_args=None, net=None):
    args = TrainingArguments(
        output_dir=str(tmp_path), optim=name, optim_args=optim_args, report_to=[], use_cpu=True, **RUN
    )
    return Trainer.get_optimizer_cls_and_kwargs(args, net)


@pytest.mark.parametrize(
    ("name", "optim_args"),
    [
        ("adamw_torch", None),
        ("adamw_torch_fused", None),
        ("sgd", None),
        ("sgd", "momentum=0.9, nesterov=true"),
        ("sgd", "momentum=0.9,dampening=0.1,nesterov=no,weight_decay=0.1"),
        ("adagrad", None),
        ("adagrad", "lr_decay=0.1,eps=1e-5"),
        ("rmsprop", None),
        ("rmsprop", "momentum=0.9,alpha=0.8,eps=1e-6,centered=1"),
    ],
)
def test_class_and_arguments_are_the_originals(name, optim_args, tmp_path):
    assert optimizer_class_and_kwargs(name, **RUN, optim_args=optim_args) == theirs(tmp_path, name, optim_args)


@pytest.mark.parametrize("name", ["adam", "adamax", "nadam", "radam", "adadelta", "asgd"])
def test_names_beyond_the_originals_train(name):
    cls, kwargs = optimizer_class_and_kwargs(name, **RUN)
    assert train(cls, kwargs) is not None


def train(cls, kwargs, steps=3, groups=None):
    torch.manual_seed(0)
    net = model()
    before = copy.deepcopy(net.state_dict())
    optimizer = build_optimizer(
        cls, kwargs, net, default_groups(net, RUN["weight_decay"]) if groups is None else groups
    )
    for _ in range(steps):
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.isfinite().all() for value in net.state_dict().values())
    return optimizer


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.options])
def test_every_option_is_read_and_unknown_ones_are_errors(name):
    with pytest.raises(ArgumentError, match=f"'{name}' does not take; it takes: {next(iter(RECIPES[name].options))}"):
        RECIPES[name].arguments(name, None, "no_such=1")


@pytest.mark.parametrize(
    ("name", "optim_args", "message"),
    [
        ("adamw", None, "optim is 'adamw'. Did you mean adamw_torch"),
        ("zzz", None, "Did you mean adamw_torch"),
        ("sgd", "momentum", "optim_args has 'momentum'; write key=value"),
        ("sgd", "momentum=much", "momentum=much; write a number"),
        ("sgd", "nesterov=maybe", "nesterov=maybe; write true or false"),
        ("sgd", "mass=1", "mass, which the optimizer 'sgd' does not take; it takes: momentum, dampening"),
        ("adamax", "mass=1", "it takes: none"),
        ("sgd", "weight_decay=0.5", r"weight_decay=0.5, but the argument weight_decay is 0.1"),
    ],
)
def test_what_cannot_be_right_is_an_error(name, optim_args, message):
    with pytest.raises(ArgumentError, match=message):
        optimizer_class_and_kwargs(name, **RUN, optim_args=optim_args)


def test_optim_args_are_split():
    assert parse_optim_args(" a = 1, b=x ,") == {"a": "1", "b": "x"}
    assert parse_optim_args(None) == parse_optim_args("") == {}


def test_dtypes_are_read_by_name():
    assert dtype("bfloat16") == dtype("torch.bfloat16") == torch.bfloat16
    with pytest.raises(ValueError, match="nn"):
        dtype("nn")
    assert Option(truth).read("YES") is True


def test_a_missing_package_is_named():
    with pytest.raises(
        MissingPackageError, match=r"The optimizer Great of no_such_package.optim needs .*pip install no_such_package"
    ):
        Imported("no_such_package.optim", "Great")()
    with pytest.raises(MissingPackageError, match=r"It is at https://example.org"):
        Imported("no_such_package", "Great", "https://example.org")()


class Factory:
    def __call__(self, net, lr, share):
        return torch.optim.SGD([{"params": net.parameters(), "share": share}], lr=lr)


def test_a_factory_gets_the_model():
    assert is_optimizer_factory(Factory)
    assert not is_optimizer_factory(torch.optim.SGD)
    optimizer = build_optimizer(Factory, {"lr": 0.1, "share": 2}, model(), [])
    assert optimizer.param_groups[0]["share"] == 2


@pytest.mark.parametrize("key", ["params", "model", "optimizer_dict"])
def test_arguments_may_stand_in_the_place_of_the_groups(key):
    net, kwargs = model(), {"lr": 0.1}
    mine = [{"params": [net[0].weight]}]
    optimizer = build_optimizer(torch.optim.SGD, {**kwargs, key: mine}, net, default_groups(net, 0.0))
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [id(net[0].weight)]
    assert kwargs == {"lr": 0.1}


def test_every_name_of_the_original_and_of_the_settings_is_known():
    assert {member.value for member in OptimizerNames} <= set(RECIPES)
    assert {member.value for member in theirs_enums.OptimizerNames} <= set(RECIPES)
