"""Audits: segments that are miscalibrated, attributes that shift a score, rows that are needed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from causalrm.calibration import _kernels_fit as fit
from causalrm.calibration.scored import EPS, check_labels, check_scores, check_weights, vector
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source
from causalrm.core.inference import quantile, two_sided_p, warn_of_few
from causalrm.core.random import RNG, resolve, spawn
from causalrm.core.result import Assumption, Result, check_level

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AuditResult(Result):
    """What an audit returns; `to_frame()` is its table.

    Attributes
    ----------
    level : float
        Of the intervals.
    table : pandas.DataFrame
    """

    level: float
    table: pd.DataFrame

    def to_frame(self, level: float | None = None) -> pd.DataFrame:
        """Return the table; `level`, if given, must be that of the audit.

        Raises
        ------
        DataError
            For another level.
        """
        if level is not None and level != self.level:
            raise DataError(
                f"The intervals of this audit have level {self.level:g}; ask for {level:g} in its "
                "call."
            )
        return self.table.copy()

    def summary(self, level: float | None = None) -> Any:
        """Return the table with the audit's facts."""
        return super().summary(self.level if level is None else level)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        return [(name.replace("_", " "), str(value)) for name, value in self.diagnostics.items()]


# --- multicalibration --------------------------------------------------------------------------


def _frame(data: Any, n: int, name: str) -> pd.DataFrame:
    if hasattr(data, "to_pandas"):
        frame = Source(data).frame
        if frame.implementation.is_polars():  # whose categories are in order of appearance
            categories = [c for c, kind in frame.schema.items() if kind == nw.Categorical]
            frame = frame.with_columns(nw.col(*categories).cast(nw.String)) if categories else frame
        data = frame.to_pandas()
    if isinstance(data, Mapping):
        data = pd.DataFrame(data)
    if not isinstance(data, pd.DataFrame):
        raise DataError(f"{name} must be a data frame; got {type(data).__name__}.")
    if len(data) != n:
        raise DataError(f"{name} must have one row per score; got {len(data)} for {n}.")
    if data.shape[1] == 0:
        raise DataError(f"{name} has no columns.")
    names = [str(c) for c in data.columns]
    if twice := sorted({c for c in names if names.count(c) > 1}):
        raise DataError(f"{name} must name each column once; got {twice} twice. Rename these.")
    return data.set_axis(names, axis=1)


def _parts(frame: pd.DataFrame, bins: int) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """For each column, its levels (or intervals of about equal size) as masks."""
    out: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for name in map(str, frame.columns):
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > 2 * bins:
            if column.isna().any():
                raise DataError(f"Column {name!r} has {int(column.isna().sum())} missing values.")
            x = vector(column, f"column {name!r}")
            edges = np.unique(np.quantile(x, np.arange(1, bins) / bins))
            at = np.searchsorted(edges, x, side="right")
            ends = ["", *(f"{e:.4g}" for e in edges), ""]
            masks = {}
            for j in range(edges.size + 1):
                low, high = ends[j], ends[j + 1]
                text = f"{name} < {high}" if not low else f"{name} >= {low}"
                text = f"{low} <= {name} < {high}" if low and high else text
                masks[text] = at == j
            out[name] = masks
        else:
            codes, levels = check_labels(column.to_numpy(), len(frame), f"column {name!r}")
            out[name] = {f"{name} = {v}": codes == j for j, v in enumerate(levels)}
    return out


def multicalibration_audit(
    y: ArrayLike,
    p: ArrayLike,
    X: Any,
    *,
    depth: int = 2,
    bins: int = 4,
    min_rows: int = 50,
    holdout: float = 0.5,
    n_segments: int = 20,
    weights: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    level: float = 0.95,
    n_boot: int = 1000,
    rng: RNG = 0,
) -> AuditResult:
    """Search segments of the rows for miscalibration, and test the worst on held-out rows.

    A segment is a conjunction of up to `depth` conditions on different columns. One part of the
    rows ranks all segments by their studentised sum of w (y - p); the other tests the first
    `n_segments` with a max-statistic multiplier bootstrap, so that adjusted p-values and
    intervals hold for all of them together.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Outcomes and scores.
    X : data frame or mapping
        Columns that define segments: categories as they are, numbers cut at their quantiles.
    depth : int
        Conditions at most in one segment.
    bins : int
        Intervals per numeric column.
    min_rows : int
        Smaller segments are not searched; their number is reported.
    holdout : float
        Share of rows (or clusters) for the tests; 0 searches and tests on all rows, all
        segments at once.
    n_segments : int
        Segments carried over to the tests.
    weights, cluster, level, n_boot, rng
        As in `ece`.

    Returns
    -------
    AuditResult
        Rows `term` (the segment), `n`, `estimate` (mean of y - p), `std_error`, `statistic`,
        `p_value` (single), `conf_low, conf_high` (simultaneous), `p_adjusted`.

    Raises
    ------
    DataError
        When rows are incomplete or no segment is large enough.

    References
    ----------
    Hebert-Johnson, U., Kim, M., Reingold, O., and Rothblum, G. (2018). Multicalibration. ICML,
    PMLR 80. Chernozhukov, V., Chetverikov, D., and Kato, K. (2013). Gaussian approximations and
    multiplier bootstrap for maxima. Annals of Statistics 41. doi:10.1214/13-AOS1161.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> site, p = rng.choice(["a", "b", "c"], 3000), rng.uniform(size=3000)  # simulated
    >>> y = rng.uniform(size=3000) < np.where(site == "b", 0.7 * p, p)
    >>> audit = multicalibration_audit(y, p, {"site": site}, depth=1)
    >>> row = audit.to_frame().iloc[0]
    >>> row["term"], bool(row["p_adjusted"] < 0.01)
    ('site = b', True)
    """
    level = check_level(level)
    outcome, score = check_scores(y, p)
    n = score.size
    weight = check_weights(weights, n)
    r = outcome - score if weight is None else weight * (outcome - score)
    w = np.ones(n) if weight is None else weight
    frame = _frame(X, n, "X")
    if depth < 1 or not 0.0 <= holdout < 1.0:
        raise DataError(f"depth must be 1 or more, holdout in [0, 1); got {depth}, {holdout}.")
    unit = np.arange(n)
    if cluster is not None:
        unit = check_labels(cluster, n, "cluster")[0]
    generator, entropy = resolve(rng)
    split, draws = spawn(entropy, 2)
    size = int(unit.max()) + 1
    test = np.ones(n, dtype=bool)
    search = test
    if holdout > 0.0:
        chosen = split.permutation(size) < round(holdout * size)
        test = chosen[unit]
        search = ~test
    columns = _parts(frame, bins)
    segments: dict[str, NDArray[np.bool_]] = {}
    small = 0
    for k in range(1, depth + 1):
        for names in itertools.combinations(columns, k):
            for texts in itertools.product(*(columns[name] for name in names)):
                mask = np.logical_and.reduce(
                    [columns[name][text] for name, text in zip(names, texts, strict=True)]
                )
                if min((mask & search).sum(), (mask & test).sum()) < min_rows:
                    small += 1
                else:
                    segments[" and ".join(texts)] = mask
    if not segments:
        raise DataError(
            f"No segment has {min_rows} rows in each part of the data ({n} rows). Lower min_rows, "
            "depth or bins."
        )

    def summed(mask: NDArray[np.bool_]) -> tuple[float, Floats]:
        sums = np.bincount(unit[mask], r[mask], size)
        return float(sums.sum()), sums

    ranked = list(segments)
    if holdout > 0.0:
        strength = {}
        for text, mask in segments.items():
            total, sums = summed(mask & search)
            error = math.sqrt(float(sums @ sums))
            strength[text] = abs(total) / error if error > 0.0 else 0.0
        ranked = sorted(strength, key=lambda text: -strength[text])[:n_segments]
    contributions = []
    rows = []
    for text in ranked:
        mask = segments[text] & test
        total, sums = summed(mask)
        mass = float(w[mask].sum())
        if not mass > 0.0 or not (sums != 0.0).any():
            continue
        # Centred, so that the error is that of the mean whether or not it is zero.
        sums = sums - np.bincount(unit[mask], w[mask], size) * (total / mass)
        error = math.sqrt(float(sums @ sums))
        contributions.append(sums / error)
        rows.append([text, int(mask.sum()), total / mass, error / mass, total / error])
    if not rows:
        raise DataError(
            "Expected held-out rows with a weight and y - p other than 0 in at least one of "
            f"{len(ranked)} segments, but there are none: nothing can be tested."
        )
    groups = min(size, 2000)
    bucket = draws.permutation(size) % groups
    folded = np.array([np.bincount(bucket, c, groups) for c in contributions])
    z = draws.standard_normal((n_boot, groups)) @ folded.T
    peaks = np.abs(z).max(axis=1)
    critical = float(np.quantile(peaks, level))
    found = pd.DataFrame(rows, columns=["term", "n", "estimate", "std_error", "statistic"])
    t = found["statistic"].to_numpy()
    found["p_value"] = two_sided_p(t)
    found["conf_low"] = found["estimate"] - critical * found["std_error"]
    found["conf_high"] = found["estimate"] + critical * found["std_error"]
    over = (peaks[:, None] >= np.abs(t)).sum(axis=0)
    found["p_adjusted"] = (over + 1) / (n_boot + 1)
    found = found.iloc[np.lexsort((-np.abs(found["statistic"]), found["p_adjusted"]))]
    return AuditResult(
        call={
            "estimator": "multicalibration_audit",
            "options": {"depth": depth, "bins": bins, "holdout": holdout, "min_rows": min_rows},
            "roles": {"X": list(columns)},
        },
        n_obs=n,
        entropy=entropy,
        assumptions=(
            Assumption(
                "Independence",
                "Rows, or clusters where given, are independent of one another",
                "repeat with cluster=",
            ),
        ),
        diagnostics={
            "segments_searched": len(segments),
            "segments_too_small": small,
            "segments_tested": len(found),
            "held_out_rows": int(test.sum()),
            "critical_value": critical,
        },
        level=level,
        table=found.reset_index(drop=True),
    )


# --- discrimination ----------------------------------------------------------------------------


def discrimination_audit(
    p: ArrayLike,
    attributes: Any,
    scenario: ArrayLike,
    *,
    baseline: Mapping[str, Any] | None = None,
    level: float = 0.95,
) -> AuditResult:
    """Shift of a score, on the logit scale, by attributes that a decision should not depend on.

    The same scenarios are scored with the attributes varied. A linear model of logit p with a
    random intercept per scenario is fitted by restricted maximum likelihood; standard errors
    are robust to any dependence within scenarios (also random slopes).

    Parameters
    ----------
    p : array-like of shape (n,)
        Scores; clipped to [1e-6, 1 - 1e-6].
    attributes : data frame or mapping
        Columns such as age, gender, race. Numbers with more than 12 distinct values enter
        linearly, per standard deviation; everything else by levels.
    scenario : array-like of shape (n,)
        Label of the scenario of each row.
    baseline : mapping of str to level, optional
        Level that the others are compared with; the first by default.
    level : float

    Returns
    -------
    AuditResult
        Rows `parameter` (the attribute), `term` (the level) and the usual columns; `estimate`
        is the level's logit score less that of the baseline.

    Raises
    ------
    DataError
        When rows are incomplete, or there are fewer than three scenarios.
    IdentificationError
        When levels cannot be told apart.

    References
    ----------
    Tamkin, A., et al. (2023). Evaluating and mitigating discrimination in language model
    decisions. arXiv:2312.03689.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> scenario, gender = np.repeat(np.arange(60), 2), np.tile(["f", "m"], 60)
    >>> z = rng.normal(size=60)[scenario] + 0.5 * (gender == "m") + 0.2 * rng.normal(size=120)
    >>> audit = discrimination_audit(1 / (1 + np.exp(-z)), {"gender": gender}, scenario)
    >>> audit.to_frame()[["term", "estimate"]].round(2).values.tolist()
    [['m', 0.51]]
    """
    level = check_level(level)
    score = check_scores(np.zeros(np.asarray(p).size), p)[1]
    n = score.size
    z, clipped = fit.logit(score, EPS)
    frame = _frame(attributes, n, "attributes")
    codes, names = check_labels(scenario, n, "scenario")
    groups = len(names)
    if groups < 3:
        raise DataError(f"At least three scenarios are needed; got {groups}.")
    columns, labels = [np.ones(n)], [("Intercept", "Intercept")]
    chosen = dict(baseline or {})
    for name in map(str, frame.columns):
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column) and column.nunique() > 12
        if numeric:
            x = vector(column, f"attribute {name!r}")
            if not np.isfinite(x).all():
                raise DataError(f"Attribute {name!r} has missing or infinite values.")
            columns.append((x - x.mean()) / x.std())
            labels.append((name, f"{name} (per SD, {x.std():.4g})"))
            continue
        values = column if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
        at, levels = check_labels(values, n, f"attribute {name!r}")
        first = chosen.pop(name, levels[0])
        if first not in levels:
            raise DataError(f"Baseline {first!r} is no level of {name!r}; there are {levels}.")
        for j, value in enumerate(levels):
            if value != first:
                columns.append((at == j).astype(float))
                labels.append((name, str(value)))
    if chosen:
        raise DataError(f"baseline names no attribute: {sorted(chosen)}.")
    x = np.column_stack(columns)
    if int(np.linalg.matrix_rank(x)) < len(columns):
        raise IdentificationError(
            "The attributes' levels cannot be told apart: some combinations always go together."
        )
    beta, cov, ratio = _random_intercept(z, x, codes, groups)
    df = float(groups - 1)
    error = np.sqrt(np.diag(cov))
    t = beta / error
    half = quantile(level, df) * error
    table = pd.DataFrame(
        {
            "parameter": [a for a, _ in labels],
            "term": [b for _, b in labels],
            "estimate": beta,
            "std_error": error,
            "statistic": t,
            "p_value": two_sided_p(t, df),
            "conf_low": beta - half,
            "conf_high": beta + half,
        }
    ).iloc[1:]
    log: list[str] = []
    warn_of_few(groups, log, unit="scenarios")
    return AuditResult(
        call={
            "estimator": "discrimination_audit",
            "options": {"baseline": dict(baseline or {}), "level": level},
            "roles": {"attributes": [str(c) for c in frame.columns]},
        },
        n_obs=n,
        assumptions=(
            Assumption(
                "Same scenarios",
                "Within a scenario nothing but the attributes differs between its rows",
                "compare the prompts of one scenario",
            ),
        ),
        diagnostics={
            "scenarios": groups,
            "clipped": clipped,
            "intraclass_correlation": float(ratio / (1.0 + ratio)),
        },
        warnings=tuple(log),
        level=level,
        table=table.reset_index(drop=True),
    )


def _random_intercept(
    z: Floats, x: Floats, codes: NDArray[np.int64], groups: int
) -> tuple[Floats, Floats, float]:
    # REML over the ratio of the two variances; for a given ratio the model is least squares on
    # rows from which a part of their scenario's mean is taken.
    size = np.bincount(codes, minlength=groups).astype(float)
    means = np.column_stack([np.bincount(codes, c, groups) / size for c in (*x.T, z)])

    def transformed(ratio: float) -> tuple[Floats, Floats]:
        part = (1.0 - 1.0 / np.sqrt(1.0 + ratio * size))[codes, None]
        both = np.column_stack([x, z]) - part * means[codes]
        return both[:, :-1], both[:, -1]

    def criterion(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        u, v = transformed(ratio)
        gram = u.T @ u
        beta = np.linalg.solve(gram, u.T @ v)
        rss = float(((v - u @ beta) ** 2).sum())
        n, k = int(x.shape[0]), int(x.shape[1])
        logdet = float(np.linalg.slogdet(gram)[1])
        sizes = float(np.log1p(ratio * size).sum())
        return float((n - k) * math.log(max(rss, 1e-300)) + logdet + sizes)

    found = minimize_scalar(criterion, bounds=(-12.0, 12.0), method="bounded")
    ratio = math.exp(float(found.x))
    u, v = transformed(ratio)
    bread = np.linalg.inv(u.T @ u)
    beta = bread @ (u.T @ v)
    r = v - u @ beta
    sums = np.column_stack([np.bincount(codes, c * r, groups) for c in u.T])
    cov = bread @ (sums.T @ sums) @ bread * (groups / (groups - 1))
    return beta, cov, ratio
