"""A subclass of 2024: the accelerator runs backward, and divides; the loss lacks the count; an evaluation loop."""

import torch

from small import ToyClassifier, ToySet, settings
from surestep import Trainer, TrainingArguments


class MyTrainer(Trainer):
    def training_step(self, model, inputs):
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        if self.use_apex:
            raise RuntimeError("apex is not there")
        self.accelerator.backward(loss)
        return loss.detach() / self.args.gradient_accumulation_steps

    def compute_loss(self, model, inputs, return_outputs=False):
        return super().compute_loss(model, inputs, return_outputs)

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        loop = self.prediction_loop if self.args.use_legacy_prediction_loop else super().evaluation_loop
        return loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)

    def get_batch_samples(self, epoch_iterator, num_batches):
        return super().get_batch_samples(epoch_iterator, num_batches)


args = TrainingArguments(
    **settings(),
    gradient_accumulation_steps=4,
    evaluation_strategy="steps",
    optim="sgd",
    max_grad_norm=0.0,
    lr_scheduler_type="constant",
    overwrite_output_dir=True,
    report_to="none",
)
trainer = MyTrainer(model=ToyClassifier(), args=args, train_dataset=ToySet(32), eval_dataset=ToySet(8))
trainer.train()
RESULTS = trainer.evaluate()

plain = ToyClassifier()
optimizer = torch.optim.SGD(plain.parameters(), lr=args.learning_rate)
for batch in torch.utils.data.DataLoader(ToySet(32), batch_size=32):
    plain(**batch)[0].backward()
    optimizer.step()
RESULTS["difference"] = float((plain.layer.weight - trainer.model.layer.weight).abs().max())
RESULTS["steps"] = trainer.state.global_step
