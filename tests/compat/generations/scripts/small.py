"""A model and a set that these scripts share: the model returns tuples, as all did once."""

import os

import torch
from torch.utils.data import Dataset


class ToySet(Dataset):
    def __init__(self, size):
        generator = torch.Generator().manual_seed(size)
        self.x = torch.randn(size, 4, generator=generator)
        self.y = (self.x.sum(dim=1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.y[index]}


class ToyClassifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        if labels is None:
            return (logits,)
        return torch.nn.functional.cross_entropy(logits, labels), logits


def settings():
    return {
        "output_dir": os.environ["TEST_OUTPUT"],
        "num_train_epochs": 1,
        "learning_rate": 0.1,
        "logging_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
