"""Values that refuse changes: what a result holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never

import numpy as np
import pandas as pd


class Frozen(dict[Any, Any]):
    """A dict that refuses changes (`types.MappingProxyType` cannot be pickled)."""

    def _refuse(self, *args: object, **kwargs: object) -> Never:
        raise TypeError("A result cannot be changed; copy the mapping with dict(...).")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[type[Frozen], tuple[dict[Any, Any]]]:
        return Frozen, (dict(self),)


def freeze(value: Any) -> Any:
    """The same value, copied, where it could be changed from outside."""
    if isinstance(value, np.ndarray):
        if value.flags.writeable or not value.flags.owndata:
            value = value.copy()
            value.setflags(write=False)
        return value
    if isinstance(value, Mapping):
        return Frozen({key: freeze(item) for key, item in value.items()})
    if type(value) in (list, tuple):
        return type(value)(map(freeze, value))
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.copy()
    return value
