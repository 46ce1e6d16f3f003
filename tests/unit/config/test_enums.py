import copy
import pickle

import pytest
import transformers.debug_utils
import transformers.trainer_utils
import transformers.training_args

from surestep.config import enums
from surestep.errors import ArgumentError

ORIGINALS = {
    "IntervalStrategy": transformers.trainer_utils.IntervalStrategy,
    "SaveStrategy": transformers.trainer_utils.SaveStrategy,
    "HubStrategy": transformers.trainer_utils.HubStrategy,
    "SchedulerType": transformers.trainer_utils.SchedulerType,
    "FSDPOption": transformers.trainer_utils.FSDPOption,
    "DebugOption": transformers.debug_utils.DebugOption,
    "ParallelMode": transformers.training_args.ParallelMode,
    "OptimizerNames": transformers.training_args.OptimizerNames,
}
OURS = {
    "OptimizerNames": {name.upper(): name for name in ("nadam", "radam", "muon", "adam", "adamax", "adadelta", "asgd")}
    | {"LION_TORCH": "lion"}
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_names_and_values_are_the_originals(name):
    ours = {member.name: member.value for member in getattr(enums, name)}
    theirs = {member.name: member.value for member in ORIGINALS[name]}
    assert ours == theirs | OURS.get(name, {})


def test_the_original_has_41_optimizers():
    assert len(ORIGINALS["OptimizerNames"]) == 41
    assert len(enums.OptimizerNames) == 49


@pytest.mark.parametrize("name", sorted(set(ORIGINALS) - {"ParallelMode"}))
def test_members_behave_as_the_originals(name):
    for ours, theirs in zip(getattr(enums, name), ORIGINALS[name], strict=False):
        assert ours == theirs.value == theirs
        assert (str(ours), f"{ours}", repr(ours), hash(ours)) == (str(theirs), f"{theirs}", repr(theirs), hash(theirs))
        assert type(ours)(theirs) is ours
        assert pickle.loads(pickle.dumps(ours)) is ours
        assert copy.deepcopy(ours) is ours


@pytest.mark.parametrize(
    ("enum", "value", "fragments"),
    [
        (enums.IntervalStrategy, "step", ["'step'", "no, steps, epoch", "Did you mean 'steps'?"]),
        (enums.SaveStrategy, "bset", ["no, steps, epoch, best", "Did you mean 'best'?"]),
        (enums.OptimizerNames, "adamm", ["'adamm'", "adamw_torch", "Did you mean"]),
        (enums.SchedulerType, "Cosine", ["Did you mean 'cosine'?"]),
        (enums.IntervalStrategy, 3, ["3", "no, steps, epoch"]),
        (enums.IntervalStrategy, transformers.trainer_utils.SaveStrategy.BEST, ["'best'"]),
    ],
)
def test_a_bad_value_lists_the_valid_ones_and_the_nearest(enum, value, fragments):
    with pytest.raises(ArgumentError) as error:
        enum(value)
    assert isinstance(error.value, ValueError)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_nothing_near_offers_nothing():
    with pytest.raises(ArgumentError) as error:
        enums.IntervalStrategy("zzzzzz")
    assert "Did you mean" not in str(error.value)
