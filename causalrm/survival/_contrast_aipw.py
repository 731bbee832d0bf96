"""Augmented inverse probability weighting of survival curves: nuisances and sums over rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg
from sklearn.base import clone

from causalrm.core.blocks import Block, Rows, pieces
from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.errors import DataError, IdentificationError, IdentificationWarning, warn
from causalrm.core.inference import by_cluster, invert_information
from causalrm.core.linear import Predictors, pairs
from causalrm.core.optimize import maximize
from causalrm.survival._contrast_data import Arms, Treatment, chain
from causalrm.survival._contrast_integral import brackets, stretches
from causalrm.survival.predict import Points
from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult
from causalrm.survival.roles import Roles

# no column of the data has these names
ARM, CLUSTER, WEIGHT, SHARE = "\0arm", "\0cluster", "\0weight", "\0share"
_SAMPLE = 500  # rows on which the quadrature is refined
_PER_TERM, _PER_ARM, _FEW = 10, 10, 10  # censored rows under which the censoring model is simpler


def bread_of(result: SurvivalResult, rows: Rows) -> np.ndarray:
    """Inverse of the information of a fit, its penalty included."""
    covariance = np.asarray(result.covariances["model"])
    if not result.call["options"].get("penalty") or not np.isfinite(covariance).all():
        return covariance
    # the model covariance is then B I B; B is the positive definite solution
    information = -rows.total(result.model.sums, result.estimates)[2]
    root = linalg.cholesky(information, lower=True)
    middle = np.real(linalg.sqrtm(root.T @ covariance @ root))
    half = linalg.solve_triangular(root, middle, trans="T", lower=True)
    out = linalg.solve_triangular(root, half.T, trans="T", lower=True)
    return np.asarray(0.5 * (out + out.T))


# ---------------------------------------------------------------------------- propensity


@dataclass(frozen=True)
class Propensity:
    """Multinomial logistic regression of the treatment; the first arm is the base.

    Attributes
    ----------
    formula : str
    predictors : Predictors
        One per further arm, in internal coefficients.
    beta : ndarray of shape (k,)
    bread : ndarray of shape (k, k)
        Inverse information.
    """

    formula: str
    predictors: Predictors
    beta: np.ndarray
    bread: np.ndarray = field(repr=False)

    def probabilities(self, xs: list[np.ndarray], n: int) -> np.ndarray:
        """Probability of each arm, shape (arms, n)."""
        return _softmax(self.predictors, xs, self.beta, n)


def _softmax(predictors: Predictors, xs: list[np.ndarray], beta: np.ndarray, n: int) -> np.ndarray:
    eta = np.zeros((len(predictors.slices) + 1, n))
    for row, value in zip(eta[1:], predictors.values(xs, beta), strict=True):
        row[:] = value
    eta -= eta.max(axis=0)
    p = np.exp(eta)
    return np.asarray(p / p.sum(axis=0))


def _propensity_sums(block: Block, predictors: Predictors, beta: np.ndarray) -> tuple[Any, ...]:
    arm, w = block[ARM], block[WEIGHT]
    n = len(arm)
    xs = predictors.matrices(block, n)
    p = _softmax(predictors, xs, beta, n)
    with np.errstate(divide="ignore"):
        value = float(w @ np.maximum(np.log(p[arm, np.arange(n)]), -1e10))
    g = [w * ((arm == j) - p[j]) for j in range(1, len(p))]
    second = np.stack([-w * p[i + 1] * ((i == j) - p[j + 1]) for i, j in pairs(len(p) - 1)])
    hessian = predictors.hessian(xs, second[None])[0]
    return value, predictors.score(xs, g), hessian, np.zeros_like(hessian)


def fit_propensity(
    frame: pd.DataFrame, formula: str, treatment: Treatment, arm: np.ndarray, w: np.ndarray
) -> Propensity:
    """Maximum likelihood with weights `w`; `arm` is the place of each row's level."""
    data = frame.assign(**{WEIGHT: w})
    _, rows, designs, _ = prepare(data, {"propensity": formula}, numbers=[WEIGHT])
    design = designs["propensity"]
    if treatment.name in {c.name for c in design.columns}:
        raise DataError(
            f"Expected a propensity formula without the treatment {treatment.name!r}, but saw "
            f"{formula!r}. Name covariates only."
        )
    rows.columns[ARM] = arm
    others = len(treatment.values) - 1
    predictors = Predictors([design] * others, [False] * others)
    predictors.standardise(rows, ["propensity"] * others)
    counts = np.bincount(arm, minlength=others + 1)
    if (counts == 0).any():
        empty = [treatment.labels[i] for i in np.flatnonzero(counts == 0)]
        raise IdentificationError(
            f"Expected rows at every level of {treatment.name!r}, but there are none at {empty}. "
            "Fit again without these levels, or use method='gformula'."
        )
    names = [f"{a}: {t}" for a in treatment.labels[1:] for t in design.terms]
    optimum = maximize(
        lambda b: rows.total(_propensity_sums, predictors, b),
        np.zeros(predictors.n_params), max_iter=60,
    )  # fmt: skip
    if not optimum.converged or optimum.value > -1e-6 * rows.n_obs:
        raise IdentificationError(
            f"Expected a mix of the levels of {treatment.name!r} at all covariates, but the "
            f"formula {formula!r} tells them apart (almost) perfectly in {rows.n_obs} rows. Leave "
            "out the covariates that determine the treatment if they are no confounders; else "
            "restrict the rows to where both occur."
        )
    bread = invert_information(-optimum.hessian, names)
    return Propensity(formula, predictors, optimum.theta, bread)


# ---------------------------------------------------------------------------- censoring


def fit_censoring(
    frame: pd.DataFrame,
    roles: Roles,
    spec: Any,
    terms: list[str],
    term: str,
    arm: np.ndarray,
    end: float,
    log: list[str],
) -> SurvivalResult | None:
    """Survival regression of censoring before `end`; None where nobody is censored.

    What happens at or after the latest time that is asked for is of no use to the estimate, and the
    end of a study, where many are censored at once, would bend a smooth model.
    """
    if roles.event is None:
        return None
    data = censoring_frame(frame, roles, end)
    censored = data[roles.event].to_numpy() > 0
    total = int(censored.sum())
    if not total:
        return None
    if isinstance(spec, SurvivalRegression):
        model = clone(spec).set_params(covariance="auto")
    elif spec is not None:
        model = SurvivalRegression(phi=formula_text(spec, "censoring"), kappa="weibull")
    elif total < _FEW:
        model = SurvivalRegression(phi="1", kappa="exponential")
    elif (
        total < _PER_TERM * (len(terms) + 2)
        or np.bincount(arm[censored], minlength=int(arm.max()) + 1).min() < _PER_ARM
    ):
        model = SurvivalRegression(phi="1", kappa="weibull")
    else:
        model = SurvivalRegression(phi=" + ".join([term, *terms]), gamma=term, kappa="weibull")
    if spec is None and model.phi == "1":
        warn(
            f"Only {total} rows were censored before {end:g}, too few for a regression of "
            f"censoring on the treatment and {len(terms)} terms: censoring is taken to be "
            "independent of them. Give censoring= to choose a model.",
            IdentificationWarning,
            log,
        )
    model.fit(data, time=roles.time, event=roles.event, weights=roles.weights)
    log.extend(f"Censoring model: {text}" for text in model.result_.warnings)
    found: SurvivalResult = model.result_
    return found


def censoring_frame(frame: pd.DataFrame, roles: Roles, end: float) -> pd.DataFrame:
    """The rows with follow-up cut at `end` and censoring before it as the event."""
    time = frame[str(roles.time)].to_numpy(dtype=float)
    event = frame[str(roles.event)].to_numpy(dtype=float)
    censored = (event == 0) & (time < end)
    return frame.assign(
        **{str(roles.time): np.minimum(time, end), str(roles.event): censored.astype(float)}
    )


# ---------------------------------------------------------------------------- sums


@dataclass(frozen=True)
class Nuisances:
    """The three fitted models; `bounds` are the stretches of the quadrature."""

    arms: Arms
    propensity: Propensity
    censoring: SurvivalResult | None
    clip: float | None
    bounds: np.ndarray = field(default_factory=lambda: np.empty(0))

    def parts(self, block: Block) -> tuple[dict[str, np.ndarray], ...]:
        """The columns of the outcome, propensity and censoring models."""
        out: tuple[dict[str, np.ndarray], ...] = ({}, {}, {})
        for name, column in block.items():
            if name[:2] in _PREFIXES:
                out[_PREFIXES.index(name[:2])][name[2:]] = column
        return out

    def columns(self, outcome: Rows, frame: pd.DataFrame) -> Rows:
        """The rows as all three models see them."""
        joined = {f"o:{k}": v for k, v in outcome.columns.items()}
        _, rows = encode_new(frame, self.propensity.predictors.unique)
        joined |= {f"p:{k}": v for k, v in rows.columns.items()}
        if self.censoring is not None:
            model = self.censoring.model
            cut = censoring_frame(frame, model.roles, self.arms.curves.end)
            _, rows = encode_new(cut, model.predictors.unique, model.roles.numbers)
            joined |= {f"c:{k}": v for k, v in rows.columns.items()}
        column = outcome.columns[self.arms.treatment.name]
        joined[ARM] = self.arms.treatment.arms(column)
        return Rows(joined, outcome.n_obs)

    def _points(self, outcome: Block, censoring: Block, n: int) -> tuple[Points, Points | None]:
        """Both survival models at the rows' own treatment."""
        g = None
        if self.censoring is not None:
            g = Points(self.censoring.model, self.censoring.estimates, censoring, n)
        return Points(self.arms.model, self.arms.theta, outcome, n), g

    def refined(self, rows: Rows) -> Nuisances:
        """The same with quadrature stretches that suit the rows."""
        block = rows.sample(_SAMPLE).columns
        outcome, _, censoring = self.parts(block)
        n = len(block[ARM])
        own, g = self._points(outcome, censoring, n)
        time, event, _, _ = self.arms.model.times(outcome)
        curves = self.arms.curves
        bounds = stretches(
            time, event, own, g, curves.times, curves.horizons, *curves.evaluate(own)
        )
        return dataclasses.replace(self, bounds=bounds)

    def sums(
        self, block: Block, derivatives: bool, n_clusters: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Totals of the rows' contributions, their derivatives, and their products.

        The contributions are those of each arm and quantity, the weights, and, with `derivatives`,
        the scores of the three models; the derivatives are the totals' in the models' coefficients.
        Instead of products there are sums by cluster where there are clusters.
        """
        outcome, covariates, censoring = self.parts(block)
        arm = block[ARM]
        n, curves, model = len(arm), self.arms.curves, self.arms.model
        w = self.arms.weights(outcome, n)
        value, slope, points = self.arms.evaluate(outcome, n)
        own, g = self._points(outcome, censoring, n)
        time, event, _, _ = model.times(outcome)
        here = np.arange(n)
        b = brackets(
            time, event, own, g, curves.times, curves.horizons,
            np.ascontiguousarray(value[arm, :, here].T),
            np.ascontiguousarray(np.moveaxis(slope[arm, :, :, here], 0, -1)), self.bounds,
        )  # fmt: skip
        xs = self.propensity.predictors.matrices(covariates, n)
        p = self.propensity.probabilities(xs, n)
        pi = p[arm, here]
        free = np.ones(n) if self.clip is None else (pi >= self.clip).astype(float)
        inverse = 1.0 / (pi if self.clip is None else np.maximum(pi, self.clip))
        scores = [((arm == j) - p[j]) for j in range(1, len(p))]
        parts = []
        gradients: tuple[list[np.ndarray], ...] = ([], [], [])
        for a in range(len(p)):
            factor = w * (arm == a) * inverse
            parts.append(w * value[a] - factor * b.value)
            if not derivatives:
                continue
            d = chain(model, points[a], w * slope[a]) - chain(model, own, factor * b.by_outcome)
            gradients[0].append(d)
            lost = factor * free * b.value
            gradients[1].append(
                np.stack(
                    [self.propensity.predictors.score(xs, [v * s for s in scores]) for v in lost]
                )
            )
            if self.censoring is not None and g is not None:
                gradients[2].append(-chain(self.censoring.model, g, factor * b.by_censoring))
        parts.append(w[None])
        if derivatives:
            parts.append(model.scores(outcome, self.arms.theta))
            parts.append(self.propensity.predictors.scores(xs, [w * s for s in scores]))
            if self.censoring is not None:
                parts.append(self.censoring.model.scores(censoring, self.censoring.estimates))
        stack = np.concatenate(parts)
        slopes = [np.concatenate(part) for part in gradients if part]
        products = by_cluster(block[CLUSTER], stack, n_clusters) if n_clusters else stack @ stack.T
        return (
            stack.sum(axis=1),
            np.concatenate(slopes, axis=1) if slopes else np.empty((0, 0)),
            products,
        )

    # ------------------------------------------------------------------ diagnostics

    def overlap(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Propensities (arms, n), and G at the end of each row's use (n,)."""
        n = rows.n_obs
        p, g = np.empty((len(self.arms.treatment.values), n)), np.ones(n)
        for start, block in pieces(rows.columns):
            outcome, covariates, censoring = self.parts(block)
            m = len(block[ARM])
            span = slice(start, start + m)
            xs = self.propensity.predictors.matrices(covariates, m)
            p[:, span] = self.propensity.probabilities(xs, m)
            if self.censoring is not None:
                time, *_ = self.arms.model.times(outcome)
                points = self._points(outcome, censoring, m)[1]
                assert points is not None
                g[span] = np.exp(-points.curves(np.minimum(time, self.arms.curves.end))[0])
        return p, g


_PREFIXES = ("o:", "p:", "c:")


def balance(
    frame: pd.DataFrame,
    propensity: Propensity,
    arm: np.ndarray,
    w: np.ndarray,
    p: np.ndarray | None,
) -> float:
    """Largest standardised difference of a column of the propensity model from the first arm.

    Rows count with their weights `w`, over propensities where `p` of shape (arms, n) is given.
    """
    _, rows = encode_new(frame, propensity.predictors.unique)
    share = w if p is None else w / p[arm, np.arange(len(arm))]
    rows.columns |= {ARM: arm, WEIGHT: w, SHARE: share}
    arms = len(propensity.predictors.slices) + 1

    def moments(block: Block) -> tuple[np.ndarray, ...]:
        x = propensity.predictors.matrices(block, len(block[ARM]))[0]
        share = block[SHARE] * (block[ARM] == np.arange(arms)[:, None])
        plain = block[WEIGHT]
        return share @ x.T, share.sum(axis=1), x @ plain, x**2 @ plain, plain.sum()

    by_arm, size, first, second, total = rows.total(moments)
    sd = np.sqrt(np.clip(second / total - (first / total) ** 2, 0.0, None))
    mean = by_arm / size[:, None]
    used = sd > 0
    gap = np.abs(mean[1:] - mean[0])[:, used] / sd[used]
    return float(gap.max()) if gap.size else 0.0
