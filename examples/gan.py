"""A generative adversarial network: two optimizers, one trainer.

The data are points on a ring of eight Gaussians. The critic is trained inside `training_step`, with an optimizer of its
own; the generator's gradients are left to the loop, which clips them and steps `self.optimizer`.

    python examples/gan.py --output_dir runs/gan --max_steps 1000 --per_device_train_batch_size 256 --learning_rate 1e-3
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from surestep import HfArgumentParser, Trainer, TrainingArguments

MODES, RADIUS, SPREAD, NOISE = 8, 2.0, 0.05, 8


def ring(size: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Return points around eight centres on a circle."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.arange(size) % MODES * (2 * math.pi / MODES)
    centres = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    return [{"points": point} for point in centres + SPREAD * torch.randn(size, 2, generator=generator)]


class Pair(nn.Module):
    """A generator and a critic. Forward makes points of noise."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(NOISE, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.generator.append(nn.Linear(width, 2))
        self.critic = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, width))
        self.critic.extend([nn.LeakyReLU(0.2), nn.Linear(width, 1)])

    def forward(self, points: Tensor) -> Tensor:
        made: Tensor = self.generator(torch.randn(len(points), NOISE, device=points.device))
        return made


class AdversarialTrainer(Trainer):
    """Trains the critic and the generator in turn, once each per step."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        rate, betas = self.args.learning_rate, (0.5, 0.999)
        self.critic_optimizer = torch.optim.Adam(self.model.critic.parameters(), rate, betas)
        self.optimizer = torch.optim.Adam(self.model.generator.parameters(), rate, betas)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        real = self._prepare_inputs(inputs)["points"]
        made = model(real)

        self.critic_optimizer.zero_grad()
        critic_loss = self._judged(real, 1.0) + self._judged(made.detach(), 0.0)
        critic_loss.backward()
        self.critic_optimizer.step()

        loss = self._judged(made, 1.0) / self.current_gradient_accumulation_steps
        self.engine.backward(loss)
        return loss.detach()

    def _judged(self, points: Tensor, target: float) -> Tensor:
        verdict = self.model.critic(points)
        return binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, target))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.save_extra_state(output_dir, "critic_optimizer", self.critic_optimizer.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.critic_optimizer.load_state_dict(self.load_extra_state(checkpoint, "critic_optimizer"))


def modes_found(model: Pair, size: int = 2000) -> int:
    """Count the centres that at least 2% of the made points come near to."""
    with torch.no_grad():
        made = model(torch.zeros(size, 2))
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    centres = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    distance, nearest = torch.cdist(made, centres).min(dim=1)
    near = torch.bincount(nearest[distance < 0.5], minlength=MODES)
    return int((near > 0.02 * size).sum())


def main(arguments: list[str] | None = None) -> int:
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(args=arguments)
    torch.manual_seed(args.seed)
    model = Pair()
    trainer = AdversarialTrainer(model=model, args=args, train_dataset=ring(4096))
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    found = modes_found(model)
    print(f"{found} of {MODES} centres found; the model is in {Path(args.output_dir)}")
    return found


if __name__ == "__main__":
    main()
