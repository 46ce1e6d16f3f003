"""A subclass of early 2020: methods under their first names, the step returns a number, both optimizers at once."""

import torch

from small import ToyClassifier, ToySet, settings
from surestep import Trainer, TrainingArguments

SEEN = []


class MyTrainer(Trainer):
    def _training_step(self, model, inputs, optimizer):
        model.train()
        assert optimizer is self.optimizer
        loss = model(**inputs)[0]
        if self.args.gradient_accumulation_steps > 1:
            loss = loss / self.args.gradient_accumulation_steps
        loss.backward()
        return loss.item()

    def _log(self, logs, iterator=None):
        SEEN.append(logs)
        super()._log(logs, iterator)

    def _prediction_loop(self, dataloader, description, prediction_loss_only=None):
        return super()._prediction_loop(dataloader, description, prediction_loss_only=prediction_loss_only)

    def get_optimizers(self, num_training_steps):
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


args = TrainingArguments(**settings(), per_gpu_train_batch_size=4, evaluate_during_training=True, eval_steps=4)
trainer = MyTrainer(ToyClassifier(), args, train_dataset=ToySet(32), eval_dataset=ToySet(8))
trainer.train()
RESULTS = trainer.evaluate()
RESULTS["optimizer"] = type(trainer.optimizer).__name__
RESULTS["predicted"] = trainer.predict(ToySet(8)).metrics["eval_loss"]
