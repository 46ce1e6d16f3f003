import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from surestep.errors import ArgumentError, ModelError
from surestep.optim.build import build_optimizer, optimizer_class_and_kwargs
from surestep.optim.groups import default_groups, parameter_names
from surestep.optim.muon import MuonWithAdamW
from surestep.optim.schedules import get_scheduler
from surestep.optim.targets import hidden_matrices

RUN = {"learning_rate": 1e-2, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-7, "weight_decay": 0.1}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(9, 8)
        self.pos_embed = nn.Parameter(torch.randn(6, 8))
        self.conv = nn.Conv1d(8, 8, 1)
        self.hidden = nn.Linear(8, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 9)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.pos_embed
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.attn(x, x, x, need_weights=False)[0] + self.hidden(x)
        return self.out(self.norm(x))


HIDDEN = ["hidden.weight", "attn.in_proj_weight", "attn.out_proj.weight"]


def llama(tied):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=12,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )


def names_of(net, members):
    ids = {id(parameter) for parameter in members}
    return [name for name, parameter in net.named_parameters() if id(parameter) in ids]


def test_hidden_matrices_are_neither_embedding_nor_head():
    net = Net()
    assert names_of(net, hidden_matrices(net)) == HIDDEN
    net.hidden.requires_grad_(False)
    assert names_of(net, hidden_matrices(net)) == HIDDEN[1:]


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_matrices_of_a_language_model(tied):
    net = llama(tied)
    names = names_of(net, hidden_matrices(net))
    assert len(names) == 7
    assert all(".layers.0." in name for name in names)


def test_heads_are_known_by_name_wherever_they_stand():
    net = nn.ModuleDict({"classifier": nn.Linear(4, 4), "body": nn.Linear(4, 4), "last": nn.Linear(4, 4)})
    assert names_of(net, hidden_matrices(net)) == ["body.weight"]


def test_a_model_says_what_its_output_embeddings_are():
    net = nn.ModuleDict({"decoder": nn.Linear(4, 4), "body": nn.Linear(4, 4), "last": nn.Linear(4, 4)})
    net.get_output_embeddings = lambda: net["decoder"]
    assert names_of(net, hidden_matrices(net)) == ["body.weight"]


def made(net, **settings):
    cls, kwargs = optimizer_class_and_kwargs("muon", **RUN | settings, model=net)
    return build_optimizer(cls, kwargs, net, default_groups(net, 0.0))


def steps(net, optimizers, count, schedules=(), start=0):
    for step in range(start, start + count):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(9, (3, 6), generator=generator)
        nn.functional.cross_entropy(net(tokens).flatten(0, 1), tokens.flatten()).backward()
        for part in (*optimizers, *schedules):
            part.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


def assert_equal(left, right):
    for (name, one), other in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_it_is_torchs_muon_and_torchs_adamw():
    ours, theirs = Net(), Net()
    optimizer = made(ours, optim_args="momentum=0.9,ns_steps=3")
    assert isinstance(optimizer, torch.optim.Optimizer)
    hidden = hidden_matrices(theirs)
    muon = torch.optim.Muon(hidden, lr=1e-2, weight_decay=0.1, momentum=0.9, ns_steps=3, adjust_lr_fn="match_rms_adamw")
    decayed, plain = default_groups(theirs, 0.1)
    decayed["params"] = [p for p in decayed["params"] if all(p is not other for other in hidden)]
    adamw = torch.optim.AdamW([decayed, plain], lr=1e-2, betas=(0.8, 0.95), eps=1e-7)
    schedules = [get_scheduler("cosine", part, 2, 20) for part in (optimizer, muon, adamw)]
    steps(ours, [optimizer], 8, schedules[:1])
    steps(theirs, [muon, adamw], 8, schedules[1:])
    assert_equal(ours, theirs)


def test_groups_tell_who_is_who():
    net = Net()
    optimizer = made(net)
    groups = zip(optimizer.param_groups, parameter_names(optimizer, net), strict=True)
    described = [(group["use_muon"], group["weight_decay"], names) for group, names in groups]
    assert described[1] == (True, 0.1, HIDDEN)
    assert [(use, decay) for use, decay, _ in described] == [(False, 0.1), (True, 0.1), (False, 0.0)]
    assert sum(len(names) for _, _, names in described) == len(list(net.parameters()))


def test_it_resumes_bit_exactly():
    whole = Net()
    optimizer = made(whole)
    schedule = get_scheduler("linear", optimizer, 0, 20)
    steps(whole, [optimizer], 3, [schedule])
    saved = copy.deepcopy([part.state_dict() for part in (whole, optimizer, schedule)])
    steps(whole, [optimizer], 3, [schedule], start=3)
    resumed = Net()
    optimizer = made(resumed)
    schedule = get_scheduler("linear", optimizer, 0, 20)
    for part, state in zip((resumed, optimizer, schedule), saved, strict=True):
        part.load_state_dict(state)
    steps(resumed, [optimizer], 3, [schedule], start=3)
    assert_equal(whole, resumed)


def test_muon_takes_the_layers_it_is_told():
    net = Net()
    optimizer = made(net, optim_target_modules=["out"], weight_decay=0.0)
    assert names_of(net, [p for g in optimizer.param_groups if g["use_muon"] for p in g["params"]]) == [
        "attn.out_proj.weight",
        "out.weight",
    ]


def test_groups_of_ones_own_are_kept():
    net = Net()
    mine = [{"params": list(net.parameters()), "lr": 7.0, "weight_decay": 0.5}]
    optimizer = made(net, groups=mine)
    assert [(g["use_muon"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (False, 7.0, 0.5),
        (True, 7.0, 0.5),
    ]


def test_a_group_added_later_is_stepped_too():
    net = Net()
    optimizer = made(net)
    late = nn.Parameter(torch.ones(4))
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(4)
    optimizer.step()
    assert (late < 1.0).all()


def test_a_closure_is_called():
    matrix = nn.Parameter(torch.eye(3))
    optimizer = MuonWithAdamW([{"params": [matrix], "use_muon": True}], lr=0.1)

    def closure():
        loss = matrix.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3.0
    assert not torch.equal(matrix, torch.eye(3))


def test_nothing_for_muon_is_an_error():
    with pytest.raises(ModelError, match="no trainable hidden matrix"):
        made(nn.Linear(3, 3))
    with pytest.raises(ArgumentError, match="needs the model"):
        optimizer_class_and_kwargs("muon", **RUN)


def test_conv1d_layers_of_gpt2_are_hidden_matrices():
    net = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    assert len(hidden_matrices(net)) == 4
