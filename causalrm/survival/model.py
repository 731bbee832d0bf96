"""The likelihood of a survival regression as a sum over blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrm.core.blocks import Block
from causalrm.core.design import Design
from causalrm.core.errors import DataError
from causalrm.core.linear import Predictors
from causalrm.survival import _kernels as K
from causalrm.survival.roles import Roles

PARAMETERS = ("phi", "lam", "gamma", "kappa")
_END = 30.0  # |log(kappa + 1)| beyond which a double cannot tell kappa from the end of its range


@dataclass(frozen=True)
class Family:
    """A distribution as a corner of the general one.

    Attributes
    ----------
    kappa : float or None
        Fixed value; None when it is estimated.
    gamma : bool
        Whether the power shape gamma is free (else it is 1).
    lam : bool
        Whether lambda has an intercept by default.
    """

    kappa: float | None
    gamma: bool = True
    lam: bool = False


FAMILIES: dict[str, Family] = {
    "free": Family(None),
    "weibull": Family(1.0),
    "exponential": Family(1.0, gamma=False),
    "loglogistic": Family(0.0),
    "burr": Family(0.0, lam=True),
    "linear_hazard": Family(2.0, gamma=False, lam=True),
    "gompertz": Family(math.inf, gamma=False, lam=True),
    "exponential_power": Family(math.inf),
}


def resolve_kappa(kappa: Any) -> Family:
    """The family that the option `kappa` stands for."""
    if isinstance(kappa, str) and kappa in FAMILIES:
        return FAMILIES[kappa]
    if isinstance(kappa, (int, float, np.number)) and not isinstance(kappa, bool) and kappa > -1:
        return Family(float(kappa))
    raise DataError(
        f"Expected kappa to be a number above -1 or one of {sorted(FAMILIES)}, but saw {kappa!r}."
    )


class Model:
    """Log-likelihood of one specification; holds no rows, so that it travels to workers.

    Parameters
    ----------
    designs : mapping of str to Design or None
        For phi, lam and gamma; None fixes the parameter at 1.
    lam_intercept : bool
        Whether lambda keeps the intercept of its design.
    kappa : float or None
        Fixed value; None when it is estimated.
    roles : Roles
    mean_weight : float
        Weights are divided by it.
    """

    def __init__(
        self,
        designs: Mapping[str, Design | None],
        lam_intercept: bool,
        kappa: float | None,
        roles: Roles,
        mean_weight: float = 1.0,
    ):
        used: list[Design | None] = []
        drop: list[bool] = []
        self.active: list[int] = []
        for i, name in enumerate(PARAMETERS[:3]):
            design = designs[name]
            if design is not None:
                used.append(design)
                drop.append(name == "lam" and not lam_intercept)
                self.active.append(i)
        if kappa is None:
            used.append(None)
            drop.append(False)
            self.active.append(3)
        self.predictors = Predictors(used, drop)
        self.kappa = kappa
        self.roles = roles
        self.mean_weight = mean_weight

    # ------------------------------------------------------------------ labels

    @property
    def names(self) -> list[str]:
        """Names of the active parameters, in order."""
        return [PARAMETERS[i] for i in self.active]

    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Parameter and term of each coefficient."""
        parameter: list[str] = []
        term: list[str] = []
        p = self.predictors
        for i, name in enumerate(self.names):
            w = p.which[i]
            terms = ("kappa",) if w < 0 else p.unique[w].terms[p.first[i] :]
            parameter.extend([name] * len(terms))
            term.extend(terms)
        return tuple(parameter), tuple(term)

    def position(self, name: str) -> int | None:
        """Place of a parameter among the predictors, or None where it is fixed."""
        return self.names.index(name) if name in self.names else None

    # ------------------------------------------------------------------ rows

    def times(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Any]:
        """Time, event, entry and upper end of the rows of a block, as the kernels take them."""
        r = self.roles
        entry = None if r.entry is None else np.asarray(block[r.entry], dtype=float)
        if r.time is not None:
            time = np.asarray(block[r.time], dtype=float)
            event = (
                np.ones(len(time)) if r.event is None else np.asarray(block[r.event], dtype=float)
            )
            return time, event, entry, None
        assert r.lower is not None and r.upper is not None
        time = np.asarray(block[r.lower], dtype=float)
        upper = np.asarray(block[r.upper], dtype=float)
        exact = time == upper
        if entry is not None:
            time = np.maximum(time, entry)
        return time, exact.astype(float), entry, np.where(exact, np.inf, upper)

    def weights(self, block: Block) -> np.ndarray | None:
        """Weights of mean one, or None."""
        if self.roles.weights is None:
            return None
        return np.asarray(block[self.roles.weights], dtype=float) / self.mean_weight

    def parameters(
        self, xs: list[np.ndarray], theta: np.ndarray, n: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Log phi, log lambda, log gamma (n,) and kappa at coefficients `theta`."""
        values = dict(zip(self.active, self.predictors.values(xs, theta), strict=True))
        kappa = math.expm1(values[3]) if self.kappa is None else self.kappa
        a, b, c = (
            v if isinstance(v := values.get(i, 0.0), np.ndarray) else np.full(n, float(v))
            for i in range(3)
        )
        return a, b, c, kappa

    def _derivatives(self, block: Block, theta: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        time, event, entry, upper = self.times(block)
        n = len(time)
        xs = self.predictors.matrices(block, n)
        a, b, c, kappa = self.parameters(xs, theta, n)
        return xs, K.row_derivatives(time, event, a, b, c, kappa, entry, upper)

    def sums(
        self, block: Block, theta: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, score, Hessian and outer products of scores, in internal coefficients.

        The outer products cost little beside the rest and spare a pass at the end.
        """
        k = self.predictors.n_params
        refused = -math.inf, np.zeros(k), np.zeros((k, k)), np.zeros((k, k))
        if self.kappa is None and abs(theta[-1]) > _END:
            return refused
        xs, rows = self._derivatives(block, theta)
        w = self.weights(block)
        m, n = len(self.active), rows.shape[1]
        g, weights = np.empty((m, n)), np.empty((2, m * (m + 1) // 2, n))
        value = K.weigh(rows, np.array(self.active), np.ones(1) if w is None else w, g, weights)
        if not math.isfinite(value):
            return refused
        with np.errstate(over="ignore", invalid="ignore"):  # far from the maximum; refused there
            hessian, meat = self.predictors.hessian(xs, weights)
            return value, self.predictors.score(xs, list(g)), hessian, meat

    def scores(self, block: Block, theta: np.ndarray) -> np.ndarray:
        """Weighted score of each row, shape (k, n), in internal coefficients."""
        xs, rows = self._derivatives(block, theta)
        w = self.weights(block)
        g = [rows[1 + i] if w is None else w * rows[1 + i] for i in self.active]
        return self.predictors.scores(xs, g)

    def counts(self, block: Block) -> tuple[Any, ...]:
        """Rows by kind of observation, weights, and moments of log time, for starting values."""
        time, event, entry, upper = self.times(block)
        w = self.weights(block)
        w = np.ones(len(time)) if w is None else w
        interval = np.zeros(len(time), bool) if upper is None else np.isfinite(upper)
        left = interval & (time <= (0.0 if entry is None else entry))
        known = time > 0
        y = np.log(time[known])
        return (
            int((event > 0).sum()),
            int((interval & ~left).sum()),
            int(left.sum()),
            0 if entry is None else int((entry > 0).sum()),
            float(w.sum()),
            float(w @ (event + interval)),
            int(known.sum()),
            float(y.sum()),
            float(y @ y),
            float(y @ event[known]),
            0.0 if upper is None else float(np.log(upper[interval]).sum()),
        )
