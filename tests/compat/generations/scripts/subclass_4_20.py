"""A subclass of the 4.x years: its own step with a scaler, saving with metrics, a copy of the answer to requests."""

import torch

from small import ToyClassifier, ToySet, settings
from surestep import Trainer, TrainingArguments


class MyTrainer(Trainer):
    def training_step(self, model, inputs):
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        if self.args.gradient_accumulation_steps > 1 and not self.deepspeed:
            loss = loss / self.args.gradient_accumulation_steps
        if self.do_grad_scaling:
            self.scaler.scale(loss).backward()
        elif self.use_apex:
            raise RuntimeError("apex is not there")
        else:
            loss.backward()
        return loss.detach()

    def compute_loss(self, model, inputs, return_outputs=False):
        outputs = model(**inputs)
        return (outputs[0], outputs) if return_outputs else outputs[0]

    def create_optimizer(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1)

    def log(self, logs):
        logs["extra"] = 1.0
        super().log(logs)

    def _get_train_sampler(self):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, model, trial, metrics=None):
        super()._save_checkpoint(model, trial, metrics)

    def _maybe_log_save_evaluate(self, tr_loss, model, trial, epoch, ignore_keys_for_eval):
        if self.control.should_log:
            logs = {}
            tr_loss_scalar = self._nested_gather(tr_loss).mean().item()
            tr_loss -= tr_loss
            logs["loss"] = round(tr_loss_scalar / (self.state.global_step - self._globalstep_last_logged), 4)
            logs["learning_rate"] = self._get_learning_rate()
            self._total_loss_scalar += tr_loss_scalar
            self._globalstep_last_logged = self.state.global_step
            self.store_flos()
            self.log(logs)
        metrics = None
        if self.control.should_evaluate:
            metrics = self.evaluate(ignore_keys=ignore_keys_for_eval)
        if self.control.should_save:
            self._save_checkpoint(model, trial, metrics=metrics)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)


args = TrainingArguments(
    **{**settings(), "save_strategy": "epoch"},
    gradient_accumulation_steps=2,
    evaluation_strategy="epoch",
    warmup_ratio=0.1,
    fp16_backend="auto",
    save_total_limit=1,
)
trainer = MyTrainer(model=ToyClassifier(), args=args, train_dataset=ToySet(32), eval_dataset=ToySet(8))
output = trainer.train(resume_from_checkpoint=None)
RESULTS = {**trainer.evaluate(), "training_loss": output.training_loss, "steps": output.global_step}
RESULTS["extra"] = trainer.state.log_history[0]["extra"]
again = MyTrainer(model=ToyClassifier(), args=args, train_dataset=ToySet(32), eval_dataset=ToySet(8))
RESULTS["resumed"] = again.train(resume_from_checkpoint=True).global_step
