"""What flipping an attribute does to the reward, and whether the data can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, stats
from sklearn.linear_model import Lasso

from causalrm.augment.result import EstimatesResult, degrees
from causalrm.core.errors import DataError, IdentificationError, check_choice
from causalrm.core.frame import Source, check, scan
from causalrm.core.inference import by_cluster
from causalrm.core.linear import least_squares
from causalrm.core.result import Assumption

_METHODS = ("per_attribute", "stacked_l1")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AttributeEffectsResult(EstimatesResult):
    """Result of `attribute_effects`.

    Groups are "effect" (of an attribute alone), "interaction" (of two attributes) and "modified by
    style". Besides the fields of an `EstimatesResult`:

    Parameters
    ----------
    designs : pandas.DataFrame
        For each regression: attribute, pairs, columns, rank, condition_number (of columns scaled
        to unit norm) and coherence (largest absolute cosine of two columns).
    penalty : float
        Of the lasso; 0 for least squares.
    """

    designs: pd.DataFrame
    penalty: float = 0.0

    def _fit_lines(self, level: float) -> list[tuple[str, str]]:
        out = [
            (
                str(r["attribute"]),
                f"{r['pairs']:,} pairs; rank {r['rank']} of {r['columns']} columns, condition "
                f"number {r['condition_number']:.3g}, coherence {r['coherence']:.2f}",
            )
            for r in self.designs.to_dict("records")
        ]
        return out + ([("Lasso penalty", f"{self.penalty:.4g}")] if self.penalty else [])


def attribute_effects(
    pairs: Any,
    *,
    change: str,
    attribute: str,
    causal: Sequence[str],
    spurious: Sequence[str] = (),
    cluster: str | None = None,
    method: str = "per_attribute",
    penalty: float | None = None,
) -> AttributeEffectsResult:
    r"""Estimate what attributes do to a reward from pairs in which one of them was flipped.

    With attributes :math:`C_i` and style :math:`S_l` coded -1 and 1, and a reward
    :math:`\sum_i \theta_i C_i + \sum_{i<j} \theta_{ij} C_i C_j + \sum_{il} \gamma_{il} C_i S_l +
    g(S)`, flipping :math:`C_i` changes it by

    .. math:: \Delta R = -2 C_i \Bigl(\theta_i + \sum_{j \ne i} \theta_{ij} C_j
              + \sum_l \gamma_{il} S_l\Bigr),

    whatever g is: what style does by itself cancels. The problem falls into one regression per
    attribute, and each has a unique answer exactly when its columns are independent.

    Parameters
    ----------
    pairs : data frame
        One row per pair: an answer, and the same with one attribute flipped.
    change : str
        Column of the reward of the flipped answer less that of the original.
    attribute : str
        Column that names the flipped attribute, one of `causal`.
    causal : sequence of str
        Columns of the attributes of the original answer, -1 or 1.
    spurious : sequence of str
        Columns of its style: numbers, usually -1 or 1.
    cluster : str, optional
        Column of clusters of dependent pairs. Without it standard errors are robust (HC1).
    method : {"per_attribute", "stacked_l1"}
        "per_attribute": least squares for each attribute. "stacked_l1": all regressions at once,
        so that an interaction of two attributes is one coefficient, chosen by the lasso and then
        fitted by least squares; for more columns than pairs. Its standard errors take the choice
        of columns as given, and coefficients that were not chosen are 0 without one.
    penalty : float, optional
        Of the lasso: a coefficient enters when the absolute mean product of its unit-variance
        column and the residual exceeds it. By default
        ``1.1 * sd(residual) * z(1 - 0.05 / (2 p)) / sqrt(n)``, found by iteration.

    Returns
    -------
    AttributeEffectsResult

    Raises
    ------
    IdentificationError
        With "per_attribute", when columns of a regression are dependent; names them.

    References
    ----------
    Srivastava et al. (2025), Robust reward modeling via causal rubrics, arXiv 2506.16507.
    Belloni, Chen, Chernozhukov, Hansen (2012), Sparse models and methods for optimal instruments,
    Econometrica 80, 2369-2429, doi 10.3982/ECTA9626 (penalty).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from causalrm.augment import attribute_effects
    >>> rng = np.random.default_rng(0)
    >>> df = pd.DataFrame(rng.choice([-1, 1], (200, 3)), columns=["right", "full", "long"])
    >>> df["flipped"] = rng.choice(["right", "full"], 200)
    >>> own = np.where(df["flipped"] == "right", df["right"] * 2.0, df["full"] * 1.0)
    >>> df["change"] = -2 * own - 2 * 0.5 * df["right"] * df["full"]  # 0.5: their interaction
    >>> found = attribute_effects(df, change="change", attribute="flipped",
    ...                           causal=["right", "full"], spurious=["long"])
    >>> found.to_frame().set_index("term")["estimate"].round(2)[["right", "full", "right x full"]]
    term
    right           2.0
    full            1.0
    right x full    0.5
    right x full    0.5
    Name: estimate, dtype: float64
    """
    check_choice("method", method, _METHODS)
    causal, spurious = list(causal), list(spurious)
    source = Source(pairs)
    reader, rows = scan(
        source,
        numbers=[change, *causal, *spurious],
        categories=[attribute, *([cluster] if cluster else [])],
    )
    check(
        rows, causal, lambda *x: np.any([np.abs(v) != 1 for v in x], axis=0), "values -1 and 1",
        "Code attributes that are absent as -1; combine levels where there are more.", source.index,
    )  # fmt: skip
    (block,) = [part for _, part in rows.parts()]
    levels = {c.name: c.levels for c in reader.columns}
    flipped = np.array(levels[attribute], dtype=object)[block[attribute]]
    unknown = sorted({str(v) for v in flipped} - set(causal))
    if unknown:
        raise DataError(
            f"Expected column {attribute!r} to name one of {causal}, but it also has "
            f"{', '.join(unknown[:5])}. Add them to causal, or drop these rows."
        )
    y = block[change].astype(float)
    codes = block[cluster] if cluster else np.arange(len(y))
    x = {name: block[name].astype(float) for name in (*causal, *spurious)}
    used = [name for name in causal if (flipped == name).any()]
    parts = [_regression(name, flipped == name, x, causal, spurious, y, codes) for name in used]
    designs = pd.DataFrame([_conditioning(part) for part in parts])
    if method == "per_attribute":
        table, chosen = _separately(parts), 0.0
    else:
        table, chosen = _stacked(parts, penalty)
    clusters = len(np.unique(codes))
    return AttributeEffectsResult(
        call={
            "estimator": "attribute_effects",
            "options": {"method": method, "penalty": penalty},
            "roles": {"change": change, "attribute": attribute, "cluster": cluster or ""},
        },
        n_obs=len(y),
        assumptions=(
            Assumption(
                "Single flips",
                "Each pair differs in the attribute that it names and in nothing else",
                "the verification of the edits",
            ),
            Assumption(
                "Interactions of two",
                "No three attributes or styles act jointly",
                "residuals against products of three columns",
            ),
        ),
        table=table,
        df_resid=degrees(clusters) if cluster else None,
        designs=designs,
        penalty=chosen,
    )


@dataclass(frozen=True)
class _Part:
    """The regression of one attribute: -change / (2 C) on 1, the others and style."""

    name: str
    x: np.ndarray
    y: np.ndarray
    terms: list[tuple[str, str]]  # group and term of each column
    codes: np.ndarray


def _regression(
    name: str,
    rows: np.ndarray,
    x: dict[str, np.ndarray],
    causal: list[str],
    spurious: list[str],
    y: np.ndarray,
    codes: np.ndarray,
) -> _Part:
    others = [other for other in causal if other != name]
    columns = [np.ones(int(rows.sum())), *(x[other][rows] for other in (*others, *spurious))]
    terms = [("effect", name)]
    for other in others:  # one name for the interaction, whichever of the two was flipped
        first, second = sorted((name, other), key=causal.index)
        terms.append(("interaction", f"{first} x {second}"))
    terms += [("modified by style", f"{name} x {style}") for style in spurious]
    return _Part(name, np.column_stack(columns), -0.5 * y[rows] * x[name][rows], terms, codes[rows])


def _conditioning(part: _Part) -> dict[str, Any]:
    norm = np.linalg.norm(part.x, axis=0)
    unit = part.x / np.where(norm > 0, norm, 1.0)
    singular = np.linalg.svd(unit, compute_uv=False)
    rank = int(np.sum(singular > 1e-10 * singular[0]))
    gram = np.abs(unit.T @ unit)
    np.fill_diagonal(gram, 0.0)
    full = rank == part.x.shape[1]
    return {
        "attribute": part.name, "pairs": len(part.y), "columns": part.x.shape[1], "rank": rank,
        "condition_number": float(singular[0] / singular[-1]) if full else np.inf,
        "coherence": float(gram.max()),
    }  # fmt: skip


def _least_squares(
    x: np.ndarray, y: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and robust standard errors, by cluster where rows share one."""
    n, k = x.shape
    bread = least_squares(x.T @ x, np.eye(x.shape[1]))
    beta = bread @ (x.T @ y)
    _, dense = np.unique(codes, return_inverse=True)
    g = int(dense.max()) + 1
    sums = by_cluster(dense, (x * (y - x @ beta)[:, None]).T, g)
    factor = g / (g - 1) * (n - 1) / (n - k) if n > k and g > 1 else np.nan
    covariance = factor * bread @ (sums.T @ sums) @ bread
    return beta, np.sqrt(np.diag(covariance))


def _separately(parts: list[_Part]) -> pd.DataFrame:
    rows = []
    for part in parts:
        _, r, order = linalg.qr(part.x, mode="economic", pivoting=True)
        size = np.abs(np.diag(r))
        rank = int(np.sum(size > 1e-10 * size[0]))
        if rank < part.x.shape[1]:
            dependent = sorted(part.terms[i][1] for i in order[rank:])
            raise IdentificationError(
                f"Expected independent columns for {part.name!r}, but its {len(part.y)} pairs "
                f"determine {rank} of {part.x.shape[1]} coefficients; these follow from the rest: "
                f"{', '.join(dependent[:8])}. Add pairs, remove columns, or use "
                "method='stacked_l1'."
            )
        beta, error = _least_squares(part.x, part.y, part.codes)
        rows += [
            (*term, b, e, len(part.y), False)
            for term, b, e in zip(part.terms, beta, error, strict=True)
        ]
    return _ordered(rows)


def _stacked(parts: list[_Part], penalty: float | None) -> tuple[pd.DataFrame, float]:
    """All regressions as one, with shared interactions: lasso, then least squares."""
    terms = list(dict.fromkeys(term for part in parts for term in part.terms))
    place = {term: j for j, term in enumerate(terms)}
    x = np.zeros((sum(len(part.y) for part in parts), len(terms)))
    start = 0
    for part in parts:
        x[start : start + len(part.y), [place[term] for term in part.terms]] = part.x
        start += len(part.y)
    y = np.concatenate([part.y for part in parts])
    codes = np.concatenate([part.codes for part in parts])
    n, p = x.shape
    scale = np.sqrt((x**2).mean(axis=0))
    z = x / np.where(scale > 0, scale, 1.0)  # a column of zeros is never chosen
    kept = np.zeros(p, dtype=bool)
    alpha = 0.0
    for _ in range(20):
        residual = y - (x[:, kept] @ linalg.lstsq(x[:, kept], y)[0] if kept.any() else 0.0)
        sd = float(np.sqrt((residual**2).sum() / max(n - kept.sum(), 1)))
        plug_in = 1.1 * sd * float(stats.norm.ppf(1.0 - 0.05 / (2 * p))) / math.sqrt(n)
        alpha = plug_in if penalty is None else float(penalty)
        alpha = max(alpha, 1e-9 * float(np.abs(z.T @ y).max()) / n)
        model = Lasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=200_000)
        with np.errstate(all="ignore"):
            chosen = np.abs(model.fit(z, y).coef_) > 1e-8 * max(float(np.abs(y).max()), 1e-300)
        if (chosen == kept).all() or penalty is not None:
            kept = chosen
            break
        kept = chosen
    beta, error = np.zeros(p), np.full(p, np.nan)
    if kept.any():
        beta[kept], error[kept] = _least_squares(x[:, kept], y, codes)
    count = (x != 0).sum(axis=0)
    rows = [(*term, beta[j], error[j], int(count[j]), False) for j, term in enumerate(terms)]
    return _ordered(rows), float(alpha)


def _ordered(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["group", "term", "estimate", "std_error", "n", "share"]
    frame = pd.DataFrame(rows, columns=columns)
    place = {"effect": 0, "interaction": 1, "modified by style": 2}
    return frame.sort_values("group", key=lambda g: g.map(place), kind="stable", ignore_index=True)
