"""The optimizers of other packages: with stand-ins against the original, and for real where they are installed."""

import copy
import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
import transformers.trainer_optimizer as original
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import Trainer, TrainingArguments

from surestep import optional
from surestep.errors import ArgumentError, MissingPackageError
from surestep.optim.build import RECIPES, build_optimizer, optimizer_class_and_kwargs, updates_in_backward
from surestep.optim.catalogue.grokadamw import grokadamw
from surestep.optim.catalogue.lomo import lomo
from surestep.optim.catalogue.packages import PACKAGES
from surestep.optim.groups import default_groups
from surestep.optim.layerwise import LayerwiseOptimizer
from surestep.optim.schedules import get_scheduler

RUN = {"learning_rate": 1e-2, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-7}
CLASSES = {
    "bitsandbytes.optim": ["AdamW", "Lion", "RMSprop", "AdEMAMix"],
    "torchao.optim": ["AdamW4bit", "AdamW8bit"],
    "torch_xla.amp.syncfree": ["AdamW"],
    "torch_npu.optim": ["NpuFusedAdamW"],
    "torchdistx.optimizers": ["AnyPrecisionAdamW"],
    "galore_torch": ["GaLoreAdamW", "GaLoreAdamW8bit", "GaLoreAdafactor"],
    "apollo_torch": ["APOLLOAdamW"],
    "lomo_optim": ["Lomo", "AdaLomo"],
    "grokadamw": ["GrokAdamW"],
    "schedulefree": ["RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"],
    "optimi": ["StableAdamW"],
}
# bitsandbytes keeps the state of fewer than 4,096 weights in 32 bits.
WIDTH = 64
# Where a package needs an accelerator for what it does in a step.
HOME = {"lomo": "lomo_optim", "apollo": "apollo_torch", "galore": "galore_torch", "grok": "grokadamw"}
NEEDS_ACCELERATOR = {"adalomo", "galore_adamw_8bit", "galore_adamw_8bit_layerwise"}


class StandIn(Optimizer):
    def __init__(self, params, lr=1e-3, **options):
        self.options = options
        super().__init__(params.parameters() if isinstance(params, nn.Module) else params, {"lr": lr, **options})


def model(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, width), nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 2))


@pytest.fixture
def stand_ins(monkeypatch):
    """Let both libraries believe that every package is there."""
    for path, names in CLASSES.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, name, module)
        for name in names:
            setattr(sys.modules[path], name, type(name, (StandIn,), {}))
    for check in [name for name in dir(original) if name.startswith("is_") and name.endswith("_available")]:
        monkeypatch.setattr(original, check, lambda *_: True)
    monkeypatch.setattr(original.importlib.metadata, "version", lambda _: "99.0")
    optional.installed.cache_clear()
    lomo.cache_clear()
    grokadamw.cache_clear()
    yield
    optional.installed.cache_clear()
    lomo.cache_clear()
    grokadamw.cache_clear()


def both(name, tmp_path, optim_args=None, warmup_steps=0, **run):
    net = model()
    run = RUN | run
    args = TrainingArguments(
        output_dir=str(tmp_path),
        optim=name,
        optim_args=optim_args,
        optim_target_modules="all-linear",
        warmup_steps=warmup_steps,
        report_to=[],
        use_cpu=True,
        **run,
    )
    theirs = Trainer.get_optimizer_cls_and_kwargs(args, net)
    ours = optimizer_class_and_kwargs(
        name, **run, optim_args=optim_args, warmup_steps=warmup_steps, optim_target_modules="all-linear", model=net
    )
    return ours, theirs


def described(kwargs):
    """Make arguments comparable: parameters by identity."""
    groups = [{**group, "params": [id(p) for p in group["params"]]} for group in kwargs.get("params", [])]
    return {**kwargs, **({"params": groups} if groups else {})}


ARGUMENTS = {
    "ademamix": "beta1=0.5,beta3=0.99,alpha=2,eps=1e-3,t_alpha=7,t_beta3=9",
    "galore_adamw": "rank=4,update_proj_gap=3,scale=0.5,proj_type=left",
    "apollo_adamw": "rank=4,proj=svd,scale_type=tensor,update_proj_gap=3,scale=2,proj_type=right",
    "grokadamw": "alpha_init=0.5,lamb=3,gamma=0.2,grokking_signal_decay_rate=0.3,gradient_clipping=2",
    "schedule_free_adamw": "weight_lr_power=1,r=0.5",
    "adamw_anyprecision": "use_kahan_summation=True,momentum_dtype=bfloat16,variance_dtype=float16",
}
CASES = [(name, None) for name in PACKAGES] + list(ARGUMENTS.items())


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("name", "optim_args"), CASES)
def test_class_and_arguments_are_the_originals(name, optim_args, tmp_path):
    if name.endswith("layerwise"):
        (cls, kwargs), (_, plain) = both(name, tmp_path)[0], both(name.removesuffix("_layerwise"), tmp_path)[1]
        assert cls is LayerwiseOptimizer
        assert kwargs.pop("inner") is RECIPES[name.removesuffix("_layerwise")].load()
        shapes = [[p.shape for p in group["params"]] for group in kwargs.pop("params")]
        assert shapes == [[p.shape for p in group["params"]] for group in plain.pop("params")]
        assert kwargs == plain
        return
    (cls, kwargs), (their_cls, theirs) = both(name, tmp_path, optim_args)
    assert cls is their_cls or (issubclass(cls, their_cls) and ("lomo" in name or "grok" in name))
    assert described(kwargs) == described(theirs)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_sgd", "schedule_free_radam", "stable_adamw"])
def test_the_runs_decay_and_warm_up_reach_the_optimizer(name, tmp_path):
    ours, theirs = both(name, tmp_path, weight_decay=0.1, warmup_steps=12)
    assert ours == theirs
    assert ours[1]["weight_decay"] == 0.1


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("name", "optim_args", "key", "value"),
    [
        ("rmsprop_bnb", "alpha=0.9", "alpha", 0.9),
        ("adamw_torch_4bit", "block_size=64", "block_size", 64),
        ("stable_adamw", "kahan_sum=false", "kahan_sum", False),
        ("galore_adafactor_layerwise", None, "relative_step", False),
    ],
)
def test_arguments_have_their_types_where_the_originals_do_not(name, optim_args, key, value):
    _, kwargs = optimizer_class_and_kwargs(
        name, **RUN, optim_args=optim_args, optim_target_modules="all-linear", model=model()
    )
    assert kwargs[key] == value
    assert type(kwargs[key]) is type(value)


@pytest.mark.usefixtures("stand_ins")
def test_low_rank_optimizers_keep_the_runs_groups():
    net = model()
    _, kwargs = optimizer_class_and_kwargs(
        "galore_adamw", **RUN, weight_decay=0.1, optim_target_modules=["1"], model=net
    )
    shapes = [([tuple(p.shape) for p in g["params"]], g["weight_decay"], "rank" in g) for g in kwargs["params"]]
    assert shapes == [
        ([(9, 4), (2, 4)], 0.1, False),
        ([(4, 4)], 0.1, True),
        ([(4,), (4,), (4,), (2,)], 0.0, False),
    ]
    mine = [{"params": [net[1].weight, net[3].weight], "lr": 7.0}]
    _, kwargs = optimizer_class_and_kwargs("galore_adamw", **RUN, optim_target_modules=["1"], model=net, groups=mine)
    assert [(group["lr"], "rank" in group) for group in kwargs["params"]] == [(7.0, False), (7.0, True)]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim_target_modules": "all-linear"}, "galore_adamw treats some parameters apart and needs the model"),
        ({"model": model()}, "needs optim_target_modules"),
        ({"model": model(), "optim_target_modules": ["attn"]}, r"names no trainable linear layer.*among: 1, 3"),
    ],
)
def test_low_rank_optimizers_say_what_they_need(settings, message):
    with pytest.raises(ArgumentError, match=message):
        optimizer_class_and_kwargs("galore_adamw", **RUN, **settings)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("adamw_8bit", "pip install bitsandbytes"),
        ("adamw_torch_4bit", "pip install torchao"),
        ("galore_adamw", "pip install bitsandbytes"),
        ("lomo", "pip install lomo-optim"),
        ("grokadamw", "pip install grokadamw"),
        ("schedule_free_sgd", "pip install schedulefree"),
        ("stable_adamw", "pip install torch-optimi"),
        ("adamw_torch_xla", "pip install torch_xla"),
        ("adamw_anyprecision", "https://github.com/pytorch/torchdistx"),
    ],
)
def test_a_missing_package_is_named(name, package, monkeypatch):
    optional.installed.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "transformers" or None)
    with pytest.raises(MissingPackageError, match=package):
        optimizer_class_and_kwargs(name, **RUN, model=model(), optim_target_modules="all-linear")
    optional.installed.cache_clear()


def test_which_optimizers_update_in_backward():
    found = {name for name in RECIPES if updates_in_backward(name)}
    assert found == {"lomo", "adalomo"} | {name for name in RECIPES if name.endswith("layerwise")}


class PackagedLomo(Optimizer):
    """What lomo-optim does, in few lines: hooks update whatever gradient is there; the last one is left over."""

    def __init__(self, model, lr):
        self.model, self.lr = model, lr
        self.exp_avg_sq = {name: torch.zeros(()) for name, _ in model.named_parameters()}
        for parameter in model.parameters():
            parameter.register_hook(self.grad_func)
        super().__init__(model.parameters(), {"lr": lr})

    @torch.no_grad()
    def grad_func(self, _gradient):
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                self.exp_avg_sq[name] += parameter.grad.square().sum() * self.step_num
                parameter.sub_(parameter.grad, alpha=self.lr)
                parameter.grad = None


@pytest.mark.usefixtures("stand_ins")
def test_lomo_follows_the_schedule_and_finishes_in_step():
    sys.modules["lomo_optim"].Lomo = PackagedLomo
    nets = model(), model()
    cls, kwargs = optimizer_class_and_kwargs("lomo", **RUN, model=nets[0])
    optimizers = build_optimizer(cls, kwargs, nets[0], []), torch.optim.SGD(nets[1].parameters(), lr=1e-2)
    schedules = [get_scheduler("linear", optimizer, 2, 10) for optimizer in optimizers]
    for step in range(6):
        for net, optimizer, schedule in zip(nets, optimizers, schedules, strict=True):
            backward(net, step)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert_equal(*nets)
    again = build_optimizer(cls, {"lr": 1e-2, "model": model()}, model(), [])
    again.load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    assert again.step_num == 7
    assert again.exp_avg_sq == optimizers[0].exp_avg_sq


def backward(net, step):
    generator = torch.Generator().manual_seed(step)
    net(torch.randint(9, (6,), generator=generator)).square().sum().backward()


def assert_equal(left, right):
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(one, other)


class GroupKeeper(torch.optim.SGD):
    """Keeps its moments in the groups, as GrokAdamW does."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                moments = group.setdefault("state", {}).setdefault(parameter, {"sum": torch.zeros_like(parameter)})
                moments["sum"] += parameter.grad
                parameter.sub_(moments["sum"], alpha=group["lr"])


@pytest.mark.usefixtures("stand_ins")
def test_moments_kept_in_the_groups_are_saved_as_state():
    sys.modules["grokadamw"].GrokAdamW = GroupKeeper
    cls = RECIPES["grokadamw"].load()
    nets = model(), model()
    whole, resumed = (cls(default_groups(net, 0.0), lr=0.1) for net in nets)
    backward(nets[0], 0)
    whole.step()
    whole.zero_grad()
    assert plain(whole.state_dict())
    nets[1].load_state_dict(nets[0].state_dict())
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for net, optimizer in zip(nets, (whole, resumed), strict=True):
        backward(net, 1)
        optimizer.step()
    assert_equal(*nets)


class Overrides:
    def __init__(self):
        self.registered = []

    def register_module_override(self, module, name, options):
        self.registered.append((module, name, options))


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("name", "count"), [("adamw_8bit", 1), ("paged_adamw_32bit", 0)])
def test_embeddings_keep_their_state_in_32_bits(name, count):
    overrides, package = Overrides(), sys.modules["bitsandbytes"]
    package.optim = sys.modules["bitsandbytes.optim"]
    package.optim.GlobalOptimManager = type("GlobalOptimManager", (), {"get_instance": staticmethod(lambda: overrides)})
    package.optim.AdamW.__module__ = "bitsandbytes.optim"
    net = model()
    build_optimizer(*optimizer_class_and_kwargs(name, **RUN), net, default_groups(net, 0.0))
    assert overrides.registered == [(net[0], "weight", {"optim_bits": 32})] * count


class StandInProjector:
    def __init__(self, rank):
        self.rank, self.ortho_matrix, self.seed = rank, None, 3


class ProjectingSGD(torch.optim.SGD):
    """Keeps an object in its state, as GaLore and APOLLO do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if "rank" not in group:
                    state["plain"] = parameter.detach() * 3
                    continue
                if "projector" not in state:
                    state["projector"] = sys.modules["galore_torch.galore_projector"].GaLoreProjector(group["rank"])
                state["projector"].ortho_matrix = [parameter.detach() * 2, parameter.detach()]
        return super().step(closure)


def test_a_projector_is_saved_as_data(monkeypatch):
    home = ModuleType("galore_torch.galore_projector")
    home.GaLoreProjector = type("GaLoreProjector", (StandInProjector,), {})
    monkeypatch.setitem(sys.modules, "galore_torch", ModuleType("galore_torch"))
    monkeypatch.setitem(sys.modules, "galore_torch.galore_projector", home)
    kind = type("GaLoreSGD", (ProjectingSGD,), {"__module__": "galore_torch.sgd"})
    for cls, inner in ((kind, {}), (LayerwiseOptimizer, {"inner": kind})):
        nets = model(), model()
        optimizers = [
            build_optimizer(
                cls,
                {"lr": 0.1, **inner},
                net,
                [{"params": net[0].parameters(), "rank": 2}, {"params": net[1:].parameters()}],
            )
            for net in nets
        ]
        backward(nets[0], 0)
        optimizers[0].step()
        saved = optimizers[0].state_dict()
        assert plain(saved)
        assert saved["state"][0]["projector"]["kind"] == "GaLoreProjector"
        optimizers[1].load_state_dict(copy.deepcopy(saved))
        optimizers[1].load_state_dict({**saved, "state": {}})
        assert not optimizers[1].state
        optimizers[1].load_state_dict(copy.deepcopy(saved))
        for one, other in zip(nets[0][0].parameters(), nets[1][0].parameters(), strict=True):
            before, after = (o.state[p]["projector"] for o, p in zip(optimizers, (one, other), strict=True))
            assert type(after) is home.GaLoreProjector
            assert (after.rank, after.seed) == (2, 3)
            assert all(map(torch.equal, after.ortho_matrix, before.ortho_matrix))


def _installed(name):
    if name not in PACKAGES:
        return True
    modules = {module.partition(".")[0] for module in CLASSES}
    load = RECIPES[name].load
    module = getattr(load, "module", None) or next(m for key, m in HOME.items() if key in name)
    assert module.partition(".")[0] in modules
    return importlib.util.find_spec(module.partition(".")[0]) is not None


@pytest.mark.parametrize("name", RECIPES)
def test_for_real(name):
    """Train, save, go on in a fresh optimizer: the same as without the stop."""
    if not _installed(name):
        pytest.skip(f"the package of '{name}' is not installed")
    if name in NEEDS_ACCELERATOR and not torch.cuda.is_available():
        pytest.skip(f"'{name}' needs an accelerator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, states = real_run(name, 6, None)
        resumed, _ = real_run(name, 6, states)
    assert plain(states[1])
    start = model(WIDTH)
    assert any(not torch.equal(one, other) for one, other in zip(start.parameters(), whole.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in whole.parameters())
    assert_equal(whole, resumed)


def plain(value):
    """Say whether a checkpoint can hold `value`: numbers, words, tensors, and lists and dictionaries of them."""
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and plain(entry) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))


def copied(value):
    """Return a copy as a checkpoint makes it: tensor subclasses are taken apart and put together again."""
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, torch.Tensor) and is_traceable_wrapper_subclass(value):
        names, context = value.__tensor_flatten__()
        parts = {name: getattr(value, name).clone() for name in names}
        return type(value).__tensor_unflatten__(parts, context, value.size(), value.stride())
    return copy.deepcopy(value)


def real_run(name, steps, states):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = model(WIDTH).to(device)
    optim_args = "rank=2,update_proj_gap=2" if "galore" in name or "apollo" in name else None
    cls, kwargs = optimizer_class_and_kwargs(
        name, **RUN, optim_args=optim_args, optim_target_modules="all-linear", model=net
    )
    optimizer = build_optimizer(cls, kwargs, net, default_groups(net, 0.0))
    schedule = get_scheduler("linear", optimizer, 0, 20)
    first = 0
    if states is not None:
        first = 3
        for part, state in zip((net, optimizer, schedule), states, strict=True):
            part.load_state_dict(state)
    for step in range(first, steps):
        if step == 3:
            states = [copied(part.state_dict()) for part in (net, optimizer, schedule)]
        if hasattr(optimizer, "train"):
            optimizer.train()
        torch.manual_seed(step)
        generator = torch.Generator().manual_seed(step)
        net(torch.randint(9, (6,), generator=generator).to(device)).square().sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return net, states
