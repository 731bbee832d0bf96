"""Probabilities of rows under the draws of a fit, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from causalrm.core.errors import DataError
from causalrm.core.result import check_level
from causalrm.risk import _kernels as ker
from causalrm.risk.result import RiskResult, frame_of, thinned
from causalrm.risk.rows import level_codes, read_new

_ROWS = 1024  # rows at a time, which with 1,000 draws are 8 MB per quantity


@dataclass(frozen=True, eq=False)
class Draws:
    """Parameters by draw, on the scale of the columns.

    Attributes
    ----------
    risk, testing : ndarray of shape (S, p), (S, q)
        Coefficients; of testing, those that are not held at 0.
    sigma, alpha : ndarray of shape (S,)
    decider : ndarray of shape (S, number of deciders)
    weights : ndarray of shape (S,), optional
    law : str
        Distribution of the unobservable.
    """

    risk: np.ndarray
    testing: np.ndarray
    sigma: np.ndarray
    alpha: np.ndarray
    decider: np.ndarray
    weights: np.ndarray | None
    law: str

    @classmethod
    def of(cls, result: RiskResult) -> Self:
        """The draws of a result."""
        sigma = result.part("sigma")[:, 0]
        alpha = result.part("alpha")[:, 0] if result.alpha is None else None
        return cls(
            result.part("risk"), result.part("testing"), sigma,
            np.full(len(sigma), result.alpha) if alpha is None else alpha,
            result.part("decider")[:, 1:], result.weights, result.unobservable,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.sigma)

    def thin(self, most: int) -> Self:
        """At most so many draws; see `thinned`."""
        if len(self) <= most:
            return self
        pick = thinned(len(self), most, self.weights)
        weights = None if self.weights is None else self.weights[pick]
        return replace(
            self, risk=self.risk[pick], testing=self.testing[pick], sigma=self.sigma[pick],
            alpha=self.alpha[pick], decider=self.decider[pick], weights=weights,
        )  # fmt: skip

    @property
    def normalised(self) -> np.ndarray:
        """Weights that sum to 1."""
        if self.weights is None:
            return np.full(len(self), 1.0 / len(self))
        return np.asarray(self.weights / self.weights.sum())


@dataclass(frozen=True, eq=False)
class NewRows:
    """Designs of rows: `x` of risk, `w` of testing (free columns), codes of deciders or None."""

    x: np.ndarray
    w: np.ndarray
    decider: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self, size: int = _ROWS) -> Iterator[tuple[slice, Block]]:
        """Rows, so many at a time."""
        for start in range(0, len(self), size):
            span = slice(start, min(start + size, len(self)))
            decider = None if self.decider is None else self.decider[span]
            yield span, Block(self.x[span], self.w[span], decider)


class Block:
    """Some rows; every method gives an array of shape (rows, S)."""

    def __init__(self, x: np.ndarray, w: np.ndarray, decider: np.ndarray | None):
        self.x, self.w, self.decider = x, w, decider

    def predictors(self, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Linear predictors of risk and of testing, each of shape (S, rows)."""
        a, d = draws.risk @ self.x.T, draws.testing @ self.w.T
        if self.decider is not None:
            d += draws.decider[:, self.decider]
        return a, d

    def risk(self, draws: Draws) -> np.ndarray:
        """P(Y = 1), marginal over the unobservable."""
        a, _ = self.predictors(draws)
        return np.array(
            [ker.risk(own, s, draws.law)[0] for own, s in zip(a, draws.sigma, strict=True)]
        ).T

    def log_cells(self, draws: Draws, code: int) -> np.ndarray:
        """Log probability of a kind of row: untested, positive or negative."""
        return self._log_cells(*self.predictors(draws), draws, code)

    def _log_cells(self, a: np.ndarray, d: np.ndarray, draws: Draws, code: int) -> np.ndarray:
        kind = np.full(len(self.x), code, dtype=np.int8)
        pairs = zip(a, d, draws.sigma, draws.alpha, strict=True)
        return np.array([ker.values(kind, x, y, s, alpha, draws.law) for x, y, s, alpha in pairs]).T

    def testing(self, draws: Draws) -> np.ndarray:
        """P(T = 1)."""
        return np.asarray(-np.expm1(self.log_cells(draws, ker.UNTESTED)))

    def found(self, draws: Draws) -> np.ndarray:
        """P(T = 1, Y = 1)."""
        return np.asarray(np.exp(self.log_cells(draws, ker.POSITIVE)))

    def risk_tested(self, draws: Draws) -> np.ndarray:
        """P(Y = 1 | T = 1)."""
        gap = self.log_cells(draws, ker.NEGATIVE) - self.log_cells(draws, ker.POSITIVE)
        return np.asarray(np.exp(-np.logaddexp(0.0, gap)))

    def risk_untested(self, draws: Draws) -> np.ndarray:
        """P(Y = 1 | T = 0)."""
        # r and Z mirrored: no test is a test, positive is negative, and nothing is subtracted
        a, d = self.predictors(draws)
        if draws.law == "uniform":
            a = a + draws.sigma[:, None]
        gap = self._log_cells(-a, -d, draws, ker.POSITIVE)
        gap -= self._log_cells(-a, -d, draws, ker.NEGATIVE)
        return np.asarray(np.exp(-np.logaddexp(0.0, gap)))


def new_rows(result: RiskResult, data: Any) -> tuple[pd.Index, NewRows, Any]:
    """Read new rows: their index, designs, and the source for further columns.

    The decider counts where its column is there; otherwise rows are those of a typical decider.
    """
    source, x, w = read_new(data, result.risk_design, result.testing_design)
    name = result.call["roles"].get("decider")
    decider = None
    if name is not None and name in source.names:
        decider = level_codes(source, name, result.deciders, "the decider")
    return source.index, NewRows(x, w[:, result.free], decider), source


def summarise_rows(
    rows: NewRows, draws: Draws, quantity: str, index: pd.Index, level: float
) -> pd.DataFrame:
    """Mean, sd and interval of a method of `Block`, one row per row."""
    check_level(level)
    parts = [
        frame_of(getattr(block, quantity)(draws), draws.weights, level)
        for _, block in rows.blocks()
    ]
    return pd.concat(parts).set_axis(index)


_GIVEN = {None: "risk", "tested": "risk_tested", "untested": "risk_untested"}


def predict_risk(result: RiskResult, data: Any, given: str | None, level: float) -> pd.DataFrame:
    """Risk of new rows; see `SelectiveLabelsModel.predict_risk`."""
    index, rows, source = new_rows(result, data)
    draws = Draws.of(result)
    if given in _GIVEN:
        return summarise_rows(rows, draws, _GIVEN[given], index, level)
    if given != "status":
        raise DataError(
            f"Expected given to be None, 'tested', 'untested' or 'status', but saw {given!r}. "
            "Give one of them."
        )
    status = level_codes(source, result.call["roles"]["tested"], (0, 1), "the test status")
    yes = summarise_rows(rows, draws, "risk_tested", index, level)
    no = summarise_rows(rows, draws, "risk_untested", index, level)
    return pd.DataFrame(np.where((status == 1)[:, None], yes, no), index, yes.columns)


def mean_of(rows: NewRows, draws: Draws, quantity: str) -> np.ndarray:
    """Posterior mean of a method of `Block`, shape (n,)."""
    return np.concatenate(
        [getattr(block, quantity)(draws) @ draws.normalised for _, block in rows.blocks()]
    )


def simulate(
    rows: NewRows, draws: Draws, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Replicated tests and outcomes of the rows, one draw at a time; outcomes of all rows."""
    block = Block(rows.x, rows.w, rows.decider)
    a, d = block.predictors(draws)
    for x, y, s, alpha in zip(a, d, draws.sigma, draws.alpha, strict=True):
        z = s * (rng.random(len(x)) if draws.law == "uniform" else rng.normal(size=len(x)))
        outcome = rng.logistic(size=len(x)) < x + z
        yield rng.logistic(size=len(x)) < alpha * (x + z) + y, outcome
