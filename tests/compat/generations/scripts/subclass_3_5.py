"""A subclass of late 2020: a loss without outputs that takes its labels away, a writer of its own, a hub of callbacks."""

import os

import torch
from torch.utils.tensorboard import SummaryWriter

from small import ToyClassifier, ToySet, settings
from surestep import Trainer, TrainerCallback, TrainingArguments


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs):
        labels = inputs.pop("labels")
        logits = model(**inputs)[0]
        return torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0]))

    def prediction_step(self, model, inputs, prediction_loss_only):
        return super().prediction_step(model, inputs, prediction_loss_only)

    def create_optimizer_and_scheduler(self, num_training_steps):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)

    def evaluate(self, eval_dataset=None):
        dataloader = self.get_eval_dataloader(eval_dataset)
        output = self.prediction_loop(dataloader, description="Evaluation")
        self.log(output.metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, output.metrics)
        return output.metrics


class Notes(TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, tokenizer=None, **kwargs):
        self.tokenizer = tokenizer


class Tokenizer:
    def save_pretrained(self, folder):
        open(os.path.join(folder, "vocabulary.txt"), "w").close()


args = TrainingArguments(**settings(), evaluation_strategy="epoch", no_cuda=True)
writer = SummaryWriter(args.logging_dir)
notes = Notes()
trainer = WeightedTrainer(
    model=ToyClassifier(),
    args=args,
    train_dataset=ToySet(32),
    eval_dataset=ToySet(8),
    tokenizer=Tokenizer(),
    tb_writer=writer,
    callbacks=[notes],
)
trainer.train()
trainer.save_model()
assert trainer.tokenizer is notes.tokenizer
RESULTS = {"vocabulary": os.path.exists(os.path.join(args.output_dir, "vocabulary.txt")), **trainer.evaluate()}
RESULTS["files"] = len(os.listdir(args.logging_dir))
