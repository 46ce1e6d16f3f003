"""Running what was written for the original: `install` and `uninstall` for a notebook, `python -m surestep.compat`."""

from surestep.compat.installing import install as install
from surestep.compat.installing import uninstall as uninstall
