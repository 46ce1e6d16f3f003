"""Averages in real runs, against averages made by hand from the weights of every step."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from surestep import Trainer, TrainerCallback, TrainingArguments
from surestep.callbacks.averaging import EMACallback, SWACallback
from surestep.checkpoint.tree import read_tree
from surestep.errors import ArgumentError, CheckpointError

STEPS = 12


class Net(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.head = nn.Linear(8, 3)

    def forward(self, x, labels=None):
        logits = self.head(self.norm(self.hidden(x)).tanh())
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def samples(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"x": torch.randn(4, generator=generator), "labels": torch.randint(3, (), generator=generator)}
        for _ in range(count)
    ]


TRAIN, EVAL = samples(64, 1), samples(24, 2)


class History(TrainerCallback):
    """Keeps a copy of the weights after every step, and of the parameters before it."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.begin: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.begin[state.global_step] = {name: value.detach().clone() for name, value in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copied(model)


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trainer(folder: Path, *callbacks, net: Net | None = None, eval_dataset=EVAL, **changes) -> Trainer:
    values = {
        "max_steps": STEPS,
        "learning_rate": 0.1,
        "per_device_train_batch_size": 8,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_strategy": "steps",
        "save_steps": 4,
        "logging_steps": 4,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = TrainingArguments(output_dir=str(folder), **(values | changes))
    return Trainer(net or Net(), args, train_dataset=TRAIN, eval_dataset=eval_dataset, callbacks=list(callbacks))


def evaluation_losses(run: Trainer, name: str = "eval_loss") -> dict[int, float]:
    return {entry["step"]: entry[name] for entry in run.state.log_history if name in entry}


def loss_of(weights: dict[str, torch.Tensor], data=EVAL) -> float:
    net = Net().eval()
    net.load_state_dict(weights)
    with torch.no_grad():
        batch = {name: torch.stack([sample[name] for sample in data]) for name in data[0]}
        return float(net(**batch)["loss"])


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance) -> None:
    torch.testing.assert_close(found, expected, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[int, dict[str, torch.Tensor]]:
    """The weights of every step of the run without an average, and of step 0."""
    history = History()
    trainer(tmp_path_factory.mktemp("plain"), history).train()
    return {0: copied(Net()), **history.weights}


@pytest.fixture(scope="module")
def ema(plain) -> dict[int, dict[str, torch.Tensor]]:
    """torch's average of those weights at every step."""
    net = Net()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    found = {}
    for step in range(STEPS + 1):
        net.load_state_dict(plain[step])
        average.update_parameters(net)
        found[step] = copied(average.module)
    return found


CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def test_training_is_untouched_evaluations_are_the_averages_and_the_model_ends_with_it(tmp_path, plain, ema):
    history, averaging = History(), EMACallback(0.8)
    run = trainer(tmp_path, averaging, history, save_strategy="no")
    run.train()
    for step in range(1, STEPS + 1):
        assert_same(history.weights[step], plain[step])
        assert_same(history.begin[step - 1], plain[step - 1])
    expected = {step: pytest.approx(loss_of(ema[step]), rel=1e-5) for step in (4, 8, 12)}
    assert evaluation_losses(run) == expected
    assert loss_of(plain[12]) != pytest.approx(loss_of(ema[12]), rel=1e-3), "the two can be told apart"
    assert_same(copied(run.model), ema[12], **CLOSE)
    assert run.evaluate()["eval_loss"] == pytest.approx(loss_of(ema[12]), rel=1e-5)
    assert not run.model._forward_pre_hooks
    assert not run.model._state_dict_pre_hooks


def test_checkpoints_hold_the_own_weights_and_the_average_beside(tmp_path, plain, ema):
    from safetensors.torch import load_file

    trainer(tmp_path, EMACallback(0.8)).train()
    for step in (4, 8, 12):
        folder = tmp_path / f"checkpoint-{step}"
        assert_same(load_file(folder / "model.safetensors"), plain[step])
        assert_same(read_tree(folder, "ema")["averages"], ema[step], **CLOSE)


def test_evaluations_of_several_sets_all_use_the_average(tmp_path, ema):
    sets = {"first": EVAL, "second": samples(16, 3)}
    run = trainer(tmp_path, EMACallback(0.8), eval_dataset=sets)
    run.train()
    for name, data in sets.items():
        expected = {step: pytest.approx(loss_of(ema[step], data), rel=1e-5) for step in (4, 8, 12)}
        assert evaluation_losses(run, f"eval_{name}_loss") == expected


def test_evaluations_of_the_own_weights_where_asked_for(tmp_path, plain, ema):
    run = trainer(tmp_path, EMACallback(0.8, evaluate=False))
    run.train()
    assert evaluation_losses(run)[8] == pytest.approx(loss_of(plain[8]), rel=1e-5)
    assert_same(copied(run.model), ema[12], **CLOSE)


@pytest.mark.parametrize("make", [lambda: EMACallback(0.8, warmup=True), lambda: SWACallback(0.25, every=3)])
def test_a_resumed_run_ends_bit_equal(tmp_path, make):
    whole = trainer(tmp_path / "whole", make())
    whole.train()
    resumed = trainer(tmp_path / "whole", make())
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert_same(copied(resumed.model), copied(whole.model))
    elsewhere = trainer(tmp_path / "other", make())
    elsewhere.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert_same(copied(elsewhere.model), copied(whole.model))


def test_the_average_is_part_of_what_the_manifest_vouches_for(tmp_path):
    run = trainer(tmp_path, EMACallback(0.8))
    run.train()
    files = json.loads((tmp_path / "checkpoint-8" / "manifest.json").read_text())["files"]
    assert {"ema.json", "ema.safetensors"} <= set(files)


def test_a_checkpoint_without_the_average_is_refused(tmp_path):
    trainer(tmp_path).train()
    with pytest.raises(CheckpointError, match=r"has no average 'ema'"):
        trainer(tmp_path, EMACallback(0.8)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))


def test_best_model_at_end_is_the_average_of_the_best_evaluation(tmp_path, ema):
    run = trainer(
        tmp_path,
        EMACallback(0.8),
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    run.train()
    losses = {step: loss_of(ema[step]) for step in (4, 8, 12)}
    assert run.state.best_global_step == max(losses, key=losses.__getitem__) != 12
    assert_same(copied(run.model), ema[run.state.best_global_step], **CLOSE)


class Curious(TrainerCallback):
    """Looks at predictions in the middle of training, as users do, and at the weights after."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.eval()
        with torch.no_grad():
            model(**{name: torch.stack([sample[name] for sample in EVAL]) for name in EVAL[0]})
        self.seen[state.global_step] = copied(model)
        model.train()


def test_a_look_at_the_model_between_steps_changes_nothing(tmp_path, plain):
    curious = Curious()
    trainer(tmp_path, EMACallback(0.8), curious).train()
    for step in range(1, STEPS + 1):
        assert_same(curious.seen[step], plain[step])


class Predicting(TrainerCallback):
    """Predicts with the trainer at step 6 and looks at the parameters after."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 6:
            self.loss = self.trainer.predict(EVAL).metrics["test_loss"]
            self.parameters = {name: value.detach().clone() for name, value in model.named_parameters()}


def test_predictions_during_training_use_the_average(tmp_path, plain, ema):
    predicting = Predicting()
    predicting.trainer = trainer(tmp_path, EMACallback(0.8), predicting)
    predicting.trainer.train()
    assert predicting.loss == pytest.approx(loss_of(ema[6]), rel=1e-5)
    assert_same(predicting.parameters, plain[6])


def test_a_failed_evaluation_leaves_the_model_its_own_weights(tmp_path, plain):
    def fail(prediction):
        raise RuntimeError("boom")

    run = trainer(tmp_path, EMACallback(0.8))
    run.compute_metrics = fail
    with pytest.raises(RuntimeError, match="boom"):
        run.train()
    assert_same(dict(run.model.named_parameters()), plain[4])
    assert not run.model._forward_pre_hooks


def mean(weights: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([item[name] for item in weights]).mean(0) for name in weights[0]}


@pytest.mark.parametrize(
    ("callback", "steps"),
    [
        (lambda: SWACallback(0.5, every=2), (6, 8, 10, 12)),
        (lambda: SWACallback(9, every=1), (9, 10, 11, 12)),
        (lambda: SWACallback(0), (8, 12)),
        (SWACallback, (12,)),
        (lambda: SWACallback(100), ()),
    ],
)
def test_swa_is_the_mean_of_the_weights_it_has_seen(tmp_path, plain, callback, steps):
    run = trainer(tmp_path, callback())
    run.train()
    expected = mean([plain[step] for step in steps]) if steps else plain[12]
    assert_same(copied(run.model), expected, **CLOSE)
    before = [step for step in steps if step < 8]
    assert evaluation_losses(run)[4] == pytest.approx(loss_of(plain[4]), rel=1e-5), "no average yet"
    if before:
        seen = mean([plain[step] for step in steps if step <= 8])
        assert evaluation_losses(run)[8] == pytest.approx(loss_of(seen), rel=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_swa_tells_of_batch_norms(tmp_path, caplog, norm):
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, SWACallback(), net=Net(norm)).train()
    assert ("torch.optim.swa_utils.update_bn" in caplog.text) is norm


def test_ema_every_few_steps(tmp_path, plain):
    run = trainer(tmp_path, EMACallback(0.5, every=5))
    run.train()
    expected = {name: value * 0.25 + plain[5][name] * 0.25 + plain[10][name] * 0.5 for name, value in plain[0].items()}
    assert_same(copied(run.model), expected, **CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMACallback(every=0), r"EMACallback\(every=0\)"),
        (lambda: SWACallback(-1), r"SWACallback\(start=-1\)"),
        (lambda: SWACallback(every=0), r"SWACallback\(every=0\)"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
