"""Extension points of the data: datasets, samplers, collators, loaders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from surestep.config.topics.hardware import splits_batches
from surestep.data.columns import (
    LABEL_ALIASES,
    ColumnFilter,
    ModelColumns,
    drop_unused,
    has_columns,
    labels_come_from_dataset,
)
from surestep.data.loaders import LoaderSettings, build_loader, has_length, is_batch_sampler, num_samples
from surestep.data.ranks import knows_ranks, of_rank, refuse_split
from surestep.data.samplers import SequentialSampler, WeightedSeededSampler
from surestep.data.sources import as_dataset
from surestep.errors import ArgumentError, DataError
from surestep.trainer.points.face import Face


class LoadingPoints(Face):
    """`get_train_dataloader` and its kin, and what they stand on."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the training set."""
        if self.train_dataset is None:
            raise ArgumentError("Training needs train_dataset, which is None. Pass one to Trainer.")
        self._check_weights()
        return self._get_dataloader(
            self.train_dataset,
            description="Training",
            batch_size=self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the loader of an evaluation set: of `eval_dataset`, of the set of that name, or of the trainer's own.

        With `dataloader_persistent_workers` the loader of each of the trainer's sets is kept.
        """
        if eval_dataset is None and self.eval_dataset is None:
            raise ArgumentError("Evaluation needs eval_dataset, which is None. Pass one to Trainer or to evaluate().")
        key = eval_dataset if isinstance(eval_dataset, str) else "eval"
        if key in self._eval_dataloaders and self.args.dataloader_persistent_workers:
            return self._eval_dataloaders[key]
        dataset = self._choose_eval_dataset(eval_dataset)
        loader = self._get_dataloader(
            dataset,
            description="Evaluation",
            batch_size=self.args.eval_batch_size,
            sampler_fn=self._get_eval_sampler,
        )
        if self.args.dataloader_persistent_workers and (eval_dataset is None or isinstance(eval_dataset, str)):
            self._eval_dataloaders[key] = loader
        return loader

    def _choose_eval_dataset(self, eval_dataset: Any) -> Any:
        if eval_dataset is None:
            return self.eval_dataset
        if not isinstance(eval_dataset, str):
            return eval_dataset
        known = self.eval_dataset if isinstance(self.eval_dataset, dict) else {}
        if eval_dataset not in known:
            raise ArgumentError(
                f"There is no evaluation set called '{eval_dataset}'; eval_dataset has {', '.join(known) or 'none'}."
            )
        return known[eval_dataset]

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return the loader of a set to predict on."""
        return self._get_dataloader(
            test_dataset,
            description="test",
            batch_size=self.args.eval_batch_size,
            sampler_fn=self._get_eval_sampler,
        )

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader[Any]:
        """Put a loader together: without unused columns, with a sampler for what can be indexed."""
        del dataloader_key  # kept for overrides written for the original; get_eval_dataloader keeps its loaders itself
        args, collator = self.args, self.data_collator
        name = "train_dataset" if is_training else "test_dataset" if description == "test" else "eval_dataset"
        dataset = as_dataset(dataset, name)
        if has_length(dataset) and len(dataset) == 0:
            raise DataError(f"{name} is empty. Give it at least one sample.")
        if has_columns(dataset):
            dataset = self._remove_unused_columns(dataset, description=description)
        else:
            collator = self._get_collator_with_removed_columns(collator, description=description)
        streaming = isinstance(dataset, torch.utils.data.IterableDataset) or not has_length(dataset)
        sampler = None if streaming or sampler_fn is None else sampler_fn(dataset)
        split = self._splits()
        if is_batch_sampler(sampler) and not knows_ranks(sampler):
            refuse_split(sampler, split=split)
        return build_loader(
            dataset,
            collator,
            LoaderSettings(
                batch_size=of_rank(batch_size, self._world, split=split),
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
                persistent_workers=args.dataloader_persistent_workers,
                prefetch_factor=args.dataloader_prefetch_factor,
                in_order=args.dataloader_in_order,
                multiprocessing_context=args.dataloader_multiprocessing_context,
                drop_last=args.dataloader_drop_last,
            ),
            sampler,
            training=is_training,
            seed=self._data_seed() if is_training else None,
            world=self._world,
            name=name,
        )

    def _splits(self) -> bool:
        """Say whether a batch size is that of all processes together (`split_batches` in `accelerator_config`)."""
        return self._world.size > 1 and splits_batches(self.args)

    def _of_all_ranks(self, batch_size: int) -> int:
        """Return the samples of a batch on every process, from the batch size that the arguments have."""
        return batch_size if self._splits() else batch_size * self._world.size

    def _data_seed(self) -> int:
        """Return the seed of the order: `data_seed`, else what torch was last seeded with, as in the original."""
        return torch.initial_seed() if self.args.data_seed is None else self.args.data_seed

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the sampler of the training set, as `train_sampling_strategy` says; None for a stream."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if dataset is None or not has_length(dataset):
            return None
        return self._make_sampler(self.args.train_sampling_strategy, dataset, self._train_batch_size)

    def _check_weights(self) -> None:
        """Raise where samples are to be drawn by weight from a stream, which nothing can draw from."""
        if self.args.sampling_weights is not None and not has_length(self.train_dataset):
            raise ArgumentError(
                f"sampling_weights={self.args.sampling_weights!r} needs samples that can be drawn by their number, and "
                "the training set is a stream. Draw in the stream itself, or give a dataset with a length."
            )

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Return the sampler of an evaluation set: in order, or grouped by length where training is."""
        if eval_dataset is None or not has_length(eval_dataset):
            return None
        if self.args.train_sampling_strategy == "group_by_length":
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return self._length_grouped(eval_dataset, self.args.eval_batch_size, seed)
        return SequentialSampler(eval_dataset)

    def _make_sampler(self, strategy: str, dataset: Any, batch_size: int) -> Any:
        if strategy == "sequential":
            return SequentialSampler(dataset)
        if strategy == "random":
            from torch.utils.data import RandomSampler

            return RandomSampler(dataset)
        if strategy == "group_by_length":
            return self._length_grouped(dataset, batch_size * self.args.gradient_accumulation_steps, None)
        if strategy == "weighted":
            return self._weighted(dataset)
        return self._rebalanced(dataset)

    def _lengths(self, dataset: Any) -> Any:
        from surestep.data.grouping import lengths_of

        names = getattr(self.processing_class, "model_input_names", None)
        return lengths_of(dataset, self.args.length_column_name, names[0] if names else None)

    def _length_grouped(self, dataset: Any, batch_size: int, seed: int | None) -> Any:
        from surestep.data.grouping import LengthGroupedSampler

        return LengthGroupedSampler(batch_size, lengths=self._lengths(dataset), seed=seed)

    def _weighted(self, dataset: Any) -> Any:
        """Return a sampler that draws by weight, with replacement; the weights' column may be one the model drops."""
        from surestep.data.weights import sampling_weights

        rule, source = self.args.sampling_weights, self.train_dataset
        assert rule is not None
        weights = sampling_weights(dataset if source is None else source, rule, [*self.label_names, *LABEL_ALIASES])
        return WeightedSeededSampler(weights, len(dataset), self._data_seed())

    def _rebalanced(self, dataset: Any) -> Any:
        from surestep.data.grouping import BatchRebalanceSampler

        args = self.args
        return BatchRebalanceSampler(
            lengths=self._lengths(dataset),
            effective_batch_size=self._of_all_ranks(self._train_batch_size) * args.gradient_accumulation_steps,
            dp_size=self._world.size,
            grad_accum=args.gradient_accumulation_steps,
            rank=self._world.rank,
            drop_last=args.dataloader_drop_last,
        )

    def _set_signature_columns_if_needed(self) -> None:
        """Fill `_signature_columns` with the columns that the model takes, unless that was done."""
        if self._signature_columns is None:
            self._signature_columns = list(ModelColumns.of(self.model, self.label_names).names)

    def _columns(self) -> ModelColumns:
        """Return the columns that the model takes, or those that a subclass names in `_signature_columns`."""
        columns = ModelColumns.of(self.model, self.label_names)
        self._set_signature_columns_if_needed()
        names = tuple(self._signature_columns or ())
        return columns if names == columns.names else replace(columns, names=names, takes_all=False)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        """Return the table without the columns that the model does not take."""
        if not self.args.remove_unused_columns:
            return dataset
        need = self._needs_labels(self.data_collator, description)
        return drop_unused(dataset, self._columns(), f"{description} set", need_labels=need)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        """Return a collator that leaves out what the model does not take."""
        if not self.args.remove_unused_columns:
            return data_collator
        need = self._needs_labels(data_collator, description)
        return ColumnFilter(data_collator, self._columns(), f"{description} set", need_labels=need)

    def _needs_labels(self, data_collator: Any, description: str | None) -> bool:
        """Say whether a set without labels is a mistake: the model's own loss needs them, and they are not made later.

        A set to predict on needs none.
        """
        return self._computes_own_loss() and description != "test" and labels_come_from_dataset(data_collator)

    def _computes_own_loss(self) -> bool:
        """Say whether the loss of training is the model's own."""
        from surestep.trainer.points.stepping import SteppingPoints

        own_loss = type(self).compute_loss is SteppingPoints.compute_loss  # type: ignore[attr-defined]
        return own_loss and self.compute_loss_func is None

    def num_examples(self, dataloader: Any) -> int:
        """Return the number of samples that a loader gives in an epoch."""
        return num_samples(dataloader)
