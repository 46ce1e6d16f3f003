"""Freezing until a moment, in real runs."""

import logging

import pytest
import torch
from torch import nn

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.freezing import FreezeCallback
from surestep.errors import ArgumentError

# Four steps an epoch, three epochs.
STEPS_PER_EPOCH, STEPS = 4, 12


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, 3)

    def forward(self, x, labels=None):
        hidden = self.embed(x).tanh()
        for layer in self.layers:
            hidden = layer(hidden).tanh()
        logits = self.head(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


GENERATOR = torch.Generator().manual_seed(1)
DATA = [
    {"x": torch.randn(4, generator=GENERATOR), "labels": torch.randint(3, (), generator=GENERATOR)} for _ in range(32)
]


class History(TrainerCallback):
    """Keeps a copy of the weights after every step."""

    def __init__(self) -> None:
        self.weights = {0: copied(Net())}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copied(model)

    def first_change(self, part: str) -> int | None:
        """Return the step that changed any, and by then every, weight of a part; None where none did."""
        names = [name for name in self.weights[0] if name.startswith(part)]
        for step in range(1, max(self.weights) + 1):
            before, after = self.weights[step - 1], self.weights[step]
            changed = [not torch.equal(before[name], after[name]) for name in names]
            if any(changed):
                assert all(changed)
                return step
        return None


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trainer(folder, *callbacks, net=None, **changes) -> Trainer:
    values = {
        "num_train_epochs": 3,
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = TrainingArguments(output_dir=str(folder), **(values | changes))
    return Trainer(net or Net(), args, train_dataset=DATA, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("callback", "joining"),
    [
        (lambda: FreezeCallback("embed", until_epoch=1), {"embed": 5, "layers": 1, "head": 1}),
        (lambda: FreezeCallback("^embed|layers", until_epoch=1.5), {"embed": 7, "layers": 7, "head": 1}),
        (lambda: FreezeCallback(["embed", r"layers\.0"], until_step=3), {"embed": 4, "layers.0": 4, "layers.1": 1}),
        (lambda: FreezeCallback("embed", until_step=12), {"embed": None, "head": 1}),
        (
            lambda: FreezeCallback({1: r"layers\.1", 2: [r"layers\.0", "embed"]}),
            {"embed": 9, "layers.0": 9, "layers.1": 5, "head": 1},
        ),
        # What two patterns match waits for the last of their epochs, in whatever order they are written.
        (lambda: FreezeCallback({2: r"layers\.0", 1: "layers"}), {"layers.0": 9, "layers.1": 5, "embed": 1}),
    ],
)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_frozen_weights_keep_every_bit_until_they_join(tmp_path, callback, joining, accumulation):
    history = History()
    batch = {"per_device_train_batch_size": 8 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer(tmp_path, callback(), history, **batch).train()
    assert max(history.weights) == STEPS
    assert {part: history.first_change(part) for part in joining} == joining


def test_rounding_makes_nothing_join_a_step_late(tmp_path):
    history = History()
    # Three steps an epoch: after five of them 1 + 2/3, which is less than 5/3.
    trainer(tmp_path, FreezeCallback("embed", until_epoch=5 / 3), history, per_device_train_batch_size=11).train()
    assert history.first_change("embed") == 6


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adafactor"])
def test_weights_that_join_begin_as_if_the_optimizer_had_just_met_them(tmp_path, optim):
    """Against a run in which the gradients of the frozen part are thrown away before each step."""

    class ThrowAway(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step < 6:
                for parameter in model.embed.parameters():
                    parameter.grad = None

    histories = History(), History()
    for callback, history in zip((FreezeCallback("embed", until_step=6), ThrowAway()), histories, strict=True):
        # The norm for clipping would count the gradients that are thrown away.
        trainer(tmp_path, callback, history, optim=optim, max_grad_norm=0).train()
    for step in range(STEPS + 1):
        assert all(torch.equal(histories[0].weights[step][n], histories[1].weights[step][n]) for n in copied(Net()))


@pytest.mark.parametrize(
    "make", [lambda: FreezeCallback({1: "embed", 2: "layers"}), lambda: FreezeCallback("embed", until_step=6)]
)
@pytest.mark.parametrize("step", [2, 4, 5, 6, 8, 10])
def test_a_resumed_run_ends_bit_equal(tmp_path, make, step):
    history = History()
    trainer(tmp_path / "whole", make(), history, save_strategy="steps", save_steps=step).train()
    resumed = trainer(tmp_path / "resumed", make())
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert resumed.state.global_step == STEPS
    found = copied(resumed.model)
    assert all(torch.equal(found[name], value) for name, value in history.weights[STEPS].items())


class Boom(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise RuntimeError("boom")


def test_the_model_is_given_back_as_it_was(tmp_path):
    net = Net()
    net.layers[0].requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    with pytest.raises(RuntimeError, match="boom"):
        trainer(tmp_path, FreezeCallback("embed|layers", until_epoch=2), Boom(), net=net).train()
    assert {name: parameter.requires_grad for name, parameter in net.named_parameters()} == before


def test_what_the_user_froze_stays_frozen(tmp_path):
    net, history = Net(), History()
    net.layers[0].requires_grad_(False)
    trainer(tmp_path, FreezeCallback("embed|layers", until_epoch=1), history, net=net).train()
    assert history.first_change("layers.0") is None
    assert history.first_change("layers.1") == history.first_change("embed") == 5


def test_a_second_training_begins_anew(tmp_path):
    net = Net()
    run = trainer(tmp_path, FreezeCallback("embed", until_step=12), net=net)
    run.train()
    run.train()
    assert torch.equal(net.embed.weight, Net().embed.weight)
    history = History()
    trainer(tmp_path, FreezeCallback("embed", until_step=3), history, net=net).train()
    assert history.first_change("embed") == 4


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: FreezeCallback("embde", until_epoch=1), r"'embde' matches no trainable.*nearby: embed\.\w+"),
        (lambda: FreezeCallback({1: "embed", 2: ["head", "encoder"]}), r"'encoder' matches no trainable parameter"),
        (lambda: FreezeCallback(".", until_epoch=1), r"every trainable parameter of Net.*Leave some out"),
    ],
)
def test_patterns_that_do_not_fit_the_model_are_refused(tmp_path, callback, message):
    net = Net()
    with pytest.raises(ArgumentError, match=message):
        trainer(tmp_path, callback(), net=net).train()
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreezeCallback("a"), r"until_epoch=None and until_step=None.*parameter_rules"),
        (lambda: FreezeCallback("a", until_epoch=1, until_step=2), r"until_epoch=1 and until_step=2\. Write one"),
        (lambda: FreezeCallback({1: "a"}, until_epoch=1), "Write the epochs alone"),
        (lambda: FreezeCallback("a", until_epoch=0), "at 0, which is no moment"),
        (lambda: FreezeCallback("a", until_epoch=float("nan")), "at nan, which is no moment"),
        (lambda: FreezeCallback({"1": "a"}), "at '1', which is no moment"),
        (lambda: FreezeCallback("a", until_step=True), "at True, which is no moment"),
        (lambda: FreezeCallback([], until_step=1), "no pattern"),
        (lambda: FreezeCallback({}), "no pattern"),
        (lambda: FreezeCallback("a(", until_step=1), r"'a\(' is no regular expression"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("callback", "warning"),
    [
        (lambda: FreezeCallback("embed", until_epoch=2.9), ""),
        (lambda: FreezeCallback({2: "head", 3: "embed"}), "at epoch 3, and the run ends at epoch 3"),
        (lambda: FreezeCallback("embed", until_step=11), ""),
        (lambda: FreezeCallback("embed", until_step=500), "at step 500, and the run ends at step 12"),
    ],
)
def test_a_moment_beyond_the_end_is_told(tmp_path, caplog, callback, warning):
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, callback()).train()
    assert ("they are not trained" in caplog.text) is bool(warning)
    assert warning in caplog.text


class Wrapper(nn.Module):
    """Puts a part of a name between, as activation checkpointing does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._checkpoint_wrapped_module = inner

    def forward(self, x):
        return self._checkpoint_wrapped_module(x)


def test_names_are_those_of_the_model_without_wrappers(tmp_path):
    net, history = Net(), History()
    net.layers[0] = Wrapper(net.layers[0])
    history.weights[0] = copied(net)
    trainer(tmp_path, FreezeCallback(r"layers\.0\.weight", until_epoch=1), history, net=net).train()
    assert history.first_change("layers.0._checkpoint_wrapped_module.weight") == 5
