"""A script of the summer of 2020: one parser for three classes of arguments, masters of the world, metrics in a file."""

import logging
import os
from dataclasses import dataclass, field
from typing import Dict, Optional

import numpy as np

from small import ToyClassifier, ToySet
from surestep import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    model_name_or_path: str = field(metadata={"help": "Path to pretrained model or model identifier"})
    cache_dir: Optional[str] = field(default=None)


def main():
    parser = HfArgumentParser((ModelArguments, TrainingArguments))
    model_args, training_args = parser.parse_args_into_dataclasses()

    if (
        os.path.exists(training_args.output_dir)
        and os.listdir(training_args.output_dir)
        and training_args.do_train
        and not training_args.overwrite_output_dir
    ):
        raise ValueError("Output directory exists and is not empty")
    logger.warning(
        "Process rank: %s, device: %s, n_gpu: %s, distributed training: %s, 16-bits training: %s",
        training_args.local_rank,
        training_args.device,
        training_args.n_gpu,
        bool(training_args.local_rank != -1),
        training_args.fp16,
    )

    def compute_metrics(p: EvalPrediction) -> Dict:
        predictions, label_ids = p
        return {"acc": float((np.argmax(predictions, axis=1) == label_ids).mean()), "n": len(p[0])}

    trainer = Trainer(
        model=ToyClassifier(),
        args=training_args,
        train_dataset=ToySet(32),
        eval_dataset=ToySet(8),
        compute_metrics=compute_metrics,
        prediction_loss_only=False,
    )
    results = {}
    if training_args.do_train:
        trainer.train(
            model_path=model_args.model_name_or_path if os.path.isdir(model_args.model_name_or_path) else None
        )
        trainer.save_model()
        assert trainer.global_step == 8
    if training_args.do_eval:
        eval_result = trainer.evaluate(eval_dataset=ToySet(8))
        if trainer.is_world_master():
            with open(os.path.join(training_args.output_dir, "eval_results_glue.txt"), "w") as writer:
                for key, value in eval_result.items():
                    writer.write("%s = %s\n" % (key, value))
        results.update(eval_result)
    predictions = trainer.predict(test_dataset=ToySet(8)).predictions
    results["predicted"] = len(np.argmax(predictions, axis=1))
    return results


if __name__ == "__main__":
    RESULTS = main()
