"""Features of answers and what is said of pairs of them: checked, and as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from causalrm.core.column import first_rows
from causalrm.core.errors import DataError
from causalrm.core.frame import Source, scan
from causalrm.preference.differences import Matrix


def dense(x: Matrix) -> np.ndarray:
    """The rows as a dense array."""
    return np.asarray(x.toarray() if sparse.issparse(x) else x)


def lengths(x: Matrix) -> np.ndarray:
    """Number of entries other than zero of each row."""
    if sparse.issparse(x):
        nonzero = x.copy()
        nonzero.eliminate_zeros()
        return np.asarray(np.diff(nonzero.indptr))
    return np.asarray(np.count_nonzero(x, axis=1))


def features(
    x: Any, role: str, names: Sequence[str] | None = None
) -> tuple[Matrix, tuple[str, ...]]:
    """Features as a dense or CSR array of floats, and their names."""
    if hasattr(x, "columns") or type(x).__module__.startswith(("pyarrow", "polars")):
        if isinstance(x, pd.DataFrame):  # columns may have numbers as names
            x = x.set_axis(x.columns.astype(str), axis=1)
        source = Source(x)
        wanted = list(source.names if names is None else names)
        _, rows = scan(source, numbers=wanted)
        columns = [np.asarray(rows.columns[name], dtype=float) for name in wanted]
        return np.column_stack(columns), tuple(wanted)
    if sparse.issparse(x):
        out = sparse.csr_array(x, dtype=np.float64)
        out.sum_duplicates()
        row = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
        bad = np.unique(row[~np.isfinite(out.data)])
    else:
        try:
            out = np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected numeric features in {role}, but saw: {error}.") from error
        if out.ndim != 2:
            raise DataError(
                f"Expected {role} of shape (pairs, features), but saw shape {out.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if not out.shape[0] or not out.shape[1]:
        raise DataError(f"Expected pairs and features in {role}, but saw shape {out.shape}.")
    if len(bad):
        raise DataError(
            f"Expected complete, finite features, but {len(bad)} of {out.shape[0]} rows of {role} "
            f"are not (first rows: {first_rows(list(map(int, bad[:6])), None)}). Complete or drop "
            "these rows."
        )
    if names is None:
        names = [f"x{j}" for j in range(out.shape[1])]
    if len(names) != out.shape[1]:
        raise DataError(
            f"Expected {len(names)} features in {role}, but saw {out.shape[1]} columns."
        )
    return out, tuple(map(str, names))


def features_of_pairs(
    x_a: Any, x_b: Any, names: Sequence[str] | None
) -> tuple[Matrix, Matrix, tuple[str, ...]]:
    """Features of both answers, and the names of these."""
    a, found = features(x_a, "X_a", names)
    b, _ = features(x_b, "X_b", found)
    if a.shape != b.shape:
        raise DataError(
            f"Expected as many rows in X_a as in X_b, but saw {a.shape[0]} and {b.shape[0]}."
        )
    if sparse.issparse(a) != sparse.issparse(b):
        a, b = sparse.csr_array(a), sparse.csr_array(b)
    return a, b, found


def numbers(values: ArrayLike, role: str, n: int, low: float, high: float = math.inf) -> np.ndarray:
    """One complete number per pair, within [low, high] (an infinite end excluded)."""
    try:
        out = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"Expected numbers as {role}, but saw: {error}.") from error
    if out.shape != (n,):
        raise DataError(f"Expected {role} of shape ({n},), one per pair, but saw {out.shape}.")
    bad = np.flatnonzero(~((out >= low) & (out <= high) & np.isfinite(out)))
    if len(bad):
        span = f"[{low:g}, {high:g}]" if high < math.inf else f"[{low:g}, infinity)"
        raise DataError(
            f"Expected {role} within {span}, complete, but {len(bad)} of {n} are not (first rows: "
            f"{first_rows(list(map(int, bad[:6])), None)}; first value: {out[bad[0]]}). Correct "
            "or drop these pairs."
        )
    return out


def labels(values: ArrayLike, n: int) -> np.ndarray:
    """Integer codes of cluster labels."""
    labels = np.asarray(values)
    if labels.shape != (n,):
        raise DataError(f"Expected cluster of shape ({n},), one per pair, but saw {labels.shape}.")
    codes = pd.factorize(labels)[0]
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        raise DataError(
            f"Expected a cluster for every pair, but {len(bad)} of {n} are missing (first rows: "
            f"{first_rows(list(map(int, bad[:6])), None)}). Drop these pairs."
        )
    return np.asarray(codes)
