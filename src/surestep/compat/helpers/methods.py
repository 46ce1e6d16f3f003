"""The trainer's methods that the original offers as functions as well; each takes the trainer first."""

from __future__ import annotations

from surestep.trainer.trainer import Trainer

metrics_format = Trainer.metrics_format
log_metrics = Trainer.log_metrics
save_metrics = Trainer.save_metrics
save_state = Trainer.save_state
get_learning_rates = Trainer.get_learning_rates
get_num_trainable_parameters = Trainer.get_num_trainable_parameters
get_optimizer_group = Trainer.get_optimizer_group
