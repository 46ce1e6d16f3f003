"""The names of the original's `data_collator`. Written from `compat/homes.py`, not by hand."""

from surestep.data.collators.base import DataCollatorMixin as DataCollatorMixin
from surestep.data.collators.default import DefaultDataCollator as DefaultDataCollator
from surestep.data.collators.default import default_data_collator as default_data_collator
from surestep.data.collators.flattening import DataCollatorWithFlattening as DataCollatorWithFlattening
from surestep.data.collators.language_modeling import DataCollatorForLanguageModeling as DataCollatorForLanguageModeling
from surestep.data.collators.multiple_choice import DataCollatorForMultipleChoice as DataCollatorForMultipleChoice
from surestep.data.collators.padding import DataCollatorWithPadding as DataCollatorWithPadding
from surestep.data.collators.permutation import (
    DataCollatorForPermutationLanguageModeling as DataCollatorForPermutationLanguageModeling,
)
from surestep.data.collators.seq2seq import DataCollatorForSeq2Seq as DataCollatorForSeq2Seq
from surestep.data.collators.token_classification import (
    DataCollatorForTokenClassification as DataCollatorForTokenClassification,
)
from surestep.data.data_collator import DataCollator as DataCollator
from surestep.data.data_collator import DataCollatorForWholeWordMask as DataCollatorForWholeWordMask
from surestep.data.data_collator import InputDataClass as InputDataClass
from surestep.data.data_collator import _numpy_collate_batch as _numpy_collate_batch
from surestep.data.data_collator import _torch_collate_batch as _torch_collate_batch
from surestep.data.data_collator import numpy_default_data_collator as numpy_default_data_collator
from surestep.data.data_collator import pad_without_fast_tokenizer_warning as pad_without_fast_tokenizer_warning
from surestep.data.data_collator import to_numpy as to_numpy
from surestep.data.data_collator import tolist as tolist
from surestep.data.data_collator import torch_default_data_collator as torch_default_data_collator
