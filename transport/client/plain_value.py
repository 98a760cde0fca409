"""The values that JSON holds unchanged: the common ones as a type, the others by a walk. Pure. Used by content.py.

Not compiled: the walk of a value that contains itself ends with RecursionError only where Python counts the calls.
"""

from collections.abc import Iterable
from math import isfinite
from sys import float_info
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from .options import InvalidOption

_SEQUENCES = (list, tuple, set, frozenset)
_PLAIN = frozenset({str, int, bool, type(None), bytes})
"""Types of values that JSON always holds unchanged."""

_Number = Annotated[float, Meta(ge=-float_info.max, le=float_info.max)]
_Value: Any = None | bool | int | str | _Number
for _ in range(4):
    _Value = None | bool | int | str | _Number | list[_Value] | dict[str, _Value]


class PlainValue(Struct, array_like=True, gc=False):
    """One value, nested up to four deep, that JSON holds unchanged. msgspec checks it several times faster than Python
    code could."""

    value: _Value


def check_json(value: Any) -> None:
    """Raise InvalidOption for values that JSON would change silently.

    A key that is not text: 1 and "1" would be the same. A float that is not finite: it would become null.
    """
    parts: Iterable[Any]
    if type(value) in _PLAIN:
        return
    if isinstance(value, dict):
        for name in value:
            if type(name) is not str and not isinstance(name, str):
                raise InvalidOption(f"value: keys of a JSON object must be text, not {name!r}")
        parts = value.values()
    elif isinstance(value, _SEQUENCES):
        parts = value
    elif isinstance(value, float):
        if not isfinite(value):
            raise InvalidOption(f"value: {value} cannot be encoded as JSON")
        return
    else:
        parts = (msgspec.to_builtins(value),)
    for part in parts:
        kind = type(part)
        if not (kind is str or kind is int or kind in _PLAIN or (kind is float and isfinite(part))):
            check_json(part)
