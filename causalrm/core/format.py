"""Numbers as statisticians print them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd


def percent(level: float) -> str:
    """``0.95`` as ``95%``."""
    return f"{100 * level:.6g}%"


def text_of_p(p: float) -> str:
    """Return a p-value with three decimals, ``<0.001`` below, nothing for NaN."""
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def text_of_test(p: float) -> str:
    """Return a p-value as a sentence has it: ``p = 0.003``, ``p <0.001``."""
    text = text_of_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def text_of_numbers(values: Sequence[float], digits: int = 3) -> list[str]:
    """Format numbers that belong together; the second, a standard error, sets the decimals."""
    leading = values[1] if math.isfinite(values[1]) and values[1] else values[0]
    return [number(value, max(decimals(leading, digits) or 0, 0)) for value in values]


def decimals(value: float, digits: int) -> int | None:
    """Count the decimals that show `digits` significant digits; None where nothing is known."""
    if not math.isfinite(value) or value == 0:
        return None
    return digits - 1 - math.floor(math.log10(abs(value)))


def shared(needs: Sequence[int | None]) -> list[int]:
    """Give rows the same decimals unless their needs differ by more than two.

    Where they differ by two, the neediest gives up a digit.
    """
    needed = [d for d in needs if d is not None] or [0]
    spread = max(needed) - min(needed)
    if spread <= 2 and max(needed) <= 6:
        return [max(max(needed) - (spread == 2), 0)] * len(needs)
    return [max(d or 0, 0) for d in needs]


def number(value: float, places: int) -> str:
    """Write a number with so many decimals; nothing for NaN, 1.23e-09 for what is tiny or huge."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if abs(value) >= 1e7 or places > 7:
        return f"{value:.3g}"
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and not float(text) else text  # no "-0.00"


def aligned(values: Iterable[float], places: Sequence[int]) -> list[str]:
    """Pad on the right so that decimal points meet in a right-aligned column."""
    texts = [number(value, d) for value, d in zip(values, places, strict=True)]
    tails = [len(text) - text.find(".") if "." in text and "e" not in text else 0 for text in texts]
    most = max(tails, default=0)
    return [
        text + " " * (most - tail) if text and "e" not in text else text
        for text, tail in zip(texts, tails, strict=True)
    ]


def estimates(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Format estimate, std_error and the bounds with decimals that suit the standard error."""
    names = [n for n in ("estimate", "std_error", "conf_low", "conf_high") if n in frame]
    if "estimate" not in names:
        return {}
    values = {n: frame[n].to_numpy(dtype=float, na_value=math.nan) for n in names}
    se = values.get("std_error", np.full(len(frame), math.nan))
    places = shared(
        [
            decimals(s, 3) if math.isfinite(s) and s > 0 else decimals(e, 4)
            for e, s in zip(values["estimate"], se, strict=True)
        ]
    )
    texts = {n: aligned(v, places) for n, v in values.items()}
    if "conf_low" in texts and "conf_high" in texts:
        low, high = texts.pop("conf_low"), texts.pop("conf_high")
        # Bounds are padded to stand under one another, unless their decimals differ.
        pad = [max(map(len, x), default=0) * (len(set(places)) == 1) for x in (low, high)]
        texts["interval"] = [
            f"[{a.strip().rjust(pad[0])}, {b.strip().rjust(pad[1])}]" if a or b else ""
            for a, b in zip(low, high, strict=True)
        ]
    return texts


def squeezed(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split()).replace("[ ", "[")


def indented(cell: str, mark: str, escape: Callable[[str], str]) -> str:
    """Escape a cell, with a mark where two leading spaces indent it."""
    return (mark if cell.startswith("  ") and cell.strip() else "") + escape(cell)
