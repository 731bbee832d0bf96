"""Columns that separate an outcome: refused where they do so perfectly, named where in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalrm.core.errors import IdentificationError, IdentificationWarning, warn
from causalrm.core.linear import logistic_rows
from causalrm.core.optimize import Optimum, maximize
from causalrm.risk.rows import Roles, Sample

_FREE = 1e-3  # log-likelihood of perfectly separated rows
_ENDLESS = 50.0  # standard error, per sd of a column given the others, of what has no estimate
_WIDE = 0.2  # share of the prior's sd up to which a posterior is the data's work


def logistic(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> Optimum:
    """Logistic regression of rows in memory by Newton; `x` has an intercept."""

    def objective(beta: np.ndarray) -> Any:
        value, g, h = logistic_rows(y, x @ beta, w)
        return value.sum(), x.T @ g, (x * h[:, None]).T @ x, (x * (g * g)[:, None]).T @ x

    return maximize(objective, np.zeros(x.shape[1]), max_iter=60)


def look_for_separation(
    sample: Sample, x: np.ndarray, w: np.ndarray, free: np.ndarray, roles: Roles
) -> tuple[tuple[str, str], ...]:
    """Refuse perfect separation, and find the coefficients that separation leaves without bound.

    The ordinary logistic regressions of the outcome among the tested, and of testing, are asked:
    where a maximum likelihood estimate does not exist, its standard error is endless, and not
    because its column is nearly a combination of others.

    Parameters
    ----------
    sample : Sample
    x, w : ndarray of shape (n, p), (n, q)
        Standardised columns of risk, and the free ones of testing.
    free : ndarray of bool
    roles : Roles

    Returns
    -------
    tuple of (parameter, term)

    Raises
    ------
    IdentificationError
        When the columns tell all rows of 1 from all rows of 0.
    """
    t, found = sample.tested, []
    own = [term for term, keep in zip(sample.testing.terms, free, strict=True) if keep]
    for y, design, among, what, name, terms in (
        (sample.y[t], x, t, "risk", roles.outcome, list(sample.risk.terms)),
        (t.astype(float), w, slice(None), "testing", roles.tested, own),
    ):
        best = logistic(design[among], y, np.ones(len(y)))
        if best.value > -_FREE:
            raise IdentificationError(
                f"Expected columns of {what} that do not separate column {name!r} perfectly, but "
                f"a combination of {terms[1:8]} does so on all {len(y)} rows"
                f"{' tested' if what == 'risk' else ''}. Remove the column that decides it, or "
                "check whether it was recorded after the fact."
            )
        size, axes = np.linalg.eigh(-best.hessian)
        variance = axes**2 @ (1.0 / np.maximum(size, 1e-12))
        shared = np.diag(np.linalg.inv(design.T @ design / len(design)))  # variance inflation
        found += [
            (what, term)
            for term, v, factor in zip(terms[1:], variance[1:], shared[1:], strict=True)
            if v > _ENDLESS**2 * factor
        ]
    return tuple(found)


def warn_of_separation(
    unbounded: Sequence[tuple[str, str]],
    labels: Sequence[tuple[str, str]],
    sd: np.ndarray,
    prior: np.ndarray,
    log: list[str],
) -> None:
    """Name the coefficients whose posterior ends where the prior ends.

    Parameters
    ----------
    unbounded : sequence of (parameter, term)
        As `look_for_separation` found them.
    labels : sequence of (parameter, term)
    sd, prior : ndarray
        Of the coefficients in the order of the labels: posterior and prior standard deviations on
        the scale of the priors.
    log : list of str
    """
    left = [
        (label, float(s), float(p))
        for label, s, p in zip(labels, sd, prior, strict=False)
        if label in unbounded and s > _WIDE * p
    ]
    if left:
        told = ", ".join(
            f"{term!r} of {parameter} (posterior sd {s:.2g}, prior sd {p:.2g})"
            for (parameter, term), s, p in left[:6]
        )
        (parameter, term), _, _ = left[0]
        warn(
            "Expected rows of both kinds on either side of every column, but the data bound these "
            f"coefficients on one side at most (quasi-complete separation): {told}. On the other "
            "side the prior decides. Merge rare levels, remove the column, or give a prior that "
            f"you would defend, for example priors={{{parameter!r}: {{{term!r}: 1.0}}}}.",
            IdentificationWarning,
            log,
        )
