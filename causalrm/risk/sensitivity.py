"""The same fit under other prevalences: reweighted draws, or the grid again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.errors import ConvergenceError, DataError
from causalrm.core.result import check_level
from causalrm.risk.fitting import Setup, moved
from causalrm.risk.grid import fit_grid, smooth_weights
from causalrm.risk.problem import PrevalenceTerm
from causalrm.risk.result import RiskResult, frame_of

ODDS = (2 / 3, 0.8, 1.0, 1.25, 1.5)  # of the targets, in the fan of a summary
_KHAT, _ESS = 0.7, 100.0
_DRAWS = 256
_ROWS = 20_000  # distinct rows up to which a fan of a summary runs the grid again unasked


def other_odds(value: float, factor: float) -> float:
    """The prevalence whose odds are `factor` times those of `value`."""
    if factor == 1.0:
        return value
    odds = factor * value / (1 - value)
    return odds / (1 + odds)


def of_summary(
    own: Setup, result: RiskResult, wanted: bool | None, rng: np.random.Generator
) -> pd.DataFrame:
    """The fan of a fit, over targets from two thirds to one and a half times in odds.

    Entries that can be had neither by reweighting nor by the grid are left out; `fan` on their own
    says why. Empty where nothing is left to compare.
    """
    known, parts = own.known, []
    if not known or wanted is False:
        return pd.DataFrame()
    refit = result.method == "grid" and (wanted or len(own.problem.X) <= _ROWS)
    for factor in ODDS:
        values = [other_odds(k.target.value, factor) for k in known]
        label = f"{values[0]:.4g}" if len(known) == 1 else f"odds x {factor:.3g}"
        with suppress(ConvergenceError):
            parts.append(fan(own, result, [(label, values)], 0.95, rng, refit))
    found = pd.concat(parts, ignore_index=True)
    return found if len(found) > len(result.term) else pd.DataFrame()


def targets_of(own: Setup, prevalence: Any) -> tuple[str, list[float]]:
    """Label and new targets of one entry of a fan: a number, or a dict by level."""
    levels = [known.target.level for known in own.known]
    if isinstance(prevalence, Mapping):
        if set(prevalence) != set(levels) or len(levels) != len(set(levels)):
            raise DataError(
                f"Expected a prevalence for each of the levels {levels}, but saw {prevalence!r}. "
                "Give all of them."
            )
        values = [prevalence[level] for level in levels]
        label = ", ".join(f"{k} {v:.4g}" for k, v in prevalence.items())
    elif len(levels) == 1:
        values, label = [prevalence], f"{prevalence:.4g}" if _is_share(prevalence) else ""
    else:
        raise DataError(
            f"Expected a dict from level to prevalence, because the fit has {len(levels)} targets,"
            f" but saw {prevalence!r}. Give such dicts."
        )
    if not all(_is_share(v) for v in values):
        raise DataError(
            f"Expected prevalences between 0 and 1, but saw {prevalence!r}. Correct them."
        )
    return label, [float(v) for v in values]


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


def _reweighted(
    result: RiskResult, terms: Sequence[PrevalenceTerm], targets: Sequence[float]
) -> tuple[np.ndarray, float, float] | None:
    """Weights of the draws under other targets with k-hat and ESS; None if a hard one moves."""
    if any(t.hard and t.target != target for t, target in zip(terms, targets, strict=True)):
        return None
    log_w = np.zeros(len(result.draws))
    if result.weights is not None:
        log_w = np.log(np.maximum(result.weights, 1e-300))
    m = result.implied[:, 1:]
    for j, (term, target) in enumerate(zip(terms, targets, strict=True)):
        if term.hard:
            continue
        new = moved(term, target)
        log_w += [new.density(x)[0] - term.density(x)[0] for x in m[:, j]]
    if list(targets) == [term.target for term in terms]:  # the draws as they are
        w = np.exp(log_w - np.logaddexp.reduce(log_w))
        return w, float(result.diagnostics.get("khat", math.nan)), math.inf
    log_w, khat = smooth_weights(log_w)
    w = np.exp(log_w)
    return w, khat, float(1.0 / (w @ w))


def fan(
    own: Setup, result: RiskResult, entries: Sequence[tuple[str, list[float]]], level: float,
    rng: np.random.Generator, refit: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Coefficients and implied prevalence under other targets.

    Parameters
    ----------
    own : Setup
    result : RiskResult
    entries : sequence of (str, list of float)
        Label and targets.
    level : float
    rng : Generator
    refit : bool
        Whether the grid may be run again where reweighting fails; such entries are left out
        otherwise.

    Returns
    -------
    pandas.DataFrame
        Columns prevalence, parameter, term, estimate, std_error, conf_low, conf_high, method,
        khat.

    Raises
    ------
    ConvergenceError
        When `refit` does not help either.
    """
    check_level(level)
    terms, frames = own.problem.prevalence, []
    for label, targets in entries:
        draws, method = result.draws, "reweighted"
        found = _reweighted(result, terms, targets)
        weights, khat = (None, math.nan) if found is None else found[:2]
        if found is None or found[1] > _KHAT or found[2] < _ESS:
            if not refit:
                continue
            if own.problem.alpha is None or own.problem.deciders is not None:
                reason = "the grid takes neither deciders nor an inferred alpha"
            else:
                new = tuple(moved(t, v) for t, v in zip(terms, targets, strict=True))
                grid = fit_grid(replace(own.problem, prevalence=new), _DRAWS, rng)
                reason = grid.reason
            if reason:
                raise ConvergenceError(
                    f"Expected draws that can be reweighted to a prevalence of {label} (k-hat up "
                    f"to {_KHAT}, but it is {khat:.2f}), or a grid that can be run again: "
                    f"{reason}. Choose values nearer to the target, or fit with that prevalence."
                )
            draws, method, khat = own.raw(grid.theta), "refitted", float(grid.khat)
            weights = np.exp(grid.log_weights - grid.log_weights.max())
        frame = frame_of(draws.T, weights, level)
        frame.insert(0, "term", result.term)
        frame.insert(0, "parameter", result.parameter)
        frame.insert(0, "prevalence", label)
        frames.append(frame.assign(method=method, khat=khat))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
