"""The names of the original's `hf_argparser`. Written from `compat/homes.py`, not by hand."""

from surestep.compat.helpers.parsing import DataClass as DataClass
from surestep.compat.helpers.parsing import DataClassType as DataClassType
from surestep.compat.helpers.parsing import make_choice_type_function as make_choice_type_function
from surestep.compat.helpers.parsing import string_to_bool as string_to_bool
from surestep.config.parser import HfArg as HfArg
from surestep.config.parser import HfArgumentParser as HfArgumentParser
