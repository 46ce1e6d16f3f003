"""Every family against torch or a version by hand, in float64, against finite differences, and part by part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import surestep as s
from surestep.errors import ArgumentError, DataError, ModelError

N, C, D = 7, 5, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape: int, ignored: int = 2) -> Tensor:
    labels = torch.randint(0, C, shape, generator=torch.Generator().manual_seed(1))
    labels.view(-1)[1 : 1 + ignored] = -100
    return labels


WEIGHTS = [0.5, 2.0, 1.0, 0.1, 3.0]
COSINES = torch.tanh(random(N, C)) * 0.98


def focal_by_hand(logits: Tensor, labels: Tensor, gamma: float, alpha: list[float] | None) -> Tensor:
    kept = labels != -100
    p = logits[kept].softmax(-1)[torch.arange(int(kept.sum())), labels[kept]]
    factor = 1.0 if alpha is None else torch.tensor(alpha, dtype=p.dtype)[labels[kept]]
    return (-factor * (1 - p) ** gamma * p.log()).mean()


def sigmoid_focal_by_hand(logits: Tensor, labels: Tensor, gamma: float, alpha: float) -> Tensor:
    # The form of the paper, as torchvision writes it.
    p = logits.sigmoid()
    plain = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    truth = p * labels + (1 - p) * (1 - labels)
    return ((alpha * labels + (1 - alpha) * (1 - labels)) * plain * (1 - truth) ** gamma).mean()


def hardest_by_hand(embeddings: Tensor, labels: Tensor) -> Tensor:
    losses = []
    for i in range(len(labels)):
        own = [(embeddings[i] - embeddings[j]).norm() for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        others = [(embeddings[i] - embeddings[j]).norm() for j in range(len(labels)) if labels[j] != labels[i]]
        if own and others:
            losses.append(torch.relu(max(own) - min(others) + 0.7))
    return torch.stack(losses).mean()


def contrastive_by_hand(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    losses = []
    for (one, other), together in zip(embeddings, labels, strict=True):
        apart = (one - other).norm()
        losses.append(apart**2 if together else torch.relu(margin - apart) ** 2)
    return torch.stack(losses).mean() / 2


def in_batch_by_hand(embeddings: Tensor, temperature: float) -> Tensor:
    one, other = functional.normalize(embeddings, dim=-1).unbind(1)
    scores = one @ other.T / temperature
    own = scores.diagonal()
    return ((scores.logsumexp(0) - own).mean() + (scores.logsumexp(1) - own).mean()) / 2


def arcface_by_hand(cosines: Tensor, labels: Tensor) -> Tensor:
    rows = []
    for row, label in zip(cosines, labels, strict=True):
        angle = torch.arccos(row[label])
        low = torch.cos(angle + 0.5) if angle < math.pi - 0.5 else row[label] - 0.5 * math.sin(0.5)
        rows.append(torch.stack([low if place == label else value for place, value in enumerate(row)]) * 8)
    return functional.cross_entropy(torch.stack(rows), labels)


def cosface_by_hand(cosines: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(8 * (cosines - 0.35 * functional.one_hot(labels, C).double()), labels)


@dataclass(frozen=True)
class Family:
    """A loss, what it is given, and the mean by other means; `alone` where samples do not depend on each other."""

    loss: Callable[..., s.LossSum]
    given: Tensor
    labels: Tensor | None
    mean: Callable[[Tensor, Any], Tensor]
    alone: bool = True


def cross_entropy(**options: Any) -> Callable[[Tensor, Any], Tensor]:
    return lambda x, y: functional.cross_entropy(x.flatten(0, -2), y.flatten(), **options)


def class_weights() -> Tensor:
    return torch.tensor(WEIGHTS, dtype=torch.float64)


TOGETHER = torch.tensor([1, 0, 0, 1, 0, 1, 0])
ON = (random(N, 3, seed=4) > 0).double()
FAMILIES = {
    "cross-entropy": Family(s.CrossEntropyLoss(), random(N, C), classes(N), cross_entropy()),
    "weighted": Family(
        s.CrossEntropyLoss(class_weights=WEIGHTS), random(N, C), classes(N), cross_entropy(weight=class_weights())
    ),
    "smoothed": Family(
        s.CrossEntropyLoss(label_smoothing=0.2), random(N, C), classes(N), cross_entropy(label_smoothing=0.2)
    ),
    "weighted and smoothed": Family(
        s.CrossEntropyLoss(class_weights=class_weights(), label_smoothing=0.2),
        random(N, C),
        classes(N),
        cross_entropy(weight=class_weights(), label_smoothing=0.2),
    ),
    "ignored index": Family(
        s.CrossEntropyLoss(ignore_index=3), random(N, C), classes(N, ignored=0), cross_entropy(ignore_index=3)
    ),
    "tokens": Family(
        s.TokenCrossEntropyLoss(),
        random(3, 6, C),
        classes(3, 6),
        lambda x, y: cross_entropy()(x[:, :-1], y[:, 1:]),
    ),
    "tokens as they stand": Family(
        s.TokenCrossEntropyLoss(shift=False, label_smoothing=0.1),
        random(3, 6, C),
        classes(3, 6),
        cross_entropy(label_smoothing=0.1),
    ),
    "focal": Family(s.FocalLoss(), random(N, C), classes(N), lambda x, y: focal_by_hand(x, y, 2.0, None)),
    "focal, a slow power": Family(
        s.FocalLoss(gamma=0.5), random(N, C), classes(N), lambda x, y: focal_by_hand(x, y, 0.5, None)
    ),
    "focal with alphas": Family(
        s.FocalLoss(gamma=3, alpha=WEIGHTS), random(N, C), classes(N), lambda x, y: focal_by_hand(x, y, 3, WEIGHTS)
    ),
    "focal of two": Family(
        s.FocalLoss(alpha=0.25),
        random(N, 2),
        classes(N).clamp(max=1),
        lambda x, y: focal_by_hand(x, y, 2, [0.75, 0.25]),
    ),
    "focal, gamma 0": Family(s.FocalLoss(gamma=0), random(N, C), classes(N), cross_entropy()),
    "focal, sigmoid": Family(
        s.FocalLoss(alpha=0.25), random(N, 3), ON, lambda x, y: sigmoid_focal_by_hand(x, y, 2, 0.25)
    ),
    "squares": Family(s.MSELoss(), random(N, 3), random(N, 3, seed=1), functional.mse_loss),
    "huber": Family(
        s.HuberLoss(delta=0.4),
        random(N, 3),
        random(N, 3, seed=1),
        lambda x, y: functional.huber_loss(x, y, delta=0.4),
    ),
    "triplets": Family(
        s.TripletLoss(margin=0.7),
        random(N, 3, D),
        None,
        lambda x, _: functional.triplet_margin_loss(*x.unbind(1), margin=0.7, eps=0.0),
    ),
    "hardest triplets": Family(
        s.TripletLoss(margin=0.7), random(N, D), torch.tensor([0, 1, 0, 2, 1, 0, 3]), hardest_by_hand, alone=False
    ),
    "contrastive": Family(
        s.ContrastiveLoss(margin=2.5),
        random(N, 2, D),
        TOGETHER,
        lambda x, y: contrastive_by_hand(x, y, 2.5),
    ),
    "in the batch": Family(
        s.InBatchContrastiveLoss(temperature=0.3),
        random(N, 2, D),
        None,
        lambda x, _: in_batch_by_hand(x, 0.3),
        alone=False,
    ),
    "arcface": Family(s.ArcFaceLoss(scale=8.0), COSINES, classes(N, ignored=0), arcface_by_hand),
    "cosface": Family(s.CosFaceLoss(scale=8.0), COSINES, classes(N, ignored=0), cosface_by_hand),
}
every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@every
def test_the_mean_is_that_of_the_definition(family: Family) -> None:
    found = family.loss(family.given, family.labels)

    assert isinstance(found, s.LossSum)
    torch.testing.assert_close(found.mean(), family.mean(family.given, family.labels), rtol=1e-11, atol=0)


@every
def test_the_gradient_is_that_of_the_definition_and_of_finite_differences(family: Family) -> None:
    one, other = family.given.clone().requires_grad_(), family.given.clone().requires_grad_()
    family.loss(one, family.labels).mean().backward()
    family.mean(other, family.labels).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-14)

    torch.autograd.gradcheck(lambda x: family.loss(x, family.labels).sum, (one.detach().requires_grad_(),))


@every
def test_parts_add_up(family: Family) -> None:
    def parts(size: int) -> tuple[float, float]:
        labels = [None] * N if family.labels is None else family.labels.split(size)
        pairs = [family.loss(x, y) for x, y in zip(family.given.split(size), labels, strict=False)]
        return sum(float(pair.sum) for pair in pairs), sum(float(pair.weight) for pair in pairs)

    whole = parts(N)
    for size in (1, 2, 3):
        assert (parts(size) == pytest.approx(whole, rel=1e-12)) is family.alone


@every
def test_a_weight_that_labels_tell_is_the_one_of_the_loss(family: Family) -> None:
    weight = getattr(family.loss, "weight", None)
    if weight is None:
        # Its labels do not tell how many embeddings there are, or which triplets.
        assert isinstance(family.loss, s.TripletLoss | s.InBatchContrastiveLoss)
        return
    told = float(weight({"labels": family.labels, "other": 1}))
    assert told == pytest.approx(float(family.loss(family.given, family.labels).weight), rel=1e-15)
    with pytest.raises(DataError, match=r"needs 'labels' as a tensor and got NoneType"):
        weight({"other": 1})


@every
def test_outputs_may_be_a_mapping_a_tuple_or_a_tensor(family: Family) -> None:
    key = family.loss.key  # type: ignore[attr-defined]
    for outputs in ({key: family.given, "other": 1}, (family.given, 1)):
        assert torch.equal(family.loss(outputs, family.labels).sum, family.loss(family.given, family.labels).sum)
    with pytest.raises(ModelError, match=rf"looks for '{key}' in the model's outputs and finds other.*key="):
        family.loss({"other": family.given}, family.labels)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_summed_in_float32(family: Family, dtype: torch.dtype) -> None:
    found = family.loss(family.given.to(dtype), family.labels)

    assert found.sum.dtype == torch.float32
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(found.mean().double(), family.mean(family.given, family.labels), rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", ["cross-entropy", "weighted", "tokens", "focal", "arcface"])
def test_where_no_label_counts_loss_and_slope_are_zero(name: str) -> None:
    family = FAMILIES[name]
    given = family.given.clone().requires_grad_()
    found = family.loss(given, torch.full_like(family.labels, -100))
    found.mean().backward()

    assert [float(part) for part in (*found.detach(), found.mean().detach())] == [0.0, 0.0, 0.0]
    assert torch.equal(given.grad, torch.zeros_like(given))


@pytest.mark.parametrize(
    ("loss", "given"),
    [
        (s.TripletLoss(), torch.zeros(2, 3, D)),
        (s.ContrastiveLoss(), torch.zeros(2, 2, D)),
        (s.FocalLoss(gamma=0.5), torch.tensor([[200.0, 0.0]] * 2)),
        (s.ArcFaceLoss(), torch.tensor([[1.0, -1.0]] * 2)),
        (s.ArcFaceLoss(), torch.tensor([[-1.0, 1.0]] * 2)),
    ],
    ids=["equal points", "equal pairs", "certain", "cosine 1", "cosine -1"],
)
def test_slopes_are_finite_where_roots_and_powers_have_none(loss: Any, given: Tensor) -> None:
    given = given.clone().requires_grad_()
    loss(given, torch.zeros(2, dtype=torch.long)).mean().backward()

    assert given.grad.isfinite().all()


def test_a_cosine_head_gives_cosines() -> None:
    head = s.CosineHead(D, C).double()
    embeddings = random(N, D)

    expected = functional.cosine_similarity(embeddings.unsqueeze(1), head.weight.unsqueeze(0), dim=-1)
    torch.testing.assert_close(head(embeddings), expected)
    s.ArcFaceLoss()(head(embeddings), classes(N)).mean().backward()
    assert head.weight.grad.abs().sum() > 0


def test_a_column_of_predictions_meets_a_row_of_labels() -> None:
    assert s.MSELoss()(random(N, 1), random(N, seed=1)).weight == N
    assert s.MSELoss()(random(N), random(N, 1, seed=1)).weight == N
    # Single precision labels beside double predictions, or whole numbers.
    assert s.MSELoss()(torch.ones(2), torch.tensor([1, 3])).sum == 4


LONG = torch.zeros(N, dtype=torch.long)
MISTAKES = {
    "too large a label": (s.CrossEntropyLoss(), random(N, C), LONG + 5, r"A label is 5, .* 5 classes.* 0 to 4"),
    "a negative label": (s.FocalLoss(), random(N, C), LONG - 1, r"A label is -1.*-100 is not counted"),
    "label rows": (
        s.CrossEntropyLoss(),
        random(N, C),
        LONG[:3],
        r"logits are of shape \(7, 5\) and labels of .*\(3,\)",
    ),
    "float labels": (s.CrossEntropyLoss(), random(N, C), LONG.double(), r"labels are torch.float64.*\.long\(\)"),
    "no labels": (s.CrossEntropyLoss(), random(N, C), None, r"CrossEntropyLoss needs 'labels'.*NoneType"),
    "no tokens": (s.TokenCrossEntropyLoss(), random(N, C), LONG, r"takes \(samples, positions, classes\)"),
    "broadcast": (s.MSELoss(), random(N, 3), random(N), r"Predictions are of shape \(7, 3\) and labels of .*\(7,\)"),
    "broadcast, huber": (s.HuberLoss(), random(N), random(N, N), r"must be the same"),
    "broadcast, sigmoid": (s.FocalLoss(), random(N, 3), random(N), r"must be the same"),
    "no triplets": (s.TripletLoss(), random(N, 2, D), None, r"give \(samples, 3, dim\).*anchor, positive, negative"),
    "labels of triplets": (s.TripletLoss(), random(N, D), LONG[:2], r"give \(samples, dim\) and \(samples,\)"),
    "no pairs": (s.ContrastiveLoss(), random(N, D), LONG, r"give \(samples, 2, dim\)"),
    "labels of pairs": (s.ContrastiveLoss(), random(N, 2, D), LONG[:2], r"one for each of 7 pairs"),
    "no cosines": (s.CosFaceLoss(), 3 * random(N, C), LONG, r"no cosine is.*CosineHead\(dim, classes\)"),
}


@pytest.mark.parametrize(("loss", "given", "labels", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_what_to_write(loss: Any, given: Tensor, labels: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        loss(given, labels)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: s.CrossEntropyLoss(label_smoothing=1.5), "label_smoothing is 1.5"),
        (lambda: s.CrossEntropyLoss(class_weights=[1.0, 2.0])(random(N, C), LONG), r"class_weights has shape \(2,\)"),
        (lambda: s.FocalLoss(gamma=-1), "gamma is -1"),
        (lambda: s.FocalLoss(alpha=0.25)(random(N, C), LONG), "alpha is 0.25, and the logits have 5 classes"),
        (lambda: s.FocalLoss(alpha=WEIGHTS)(random(N, 3), ON), "alpha has 5 numbers"),
        (lambda: s.HuberLoss(delta=0), "delta is 0"),
        (lambda: s.TripletLoss(margin=-1), "margin is -1"),
        (lambda: s.ContrastiveLoss(margin=0), "margin is 0"),
        (lambda: s.InBatchContrastiveLoss(temperature=0), "temperature is 0"),
        (lambda: s.ArcFaceLoss(margin=4), "margin is 4: an angle"),
        (lambda: s.CosFaceLoss(scale=0), "scale 0"),
    ],
)
def test_a_setting_that_cannot_be_right_is_told(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make()
