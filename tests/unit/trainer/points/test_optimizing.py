"""Parameters trained each in its own way and kinds of clipping, in real runs against loops written by hand."""

import pytest
import torch
from torch import nn

from surestep import Trainer, TrainingArguments
from surestep.errors import ArgumentError
from surestep.optim.clipping import Adaptive, ByNorm, ByValue, gradient_norm

RATE, DECAY, STEPS = 0.05, 0.1, 6


class Net(nn.Module):
    """Two numbered layers between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.head = nn.Linear(4, 3)

    def forward(self, x, labels=None):
        hidden = self.embed(x)
        for layer in self.layers:
            hidden = layer(hidden).tanh()
        logits = self.head(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


GENERATOR = torch.Generator().manual_seed(1)
DATA = [
    {
        "x": torch.randint(8, (), generator=GENERATOR),
        "labels": torch.randint(3, (), generator=GENERATOR),
    }
    for _ in range(24)
]


class InOrder(Trainer):
    """Reads the samples in their order, which a loop by hand can follow."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(DATA)


def trainer(folder, net=None, kind=InOrder, given=None, **changes):
    values = {
        "max_steps": STEPS,
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = TrainingArguments(output_dir=str(folder), **(values | changes))
    return kind(net or Net(), args, train_dataset=DATA, **(given or {}))


def by_hand(groups_of, clip):
    """Train `Net` on the same batches and return its weights and the norm of each step's gradients."""
    net = Net()
    optimizer = torch.optim.AdamW(groups_of(net), lr=RATE)
    norms = []
    for step in range(STEPS):
        batch = DATA[step * 4 % len(DATA) :][:4]
        net(**{name: torch.stack([sample[name] for sample in batch]) for name in batch[0]})["loss"].backward()
        norms.append(gradient_norm(list(net.parameters())).item())
        clip(net)
        optimizer.step()
        optimizer.zero_grad()
    return net.state_dict(), norms


def two_groups(net):
    named = list(net.named_parameters())
    return [
        {"params": [p for n, p in named if "bias" not in n], "weight_decay": DECAY},
        {"params": [p for n, p in named if "bias" in n], "weight_decay": 0.0},
    ]


def norm(bound):
    return lambda net: nn.utils.clip_grad_norm_(net.parameters(), bound)


def units(ratio):
    """Adaptive clipping as the paper writes it, row by row; the last layer is left out."""

    def clip(net):
        for name, parameter in net.named_parameters():
            if name.startswith("head"):
                continue
            rows = [(parameter, parameter.grad)] if parameter.ndim == 1 else zip(parameter, parameter.grad, strict=True)
            for weight, gradient in rows:
                limit = ratio * max(weight.norm().item(), 1e-3)
                if gradient.norm() > limit:
                    gradient.mul_(limit / gradient.norm())

    return clip


@pytest.mark.parametrize(
    ("given", "clip"),
    [
        ({}, norm(1.0)),
        ({"max_grad_norm": 0.05}, norm(0.05)),
        ({"max_grad_norm": 0}, lambda net: None),
        ({"max_grad_value": 0.01}, lambda net: nn.utils.clip_grad_value_(net.parameters(), 0.01)),
        ({"max_grad_value": 0.01, "max_grad_norm": 0}, lambda net: nn.utils.clip_grad_value_(net.parameters(), 0.01)),
        ({"adaptive_clip_ratio": 0.02}, units(0.02)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_kind_of_clipping_equals_the_loop_by_hand(tmp_path, given, clip):
    run = trainer(tmp_path, **given)
    run.train()
    weights, norms = by_hand(two_groups, clip)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)
    logged = [entry["grad_norm"] for entry in run.state.log_history if "grad_norm" in entry]
    assert logged == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, ByNorm),
        ({"max_grad_norm": None}, type(gradient_norm)),
        ({"max_grad_value": 0.5}, ByValue),
        ({"adaptive_clip_ratio": 0.5}, Adaptive),
    ],
    ids=str,
)
def test_the_clipper_is_the_one_asked_for(tmp_path, given, kind):
    assert type(trainer(tmp_path, **given)._clipper()) is kind


def by_rules(net):
    named = dict(net.named_parameters())
    frozen, slow = [n for n in named if "embed" in n], [n for n in named if n.startswith("layers.0")]
    for name in frozen:
        named.pop(name).requires_grad_(False)
    rest = [named.pop(name) for name in list(named) if name not in slow and name != "head.weight"]
    return [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
        {"params": [named["layers.0.weight"]], "lr": RATE * 0.1, "weight_decay": DECAY},
        {"params": [named["layers.0.bias"]], "lr": RATE * 0.1, "weight_decay": 0.0},
        {"params": [named["head.weight"]], "lr": 0.2, "weight_decay": 0.5},
    ]


RULES = [
    {"pattern": "embed", "freeze": True},
    {"pattern": r"^layers\.0\.", "learning_rate_scale": 0.1},
    {"pattern": r"head\.weight", "learning_rate": 0.2, "weight_decay": 0.5},
]


def test_rules_equal_the_groups_by_hand(tmp_path):
    run = trainer(tmp_path, parameter_rules=RULES)
    run.train()
    weights, _ = by_hand(by_rules, norm(1.0))
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(run.model.embed.weight, Net().embed.weight)
    assert run.state.log_history[0]["learning_rate"] == RATE


def test_a_rule_can_exempt_from_those_below(tmp_path):
    run = trainer(tmp_path, parameter_rules=[{"pattern": "head", "freeze": False}, {"pattern": ".", "freeze": True}])
    run.train()
    changed = {
        name for name, value in run.model.state_dict().items() if not torch.equal(value, Net().state_dict()[name])
    }
    assert changed == {"head.weight", "head.bias"}
    groups = [(group["lr"], group["weight_decay"]) for group in run.optimizer.param_groups if group["params"]]
    assert groups == [(RATE, DECAY), (RATE, 0.0)]


def test_layers_learn_ever_slower_towards_the_embeddings(tmp_path):
    run = trainer(tmp_path, layerwise_lr_decay=0.5)
    run.train()

    def groups(net):
        depths = {"head": 0, "layers.1": 1, "layers.0": 2, "embed": 3}
        return [
            {"params": [p], "lr": RATE * 0.5**depth, "weight_decay": DECAY if p.ndim > 1 else 0.0}
            for part, depth in depths.items()
            for p in net.get_submodule(part).parameters()
        ]

    weights, _ = by_hand(groups, norm(1.0))
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)
    assert run.state.log_history[0]["learning_rate"] == RATE


class NothingDecays(InOrder):
    def get_decay_parameter_names(self, model):
        return ["head.weight"]


@pytest.mark.parametrize("given", [{}, {"parameter_rules": RULES}, {"layerwise_lr_decay": 0.5}], ids=str)
def test_an_overridden_list_of_what_decays_is_heeded(tmp_path, given):
    run = trainer(tmp_path, kind=NothingDecays, **given)
    groups = run.create_optimizer().param_groups
    decaying = [parameter for group in groups if group["weight_decay"] for parameter in group["params"]]
    assert decaying == [run.model.head.weight]


def test_the_schedule_acts_on_every_rate(tmp_path):
    run = trainer(tmp_path, parameter_rules=RULES, lr_scheduler_type="linear")
    run.create_optimizer_and_scheduler(10)
    before = run.get_learning_rates()
    for _ in range(5):
        run.optimizer.step()
        run.lr_scheduler.step()
    assert run.get_learning_rates() == pytest.approx([rate / 2 for rate in before])
    assert len(set(before)) == 3


def test_a_model_that_rules_froze_is_trained_again(tmp_path):
    first = trainer(tmp_path, parameter_rules=RULES)
    first.train()
    trainer(tmp_path, first.model, parameter_rules=RULES).train()
    assert torch.equal(first.model.embed.weight, Net().embed.weight)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameter_rules": [{"pattern": "haed", "freeze": True}]}, r"^parameter_rules: .*'haed' matches no.*head\."),
        ({"layerwise_lr_decay": 0.5}, r"^layerwise_lr_decay: No parameter of Sequential.*rules on names"),
        ({"parameter_rules": RULES, "optim": "muon"}, r"parameter_rules has no effect on Muon"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused(tmp_path, given, message):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) if "layerwise_lr_decay" in given else Net()
    with pytest.raises(ArgumentError, match=message):
        trainer(tmp_path, net, **given).create_optimizer()


class Factory:
    """Makes an optimizer from a whole model, which leaves no room for groups."""

    def __call__(self, model, **kwargs):
        return torch.optim.SGD(model.parameters(), **kwargs)


def test_a_factory_of_optimizers_is_refused_beside_rules(tmp_path):
    own = {"optimizer_cls_and_kwargs": (Factory, {"lr": RATE})}
    assert len(trainer(tmp_path, given=own).create_optimizer().param_groups) == 1
    with pytest.raises(ArgumentError, match="parameter_rules has no effect on Factory"):
        trainer(tmp_path, given=own, parameter_rules=RULES).create_optimizer()


@pytest.mark.parametrize("given", [{"parameter_rules": RULES}, {"layerwise_lr_decay": 0.5}], ids=str)
def test_an_optimizer_of_ones_own_leaves_no_room_for_groups(tmp_path, given):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match=f"{next(iter(given))} has no effect on an optimizer"):
        trainer(tmp_path, net, given={"optimizers": (optimizer, None)}, **given)


def test_a_class_of_optimizers_of_ones_own_takes_the_groups(tmp_path):
    own = (torch.optim.SGD, {"lr": RATE})
    run = trainer(tmp_path, given={"optimizer_cls_and_kwargs": own}, parameter_rules=RULES)
    assert [group["lr"] for group in run.create_optimizer().param_groups] == [RATE, RATE, RATE * 0.1, RATE * 0.1, 0.2]
