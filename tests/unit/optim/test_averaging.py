import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from surestep.errors import ArgumentError, CheckpointError, SurestepError
from surestep.optim.averaging import ExponentialMovingAverage, StochasticWeightAverage, WeightAverage


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.extra = nn.Linear(4, 4)
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.to(dtype)

    def forward(self, tokens):
        return self.head(self.extra(self.norm(self.embed(tokens))))


def train(net, average, steps, start=0):
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        net(torch.randint(5, (6,), generator=generator)).float().square().sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(net)


def both(net, theirs):
    """Update ours and torch's together."""

    class Both:
        def __init__(self, ours):
            self.ours = ours

        def update(self, net):
            self.ours.update(net)
            theirs.update_parameters(net)

    return Both


@pytest.mark.parametrize("buffers", [True, False])
def test_ema_is_torchs(buffers):
    net = Net()
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=buffers)
    # torch's average begins with the weights of the first update, ours with those of the start.
    theirs.n_averaged += 1
    ours = ExponentialMovingAverage(net, 0.9, average_buffers=buffers)
    train(net, both(net, theirs)(ours), 10)
    assert_weights(ours.weights(net), theirs.module.state_dict())


@pytest.mark.parametrize("buffers", [True, False])
def test_swa_is_torchs(buffers):
    net = Net()
    theirs = AveragedModel(net, use_buffers=buffers)
    ours = StochasticWeightAverage(net, average_buffers=buffers)
    train(net, both(net, theirs)(ours), 10)
    assert_weights(ours.weights(net), theirs.module.state_dict())


def assert_weights(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        # torch averages the number of batches too, rounding down at each update.
        if name == "norm.num_batches_tracked":
            continue
        torch.testing.assert_close(ours[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_swa_is_the_mean_in_double():
    net, seen = Net(), []
    average = StochasticWeightAverage(net)
    for step in range(7):
        train(net, average, 1, start=step)
        seen.append(net.extra.weight.detach().double())
    torch.testing.assert_close(
        average.weights(net)["extra.weight"].double(), torch.stack(seen).mean(0), rtol=1e-6, atol=1e-7
    )


def test_each_weight_is_averaged_once_and_nothing_that_is_not_saved():
    averages = ExponentialMovingAverage(Net()).state_dict()["averages"]
    assert set(averages) == set(Net().state_dict()) - {"head.weight"}


def test_a_weight_taken_away_is_passed_over():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    net.extra.bias = None
    train(net, average, 1)
    with average.applied(net):
        assert net.extra.bias is None


def test_whole_numbers_are_copied():
    net = Net()
    average = ExponentialMovingAverage(net)
    train(net, average, 3)
    assert average.weights(net)["norm.num_batches_tracked"] == 3


def test_the_decay_warms_up():
    average = ExponentialMovingAverage(Net(), 0.5, warmup=True)
    shares = []
    for _ in range(12):
        shares.append(average.new_share())
        average.num_updates += 1
    assert shares[0] == 0.9
    assert shares[4] == pytest.approx(1 - 5 / 14)
    assert shares[-1] == 0.5
    assert ExponentialMovingAverage(Net(), 0.25).new_share() == 0.75


def test_applied_weights_are_the_average_and_go_away_again():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    train(net, average, 5)
    own, expected = copy.deepcopy(net.state_dict()), average.weights(net)
    tensors = [id(parameter) for parameter in net.parameters()]
    with average.applied(net) as applied:
        assert applied is net
        assert_weights(net.state_dict(), expected)
        assert net.head.weight is net.embed.weight
        with pytest.raises(SurestepError, match="update it after leaving"):
            average.update(net)
        with pytest.raises(SurestepError, match="applied already"), average.applied(net):
            pass
    assert [id(parameter) for parameter in net.parameters()] == tensors
    for name, value in net.state_dict().items():
        assert torch.equal(value, own[name]), name
    assert not torch.equal(own["extra.weight"], expected["extra.weight"])


def test_own_weights_come_back_after_an_error():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    train(net, average, 2)
    own = net.extra.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), average.applied(net):
        raise ZeroDivisionError
    assert torch.equal(net.extra.weight, own)
    average.update(net)


def test_the_weights_are_copies():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    average.weights(net)["extra.weight"].zero_()
    assert net.extra.weight.abs().sum() > 0
    assert average.weights(net)["extra.weight"].abs().sum() > 0


def test_sixteen_bits_are_averaged_in_thirty_two():
    net = Net(torch.bfloat16)
    average = ExponentialMovingAverage(net, 0.999)
    start = net.extra.weight.detach().double()
    with torch.no_grad():
        net.extra.weight.add_(0.5)
    for _ in range(100):
        average.update(net)
    expected = start + (net.extra.weight.detach().double() - start) * (1 - 0.999**100)
    torch.testing.assert_close(
        average.state_dict()["averages"]["extra.weight"].double(), expected, rtol=1e-5, atol=1e-5
    )
    assert average.weights(net)["extra.weight"].dtype == torch.bfloat16
    own = net.extra.weight.detach().clone()
    with average.applied(net):
        assert not torch.equal(net.extra.weight, own)
    assert torch.equal(net.extra.weight, own)


def test_frozen_weights_cost_nothing_until_they_train():
    net = Net()
    net.extra.requires_grad_(False)
    average = ExponentialMovingAverage(net, 0.5)
    train(net, average, 2)
    assert not [name for name in average.state_dict()["averages"] if name.startswith("extra")]
    assert torch.equal(average.weights(net)["extra.weight"], net.extra.weight)
    net.extra.requires_grad_(True)
    train(net, average, 2, start=2)
    assert not torch.equal(average.weights(net)["extra.weight"], net.extra.weight)


def test_a_tensor_put_in_the_place_of_another_is_followed():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5, average_buffers=False)
    net.norm.running_mean = torch.full((4,), 3.0)
    net.extra.weight = nn.Parameter(torch.zeros(4, 4))
    before = average.state_dict()["averages"]["extra.weight"].clone()
    average.update(net)
    assert torch.equal(average.weights(net)["norm.running_mean"], torch.full((4,), 3.0))
    torch.testing.assert_close(average.weights(net)["extra.weight"], before / 2)


def test_another_copy_of_the_model_can_be_given():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    train(net, average, 2)
    other = copy.deepcopy(net)
    with average.applied(other):
        assert_weights(other.state_dict(), average.weights(net))


def test_a_compiled_model_has_the_same_names():
    net = Net()
    average = ExponentialMovingAverage(net, 0.5)
    train(net, average, 2)
    compiled = torch.compile(net, backend="eager")
    resumed = ExponentialMovingAverage(compiled, 0.5)
    resumed.load_state_dict(average.state_dict())
    assert torch.equal(resumed.weights(net)["extra.weight"], average.weights(net)["extra.weight"])


@pytest.mark.parametrize("kind", [ExponentialMovingAverage, StochasticWeightAverage])
def test_it_resumes_bit_exactly(kind):
    net = Net()
    average = kind(net)
    train(net, average, 4)
    saved = copy.deepcopy((net.state_dict(), average.state_dict()))
    train(net, average, 4, start=4)
    again = Net()
    again.load_state_dict(saved[0])
    resumed = kind(again)
    resumed.load_state_dict(saved[1])
    assert resumed.num_updates == 4
    train(again, resumed, 4, start=4)
    for name, value in average.weights(net).items():
        assert torch.equal(resumed.weights(again)[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.ones(3)}, r"'extra.weight' has the shape \(3,\), the model the shape \(4, 4\)"),
        ({"other": torch.ones(3)}, r"'other' has the shape \(3,\), the model no such weight"),
    ],
)
def test_a_foreign_state_is_an_error(change, message):
    average = ExponentialMovingAverage(Net())
    state = average.state_dict()
    with pytest.raises(CheckpointError, match=message):
        average.load_state_dict({**state, "averages": state["averages"] | change})
    assert "other" not in average.state_dict()["averages"]


def test_an_average_of_nothing_cannot_be_applied():
    net = Net()
    with pytest.raises(SurestepError, match="no weights yet"), StochasticWeightAverage(net).applied(net):
        pass


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_an_error(decay):
    with pytest.raises(ArgumentError, match="below 1"):
        ExponentialMovingAverage(Net(), decay)


def test_a_kind_must_say_its_share():
    with pytest.raises(TypeError, match=r"WeightAverage .*new_share"):
        WeightAverage(Net(), average_buffers=True)  # type: ignore[abstract]


def test_nothing_is_read_on_the_host():
    with torch._subclasses.fake_tensor.FakeTensorMode():
        net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        average = ExponentialMovingAverage(net)
        average.update(net)
        with average.applied(net):
            pass
