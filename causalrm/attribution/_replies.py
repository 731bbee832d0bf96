"""What is kept of a reply, and which option it names."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalrm.attribution.archive import Row
from causalrm.core.errors import DataError


def check_replies(replies: int) -> int:
    """Return a number of replies, or raise a DataError."""
    if isinstance(replies, bool) or not isinstance(replies, int) or replies < 1:
        raise DataError(f"replies must be a positive int; got {replies!r}.")
    return replies


def common(row: Mapping[str, Any], prompt: str) -> Row:
    """Keep of an answer what an archive needs."""
    out: Row = {"prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16]}
    for name in ("text", "prompt_tokens", "completion_tokens", "latency"):
        x = row.get(name)
        if isinstance(x, str) or (isinstance(x, int | float | np.number) and math.isfinite(x)):
            out[name] = x if isinstance(x, str) else float(x)
    return out


def chosen(text: str | None, labels: Sequence[str], options: Sequence[str]) -> int | None:
    """Which option a reply names: by its letter, else by its text; None where unclear."""
    plain = (text or "").strip()
    letters = "".join(labels)
    patterns = (
        rf"\W*([{letters}])\W*",
        rf"\W*([{letters}])[).:](?:\s.*)?",
        rf".*\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: is)?\W*([{letters}])\b\W*.*",
    )
    for pattern in patterns:
        if match := re.fullmatch(pattern, plain, re.S):
            return labels.index(match[1])
    named = [i for i, o in enumerate(options) if o.casefold() in plain.casefold()]
    return named[0] if len(named) == 1 else None
