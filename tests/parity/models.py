"""What a user brings: small datasets and models that both trainers are given."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

IGNORED = -100


class Points(Dataset):
    """A small regression set; every sample carries its number, so that the order can be read back."""

    def __init__(self, size: int = 50, dim: int = 6, seed: int = 7) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, dim, generator=generator)
        self.y = self.x.sum(dim=1, keepdim=True).tanh()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index], "labels": self.y[index], "number": index}


class PointStream(IterableDataset):
    """The same points, one after the other, without a length; it can be read any number of times."""

    def __init__(self, size: int = 24) -> None:
        self.points = Points(size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.points[index] for index in range(len(self.points)))


class SizedPointStream(PointStream):
    """A stream that says how many points it holds."""

    def __len__(self) -> int:
        return len(self.points)


class Net(nn.Module):
    """Two layers with a norm and dropout, so that decay groups and the random state matter."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(16, 1)
        self.numbers: list[int] = []

    def predict(self, x: Tensor, number: Tensor | None) -> Tensor:
        if self.training and number is not None:
            self.numbers += number.tolist()
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> dict[str, Tensor]:
        prediction = self.predict(x, number)
        if labels is None:
            return {"logits": prediction}
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class TupleNet(Net):
    """The same, returning a tuple of loss and predictions."""

    def forward(self, x: Tensor, labels: Tensor | None = None, number: Tensor | None = None) -> Any:
        outputs = super().forward(x, labels, number)
        return (outputs["loss"], outputs["logits"]) if labels is not None else (outputs["logits"],)


class LossFreeNet(Net):
    """The same without a loss of its own: the trainer or its subclass computes it."""

    def forward(self, x: Tensor, number: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.predict(x, number)}


class FrozenNet(Net):
    """The same with a frozen first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)


class MatrixNet(nn.Module):
    """Two matrices and nothing else, for optimizers that take nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16, bias=False)
        self.last = nn.Linear(16, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        prediction = self.last(torch.relu(self.first(x)))
        return {"loss": nn.functional.mse_loss(prediction, labels), "logits": prediction}


class Sentences(Dataset):
    """Token sequences of different lengths with a class for each token; the first two of each do not count."""

    def __init__(self, size: int = 30, vocabulary: int = 24, longest: int = 12, seed: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(4, longest + 1, (size,), generator=generator).tolist()
        self.tokens = [torch.randint(1, vocabulary, (length,), generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = self.tokens[index]
        labels = tokens % 5
        labels[:2] = IGNORED
        return {"input_ids": tokens, "labels": labels}


class EvenSentences(Sentences):
    """The same with two tokens of each sequence that count, so that a batch weighs what its size says."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        sample["labels"][4:] = IGNORED
        return sample


class Documents(Sentences):
    """Token sequences whose labels are the tokens themselves, as language models take them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": tokens.clone()}


class Reviews(Sentences):
    """Token sequences with one class each."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": tokens[0] % 2}


def pad(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Collate token sequences: padded on the right to the longest of the batch, labels with -100."""
    padded = nn.utils.rnn.pad_sequence
    tokens = [sample["input_ids"] for sample in samples]
    labels = [sample["labels"] for sample in samples]
    batch = {
        "input_ids": padded(tokens, batch_first=True),
        "attention_mask": padded([torch.ones_like(row) for row in tokens], batch_first=True),
    }
    one_each = labels[0].dim() == 0
    batch["labels"] = torch.stack(labels) if one_each else padded(labels, batch_first=True, padding_value=IGNORED)
    return batch


class Tagger(nn.Module):
    """A class for each token; its loss is a mean over the tokens of its own batch that count."""

    main_input_name = "input_ids"

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = SimpleNamespace(use_cache=False)
        self.embed = nn.Embedding(24, 8)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(8, 5)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits = self.last(self.drop(self.embed(input_ids)))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


class CountingTagger(Tagger):
    """The same, dividing by the number of tokens in the whole step where it is told."""

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        outputs = super().forward(input_ids, labels, attention_mask)
        if num_items_in_batch is not None and labels is not None:
            total = nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
            outputs["loss"] = total / num_items_in_batch
        return outputs
