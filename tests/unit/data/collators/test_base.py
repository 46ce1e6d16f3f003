import pytest

from surestep.data.collators.base import DataCollatorMixin
from surestep.errors import ArgumentError


class OnlyTensors(DataCollatorMixin):
    def torch_call(self, features):
        return "pt", features


class OnlyArrays(DataCollatorMixin):
    return_tensors = "np"

    def numpy_call(self, features):
        return "np", features


def test_the_mixin_calls_the_method_of_the_kind():
    assert OnlyTensors()([1]) == ("pt", [1])
    assert OnlyArrays()([1]) == ("np", [1])
    assert OnlyArrays()([1], return_tensors="np") == ("np", [1])


@pytest.mark.parametrize(
    ("collator", "kind", "said"),
    [
        (OnlyTensors(), "np", "OnlyTensors has no numpy_call"),
        (OnlyArrays(), "pt", "OnlyArrays has no torch_call"),
        (OnlyTensors(), "jax", "return_tensors='jax'; write 'pt'"),
    ],
)
def test_a_kind_without_a_method_is_refused(collator, kind, said):
    with pytest.raises(ArgumentError, match=said):
        collator([1], return_tensors=kind)
