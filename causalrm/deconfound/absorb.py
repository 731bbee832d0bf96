"""Regression with fixed effects of high cardinality, absorbed rather than estimated as dummies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causalrm.core.column import first_rows
from causalrm.core.design import Design, formula_text, prepare
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.frame import Source, check_weights, scan
from causalrm.core.inference import by_cluster, sandwich, warn_of_few
from causalrm.core.linear import dependent_columns, least_squares
from causalrm.core.random import RNG
from causalrm.core.result import Assumption, LikelihoodResult, call_of
from causalrm.deconfound import _kernels_absorb as k
from causalrm.deconfound.demean import Absorbed, absorb_columns
from causalrm.deconfound.few_clusters import (
    BOOTSTRAP,
    MOST,
    Sums,
    cluster_sums,
    wild_bootstrap,
)

# --------------------------------------------------------------------------- result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AbsorbedResult(LikelihoodResult):
    """Coefficients beside absorbed fixed effects, with covariances as fixest gives them.

    Parameters
    ----------
    effects : dict of str to pandas.Series
        Effects of the levels of each absorbed column on the outcome, indexed by level. Those of
        all columns but the one with most levels have mean zero in each connected component.
    n_levels : dict of str to int
    n_singletons : int
        Rows that were dropped because they were the only one of a level, counted recursively.
    n_components : int
        Connected components of the design, beyond which effects cannot be compared.
    df_model : int
        Coefficients and identified fixed effects.
    df_cluster : int or None
        The same without those of columns nested in the clusters.
    r2_within : float
        Share of the demeaned outcome's variance that the coefficients explain.
    cluster_sums : tuple of ndarray or None
        What `wild_bootstrap` needs of each cluster, where clusters are few.
    """

    effects: Mapping[str, pd.Series]
    n_levels: Mapping[str, int]
    n_singletons: int
    n_components: int
    df_model: int
    df_cluster: int | None
    r2_within: float
    cluster_sums: Sums | None = None

    @property
    def _df(self) -> float | None:
        return super()._df if self.covariance == "cluster" else float(self.n_obs - self.df_model)

    def wild_bootstrap(self, level: float = 0.95, draws: int = 9999, rng: RNG = 0) -> pd.DataFrame:
        """Tests and intervals that hold with few clusters; see `DeconfoundedResult`."""
        return wild_bootstrap(self.term, self.estimates, self.cluster_sums, level, draws, rng)

    def predict_effects(self, data: Any) -> pd.DataFrame:
        """Fixed effects of every row, to be subtracted from the outcome.

        Parameters
        ----------
        data : data frame
            With the absorbed columns.

        Returns
        -------
        pandas.DataFrame
            One row per row of `data` and one column per absorbed column; NaN for levels that the
            fit did not have.
        """
        source = Source(data)
        reader, rows = scan(source, categories=list(self.effects))
        columns = rows.collect()
        out = {
            name: effect.reindex(list(reader.levels[name])).to_numpy(dtype=float)[columns[name]]
            for name, effect in self.effects.items()
        }
        return pd.DataFrame(out, index=source.index)

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        absorbed = ", ".join(f"{name} ({count:,})" for name, count in self.n_levels.items())
        one = "component" if self.n_components == 1 else "components"
        return [
            ("Absorbed", f"{absorbed}; {self.n_components:,} connected {one}"),
            ("Singletons", f"{self.n_singletons:,} rows dropped"),
            ("R2 within", f"{self.r2_within:.4f}"),
            *super()._fit_lines(level),
        ]


def absorbed_regression(
    data: Any,
    *,
    y: str,
    x: str | Sequence[str],
    absorb: Sequence[str],
    weights: str | None = None,
    cluster: str | None = None,
    covariance: str = "auto",
    tol: float = 1e-8,
    max_iter: int = 10_000,
) -> AbsorbedResult:
    r"""Least squares with absorbed fixed effects of any number of levels.

    Rows that are alone in a level say nothing about the coefficients; they are dropped, again and
    again, and counted.

    Parameters
    ----------
    data : data frame, path of parquet files, pyarrow data set, or Dask data frame
        The columns that are used are held in memory.
    y : str
        Outcome.
    x : str or list of str
        Right-hand side of a formula, or columns. The intercept is absorbed.
    absorb : list of str
        Columns whose distinct values have an effect each.
    weights : str, optional
        Column of sampling weights of at least 0; only their ratios matter. Rows of weight 0 are
        left out.
    cluster : str, optional
    covariance : {"auto", "model", "robust", "cluster"}
        "auto" takes "cluster" where clusters are given, "robust" with weights, else "model".
    tol : float
        Relative error to which columns are demeaned.
    max_iter : int

    Returns
    -------
    AbsorbedResult

    Raises
    ------
    DataError, ConvergenceError
    IdentificationError
        When no rows are left, or columns of `x` are dependent or absorbed; it names them.

    Notes
    -----
    Factors of the covariances are those of fixest: n/(n - k) for "robust", and
    (n - 1)/(n - k) G/(G - 1) for "cluster", where k counts coefficients and fixed effects. Under
    "cluster" an absorbed column each of whose levels lies in one cluster counts as one. Every
    connected component takes one effect away, where fixest takes one per factor; the two agree in
    a connected design. Intervals use t with n - k or G - 1 degrees of freedom.

    References
    ----------
    Abowd, Kramarz, Margolis (1999), High wage workers and high wage firms, Econometrica 67(2),
    251-333, doi 10.1111/1468-0262.00020. Correia (2015), Singletons, cluster-robust standard
    errors and fixed effects, working paper, Duke University.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.deconfound import absorbed_regression
    >>> rng = np.random.default_rng(0)
    >>> df = pd.DataFrame({"author": rng.integers(0, 40, 800), "hour": rng.integers(0, 24, 800)})
    >>> df["length"] = rng.normal(size=800) + df["author"] / 10
    >>> df["clicks"] = 2 * df["length"] + df["author"] - df["hour"] + rng.normal(size=800)
    >>> fit = absorbed_regression(df, y="clicks", x="length", absorb=["author", "hour"])
    >>> fit.to_frame().round(2)[["term", "estimate", "std_error"]]
         term  estimate  std_error
    0  length      2.03       0.04
    """
    absorbed = [absorb] if isinstance(absorb, str) else list(absorb)
    if not absorbed or len(set(absorbed)) < len(absorbed):
        raise DataError(
            f"Expected one or more different columns to absorb, but saw {absorbed!r}. Without "
            "fixed effects use a linear regression."
        )
    log: list[str] = []
    numbers = [y] if weights is None else [y, weights]
    source, rows, designs, reader = prepare(
        data,
        {"x": formula_text(x, "x")},
        numbers=numbers,
        categories=[*absorbed, *([] if cluster is None else [cluster])],
    )
    if weights is not None:
        check_weights(rows, weights, source.index)
    levels, columns = reader.levels, rows.collect()
    place = np.arange(rows.n_obs)
    if weights is not None and not (positive := columns[weights] > 0).all():
        columns = {name: c[positive] for name, c in columns.items()}
        place = place[positive]
    n_rows = len(place)
    codes = np.stack([columns[name] for name in absorbed])
    keep = k.drop_singletons(codes, np.array([len(levels[name]) for name in absorbed]))
    n_single = int(n_rows - np.count_nonzero(keep))
    if n_single:
        columns = {name: c[keep] for name, c in columns.items()}
    n = n_rows - n_single
    design = designs["x"]
    terms, p = design.slope_terms, len(design.slope_terms)
    if n == 0 or p == 0:
        raise IdentificationError(
            f"Expected columns of x and rows that share levels, but {p} columns and {n} of "
            f"{n_rows} rows are left once {n_single} rows that are alone in a level of "
            f"{absorbed} are dropped. Absorb fewer or coarser columns."
        )
    used, compact = {}, []
    for name in absorbed:
        code, used[name] = _compact(columns[name], len(levels[name]))
        compact.append(code)
    w = None
    if weights is not None:
        w = np.asarray(columns[weights], dtype=float)
        w = w / w.mean()

    values = np.empty((1 + p, n))
    values[0] = columns[y]
    _encode(design, columns, values[1:])
    before = np.array([float((v if w is None else w * v) @ v) for v in values])
    found = absorb_columns(values, compact, [len(u) for u in used.values()], w, tol, max_iter)
    weighted = values if w is None else values * w
    gram = weighted @ values.T
    _check_columns(gram[1:, 1:], before[1:], terms, absorbed)
    beta = least_squares(gram[1:, 1:], gram[1:, 0], terms)
    e = values[0] - beta @ values[1:]
    we = e if w is None else w * e
    ssr = float(we @ e)
    bread = least_squares(gram[1:, 1:], np.eye(p), terms)

    n_effects = sum(len(u) for u in used.values()) - found.redundant
    k_all = p + n_effects
    df = n - k_all
    if df < 1:
        raise IdentificationError(
            f"Expected more rows than coefficients and fixed effects, but saw {n} rows for {k_all}."
            " Absorb fewer or coarser columns."
        )
    scores = values[1:] * we
    covariances = {
        "model": bread * (ssr / df),
        "robust": sandwich(bread, scores @ scores.T, n / df),
    }
    df_cluster = df_resid = kept = None
    if cluster is not None:
        group, present = _compact(columns[cluster], len(levels[cluster]))
        n_groups = len(present)
        if n_groups < 2:
            raise IdentificationError(
                f"Expected at least two clusters in column {cluster!r}, but {n_groups} is left."
                " Leave cluster out, or take a finer column."
            )
        nested = [
            len(u) for u, c in zip(used.values(), compact, strict=True) if _nested(c, group, len(u))
        ]
        df_cluster = p + max(n_effects - sum(nested) + len(nested), 1)
        df_resid = float(n_groups - 1)
        sums = by_cluster(group, scores, n_groups)
        factor = (n - 1) / (n - df_cluster) * n_groups / (n_groups - 1)
        covariances["cluster"] = sandwich(bread, sums.T @ sums, factor)
        warn_of_few(n_groups, log, unit=f"clusters in column {cluster!r}", remedy=BOOTSTRAP)
        if n_groups <= MOST[0] and p <= MOST[1]:
            u = bread @ values[1:]
            slopes = (u[:, None] * (values[1:] if w is None else w * values[1:])).reshape(p * p, n)
            by = by_cluster(group, np.concatenate([u * we, slopes]), n_groups)
            kept = cluster_sums(by, bread)
    kind = covariance
    if kind == "auto":
        kind = "cluster" if cluster else "robust" if weights else "model"
    contrast = np.concatenate([[1.0], -beta])
    effects = {
        name: pd.Series(contrast @ part, index=pd.Index([levels[name][i] for i in used[name]]))
        for name, part in zip(absorbed, found.effects, strict=True)
    }
    half_log_w = 0.0 if w is None else 0.5 * float(np.log(w).sum())
    roles = {"y": y, "x": x, "absorb": absorbed, "weights": weights, "cluster": cluster}
    alone = place[~keep][:6].tolist()
    return AbsorbedResult(
        call=call_of(
            "absorbed_regression",
            {"covariance": covariance, "tol": tol, "max_iter": max_iter},
            roles,
        ),
        n_obs=n,
        assumptions=_assumptions(y, absorbed, cluster, found),
        diagnostics={
            "method": found.method,
            "iterations": found.iterations,
            "error": found.error,
            "components": dict(zip(absorbed, found.n_components, strict=True)),
            "singletons": first_rows(alone, source.index) if alone else "",
            "zero_weights": rows.n_obs - n_rows,
        },
        warnings=tuple(log),
        parameter=(y,) * p,
        term=terms,
        estimates=beta,
        covariances=covariances,
        covariance=kind,
        loglik=-0.5 * n * (math.log(2 * math.pi * ssr / n) + 1) + half_log_w,
        n_params=k_all + 1,
        df_resid=df_resid,
        effects=effects,
        n_levels={name: len(u) for name, u in used.items()},
        n_singletons=n_single,
        n_components=max(found.n_components) if len(absorbed) > 1 else 1,
        df_model=k_all,
        df_cluster=df_cluster,
        r2_within=1.0 - ssr / float(gram[0, 0]),
        cluster_sums=kept,
    )


def _compact(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes without gaps, and the old codes that are in use."""
    used = np.flatnonzero(np.bincount(codes, minlength=size))
    if len(used) == size:
        return codes, used
    table = np.empty(size, dtype=codes.dtype)
    table[used] = np.arange(len(used))
    return table[codes], used


def _encode(design: Design, columns: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    n = out.shape[1]
    for a in range(0, n, 8192):
        block = {name: c[a : a + 8192] for name, c in columns.items()}
        size = min(8192, n - a)
        out[:, a : a + size] = design.slopes(block, size)


def _check_columns(
    gram: np.ndarray, before: np.ndarray, terms: Sequence[str], absorbed: Sequence[str]
) -> None:
    dependent = dependent_columns(gram, before)
    if dependent is None:
        return
    names = [terms[i] for i in dependent]
    what = (
        f"{names[0]!r} does not vary within them" if len(names) == 1 else f"{names} are dependent"
    )
    raise IdentificationError(
        f"Expected linearly independent columns beside the fixed effects of {list(absorbed)}, but "
        f"{what} ({len(names)} of {len(terms)} columns involved). Remove one of them."
    )


def _nested(codes: np.ndarray, group: np.ndarray, size: int) -> bool:
    """Whether all rows of each level are of one group."""
    some = np.empty(size, dtype=group.dtype)
    some[codes] = group
    return bool((some[codes] == group).all())


def _assumptions(
    y: str, absorbed: Sequence[str], cluster: str | None, found: Absorbed
) -> tuple[Assumption, ...]:
    return (
        Assumption(
            "additive effects",
            f"the effects of {', '.join(absorbed)} on {y} add up",
            "not tested; absorb an interaction to see whether the coefficients change",
        ),
        Assumption(
            "strict exogeneity",
            f"within levels of {', '.join(absorbed)}, errors of {y} do not depend on the columns "
            "of x of any row",
            "not tested",
        ),
        Assumption(
            "independent errors",
            f"different {f'clusters of {cluster}' if cluster else 'rows'} have independent errors",
            "not tested" if cluster else "not tested; give cluster= for dependent rows",
        ),
    )
