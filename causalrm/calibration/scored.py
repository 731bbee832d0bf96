"""Checked outcomes and scores, with the sums, cells and samples that several measures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causalrm.calibration import _kernels as k
from causalrm.calibration import _kernels_cells as cell
from causalrm.calibration import _kernels_curve as curve
from causalrm.calibration import _kernels_fit as fit
from causalrm.calibration import _kernels_rank as rank
from causalrm.core.errors import DataError, check_choice
from causalrm.core.inference import warn_of_few
from causalrm.core.random import RNG, resolve, spawn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EPS = fit.EPS


def vector(values: ArrayLike, name: str) -> Floats:
    """Numbers as a float array of shape (n,)."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        out = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers; reading it gave: {error}.") from error
    if out.ndim != 1:
        raise DataError(f"{name} must be one-dimensional; got shape {out.shape}.")
    return out


def _rows(bad: Any) -> str:
    where = np.flatnonzero(bad)
    more = ", ..." if where.size > 5 else ""
    return f"{where.size:,} of {bad.size:,} rows, first at {where[:5].tolist()}{more}"


def check_scores(y: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """Outcomes 0/1 and scores in [0, 1] of one length, complete."""
    outcome, score = vector(y, "y"), vector(p, "p")
    if outcome.size != score.size:
        raise DataError(f"y and p must have one length; got {outcome.size} and {score.size}.")
    if score.size < 2:
        raise DataError(f"At least two rows are needed; got {score.size}.")
    bad_y, bad_p = k.bad_rows(outcome, score)
    if bad_y:
        raise DataError(
            "y must hold 0 and 1 (or booleans), complete; other values in "
            f"{_rows((outcome != 0.0) & (outcome != 1.0))}. Code the outcome as 0/1 and drop or "
            "explain rows without one."
        )
    if bad_p:
        raise DataError(
            "p must hold probabilities in [0, 1], complete; other values in "
            f"{_rows(~((score >= 0.0) & (score <= 1.0)))}. Scores of replies that failed have to "
            "be left out before, and their number reported."
        )
    return outcome, score


def check_weights(weights: ArrayLike | None, n: int, name: str = "weights") -> Floats | None:
    """Weights scaled to mean one."""
    if weights is None:
        return None
    w = vector(weights, name)
    if w.size != n:
        raise DataError(f"{name} must have one value per row; got {w.size} for {n} rows.")
    bad = ~((w >= 0.0) & (w < np.inf))
    if bad.any():
        raise DataError(f"{name} must be finite and not negative; other values in {_rows(bad)}.")
    if not w.sum() > 0.0:
        raise DataError(f"{name} are all zero.")
    return np.asarray(w / w.mean())


def check_labels(labels: ArrayLike, n: int, name: str) -> tuple[Ints, list[Any]]:
    """Codes and distinct values of labels, complete; levels of a categorical keep their order."""
    series = pd.Series(labels)
    if series.size != n:
        raise DataError(f"{name} must have one value per row; got {series.size} for {n} rows.")
    if series.isna().any():
        raise DataError(f"{name} is missing in {_rows(series.isna().to_numpy())}.")
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
        codes: Any = series.cat.codes.to_numpy(np.int64)
        return codes, series.cat.categories.tolist()
    if isinstance(series.dtype, pd.ArrowDtype):  # a dictionary would keep levels that are not used
        series = pd.Series(series.to_numpy(dtype=object))
    codes, levels = pd.factorize(series, sort=True)
    return codes.astype(np.int64), list(levels)


class Scored:
    """Outcomes and scores of one set of rows.

    Each sum is computed when first asked for and then kept. `log` receives the warnings.

    Parameters
    ----------
    y, p : array-like of shape (n,)
    weights, cluster, replicate_weights, bins, strategy, n_boot, rng
        As in `causalrm.calibration.ece`.
    """

    def __init__(
        self,
        y: ArrayLike,
        p: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        cluster: ArrayLike | None = None,
        replicate_weights: ArrayLike | None = None,
        bins: int | Sequence[float] = 10,
        strategy: str = "width",
        n_boot: int = 1000,
        rng: RNG = 0,
    ):
        self.log: list[str] = []
        self._made: dict[str, Any] = {}
        self.y, self.p = check_scores(y, p)
        self.n = self.p.size
        self.w = check_weights(weights, self.n)
        self.cluster: Ints | None = None
        self.n_clusters = 0
        if cluster is not None:
            self.cluster, names = check_labels(cluster, self.n, "cluster")
            self.n_clusters = len(names)
            if self.n_clusters < 2:
                raise DataError("cluster must have at least two distinct values; got one.")
            warn_of_few(self.n_clusters, self.log)
        self.replicates: Floats | None = None
        if replicate_weights is not None:
            if cluster is not None:
                raise DataError("Give either cluster or replicate_weights, not both.")
            self.replicates = self._check_replicates(replicate_weights)
        check_choice("strategy", strategy, ("width", "quantile"))
        if isinstance(bins, int) and bins < 1:
            raise DataError(f"bins must be at least 1; got {bins}.")
        if n_boot and n_boot < 100:
            raise DataError(f"n_boot must be 0 (no intervals) or at least 100; got {n_boot}.")
        self._bins, self._strategy, self.n_boot = bins, strategy, n_boot
        _, self.entropy = resolve(rng)

    def _check_replicates(self, replicates: ArrayLike) -> Floats:
        out = np.asarray(replicates, dtype=np.float64)
        if out.ndim != 2 or out.shape[0] != self.n or out.shape[1] < 2:
            raise DataError(
                "replicate_weights must have one row per observation and a column per replicate; "
                f"got shape {out.shape} for {self.n} rows."
            )
        if not np.isfinite(out).all():
            raise DataError("replicate_weights must be finite.")
        if self.w is None:
            raise DataError("replicate_weights need weights=, the full-sample weights, too.")
        return np.asarray(out / out.mean(axis=0))

    def subset(self, rows: NDArray[np.bool_], weights: Floats | None = None) -> Scored:
        """Return some of the rows, or all of them under other weights, with the same settings."""
        part = object.__new__(Scored)
        part.log = self.log
        part._made = {}
        whole = bool(rows.all())
        part.y, part.p = (self.y, self.p) if whole else (self.y[rows], self.p[rows])
        part.n = part.p.size
        w = self.w if weights is None else weights
        part.w = None if w is None else np.asarray(w[rows] / max(w[rows].mean(), 1e-300))
        part.cluster = None if self.cluster is None else self.cluster[rows]
        part.n_clusters = self.n_clusters
        part.replicates = None
        if self.replicates is not None and weights is None:
            part.replicates = self.replicates[rows] / self.replicates[rows].mean(axis=0)
        part._bins, part._strategy, part.n_boot = self._bins, self._strategy, self.n_boot
        part.entropy = self.entropy
        return part

    def generator(self, stream: int) -> np.random.Generator:
        """Return one of the independent streams of random numbers, always from its start."""
        return spawn(self.entropy, 4)[stream]

    @property
    def df(self) -> float | None:
        """Degrees of freedom of t, None for normal quantiles."""
        if self.cluster is None:
            return None
        used = self.cluster if self.w is None else self.cluster[self.w > 0.0]
        return float(max(np.unique(used).size - 1, 1))

    def covariance(self, psi: Floats) -> Floats:
        """Covariance from influence values of the rows."""
        return k.covariance(psi, self.cluster, self.n_clusters)

    @property
    def independent(self) -> bool:
        """Whether rows are independent: neither clusters nor replicate weights."""
        return self.cluster is None and self.replicates is None

    @property
    def weight_or_one(self) -> Floats:
        """Weights, ones where there are none."""
        return np.ones(self.n) if self.w is None else self.w

    # --- sums ---------------------------------------------------------------------------------

    @cached_property
    def ties(self) -> rank.Ties:
        """Distinct scores."""
        return rank.ties(self.y, self.p, self.w)

    @cached_property
    def edges(self) -> Floats:
        """Bin edges."""
        if not isinstance(self._bins, int):
            return np.asarray(self._bins, dtype=np.float64)
        if self._strategy == "width":
            return k.equal_edges(self._bins)
        alone = self.w is None and self.ties.value.size == self.n
        return k.quantile_edges(self.ties.value, self._bins, None if alone else self.ties.weight)

    @cached_property
    def bins(self) -> k.Bins:
        """Sums by bin."""
        return k.bins(self.y, self.p, self.edges, self.w)

    @cached_property
    def moments(self) -> k.Moments:
        """Means of outcome, score, Brier score and log loss."""
        return k.moments(self.y, self.p, self.w, self.cluster, self.n_clusters)

    @cached_property
    def spectrum(self) -> curve.Spectrum:
        """Residuals as a cosine series."""
        return curve.spectrum(self.y, self.p, self.w)

    @cached_property
    def smooth_ece(self) -> float:
        """Smooth ECE."""
        return curve.smooth_ece(self.spectrum)

    @cached_property
    def isotonic(self) -> rank.Isotonic:
        """Isotonic recalibration."""
        return rank.isotonic(self.ties.weight, self.ties.positive)

    @cached_property
    def logit(self) -> tuple[Floats, int]:
        """Logits of the distinct scores, and how many rows were clipped for them."""
        z, clipped = fit.logit(self.ties.value, EPS)
        if clipped:
            outside = (self.p < EPS) | (self.p > 1.0 - EPS)
            clipped = int(np.count_nonzero(outside if self.w is None else outside & (self.w > 0)))
        return z, clipped

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` gives, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def auc(self) -> rank.Auc:
        """Area under the ROC curve."""
        return rank.auc(self.ties)

    def corp(self, log_score: bool = False) -> rank.Corp:
        """Decomposition of the Brier or the log score."""
        found: rank.Corp = self.once(
            f"corp {log_score}", lambda: rank.corp(self.ties, self.isotonic, log_score)
        )
        return found

    def logistic(self, slope: bool) -> fit.Logistic:
        """Recalibration with intercept and slope, or with an intercept beside the offset."""
        t, z = self.ties, self.logit[0]
        squares = (t.negative2, t.positive2)
        columns, offset = ((None, z), None) if slope else ((None,), z)
        found: fit.Logistic = self.once(
            f"logistic {slope}",
            lambda: fit.logistic(columns, t.negative, t.positive, offset, squares=squares),
        )
        return found

    def logistic_psi(self, slope: bool) -> Floats:
        """Influence values of the recalibration's coefficients."""
        z = fit.logit(self.p, EPS)[0]
        columns, offset = ((None, z), None) if slope else ((None,), z)
        return fit.logistic_influence(columns, self.y, self.w, offset, self.logistic(slope))

    # --- cells and simulated samples ----------------------------------------------------------

    @cached_property
    def cells(self) -> cell.Cells:
        """Cells of neighbouring scores, several clusters in each."""
        size = 200 if self.cluster is None else int(np.clip(self.n_clusters / 5, 10, 200))
        return cell.cells(self.ties, size, self.edges)

    @cached_property
    def smoother(self) -> Floats:
        """Smoother matrix of the loess curve on the cells."""
        return curve.loess_matrix(self.cells.p, self.cells.weight, self.cells.p)

    @cached_property
    def gap(self) -> Floats:
        """Estimated gap between curve and score on the cells, in the direction of the path."""
        return cell.direction(self.cells, self.smoother)

    def _factor(self, at: cell.Cells, gap: Floats) -> cell.Factor | None:
        if self.replicates is not None and self.w is not None:
            index = np.maximum(np.searchsorted(at.lower, self.p, side="right") - 1, 0)
            scale = np.sqrt(4.0 / self.replicates.shape[1])
            shape = (self.replicates.shape[1], at.p.size)
            residual, weight = np.empty(shape), np.empty(shape)
            r = self.y - self.p - gap[index]
            for j, column in enumerate(self.replicates.T):
                change = column - self.w
                residual[j] = np.bincount(index, change * r, at.p.size)
                weight[j] = np.bincount(index, change, at.p.size)
            return cell.Factor(residual * scale, weight * scale, 1e9)
        if self.cluster is None:
            return None
        rng = self.generator(2)
        return cell.cluster_factor(
            at, gap, self.y, self.p, self.w, self.cluster, self.n_clusters, rng
        )

    @cached_property
    def samples(self) -> cell.Samples:
        """Simulated samples on the cells."""
        factor = self._factor(self.cells, self.gap)
        return cell.samples(self.cells, self.gap, self.n_boot, self.generator(0), factor)

    @cached_property
    def node_samples(self) -> cell.Samples:
        """Simulated samples on the nodes of a grid that resolves the smooth ECE's bandwidth."""
        step = max(self.smooth_ece, 4.0 / 1024.0) / 4.0
        nodes = int(np.clip(2.0 ** np.ceil(np.log2(1.0 / step)), 64, 1024))
        at = cell.node_cells(self.ties, nodes)
        gap = np.interp(at.p, self.cells.p, self.gap)
        return cell.samples(at, gap, self.n_boot, self.generator(1), self._factor(at, gap))
