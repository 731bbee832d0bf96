"""Folds, Gram matrices by fold, and closed forms of partially linear and instrumental models."""

from __future__ import annotations

import numpy as np
from scipy import linalg, special

from causalrm.core.errors import IdentificationError
from causalrm.core.kernel import kernel

_TILE = 512


# --------------------------------------------------------------------------- folds


@kernel(inline=True)
def _mix(x: np.uint64) -> np.uint64:
    """Finaliser of the splitmix64 generator (doi 10.1145/2660193.2660195)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def fold_codes(units: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Fold of each unit: every stretch of `n_folds` numbers gets each fold once, in random order.

    The fold depends on the number of the unit and the seed only, so that rows can be read in
    parts, and folds differ by one unit at most.

    Parameters
    ----------
    units : ndarray of int of shape (n,)
        Numbers of rows or of clusters.
    n_folds : int
    seed : int
        Of 63 bits.

    Returns
    -------
    ndarray of int8 of shape (n,)
    """
    out = np.empty(units.size, np.int8)
    order = np.empty(n_folds, np.int8)
    drawn = -1
    for i in range(units.size):
        stretch = units[i] // n_folds
        if stretch != drawn:
            drawn = stretch
            state = _mix(np.uint64(seed) + np.uint64(stretch) * np.uint64(0x9E3779B97F4A7C15))
            for k in range(n_folds):
                order[k] = k
            for k in range(n_folds - 1, 0, -1):
                state = _mix(state + np.uint64(0x9E3779B97F4A7C15))
                j = np.int64((state >> np.uint64(11)) % np.uint64(k + 1))
                order[k], order[j] = order[j], order[k]
        out[i] = order[units[i] - stretch * n_folds]
    return out


@kernel
def fold_order(codes: np.ndarray, n_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Place of each row when rows are sorted by fold, and where each fold starts (and the end)."""
    starts = np.zeros(n_folds + 1, np.int64)
    for i in range(codes.size):
        starts[codes[i] + 1] += 1
    for k in range(n_folds):
        starts[k + 1] += starts[k]
    free = starts[:-1].copy()
    place = np.empty(codes.size, np.int64)
    for i in range(codes.size):
        k = codes[i]
        place[i] = free[k]
        free[k] += 1
    return place, starts


@kernel
def gather(
    x: np.ndarray, shift: np.ndarray, scale: np.ndarray, place: np.ndarray, out: np.ndarray
) -> None:
    """Write ``(x - shift) * scale`` of shape (p, n) to `out`, column i of x at ``place[i]``."""
    n = x.shape[1]
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        for j in range(x.shape[0]):
            a, b = shift[j], scale[j]
            for i in range(start, stop):
                out[j, place[i]] = (x[j, i] - a) * b


@kernel(reassociate=True)
def gram_by_fold(x: np.ndarray, w: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
    """Add the lower triangle of ``(x * w) @ x.T`` over the columns of fold k to ``out[k]``.

    Tiles of columns stay in the first-level cache; for a few dozen rows of x this is faster than
    BLAS.

    Parameters
    ----------
    x : ndarray of shape (s, n)
        Sorted by fold.
    w : ndarray of shape (n,), or of shape (0,) for unit weights
    starts : ndarray of int of shape (K + 1,)
    out : ndarray of shape (K, s, s)
    """
    xw = np.empty(_TILE)
    for k in range(starts.size - 1):
        for start in range(starts[k], starts[k + 1], _TILE):
            stop = min(start + _TILE, starts[k + 1])
            size = stop - start
            for i in range(x.shape[0]):
                xi = x[i, start:stop]
                if w.size:
                    wi = w[start:stop]
                    for t in range(size):
                        xw[t] = xi[t] * wi[t]
                else:
                    for t in range(size):
                        xw[t] = xi[t]
                j = 0
                while j + 4 <= i + 1:
                    z0, z1 = x[j, start:stop], x[j + 1, start:stop]
                    z2, z3 = x[j + 2, start:stop], x[j + 3, start:stop]
                    s0 = 0.0
                    s1 = 0.0
                    s2 = 0.0
                    s3 = 0.0
                    for t in range(size):
                        v = xw[t]
                        s0 += v * z0[t]
                        s1 += v * z1[t]
                        s2 += v * z2[t]
                        s3 += v * z3[t]
                    out[k, i, j] += s0
                    out[k, i, j + 1] += s1
                    out[k, i, j + 2] += s2
                    out[k, i, j + 3] += s3
                    j += 4
                while j <= i:
                    zj = x[j, start:stop]
                    s0 = 0.0
                    for t in range(size):
                        s0 += xw[t] * zj[t]
                    out[k, i, j] += s0
                    j += 1


@kernel
def subtract_own(values: np.ndarray, codes: np.ndarray, out: np.ndarray) -> None:
    """Subtract from column i of `out` (r, n) the values (K, r, n) of its fold."""
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[j, i] -= values[codes[i], j, i]


# --------------------------------------------------------------------------- closed forms


def solve(products: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Solve with cross products (m, m), in units in which their diagonal is one.

    Raises
    ------
    IdentificationError
        When they are singular.
    """
    diagonal = np.diag(products)
    unit = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    try:
        x = linalg.solve(products * np.outer(unit, unit), (moments.T * unit).T, assume_a="pos")
    except linalg.LinAlgError as error:
        raise IdentificationError(
            "Expected confounders and instruments that vary apart from one another and from what "
            f"they are adjusted for, but their cross products are singular ({error}). Remove "
            "columns, combine rare levels, or take fewer folds."
        ) from error
    return np.asarray((x.T * unit).T)


def two_stage(
    zz: np.ndarray, zd: np.ndarray, zy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-stage least squares from cross products of residuals.

    Parameters
    ----------
    zz : ndarray of shape (m, m)
    zd : ndarray of shape (m, q)
    zy : ndarray of shape (m,)

    Returns
    -------
    theta : ndarray of shape (q,)
    first : ndarray of shape (m, q)
        First-stage coefficients; the identity when the instruments are the confounders.
    bread : ndarray of shape (q, q)
        Inverse of ``first.T @ zd``; the influence of a row on theta is ``bread @ first.T @ z e``.
    """
    first = solve(zz, zd)
    information = first.T @ zd
    bread = solve(0.5 * (information + information.T), np.eye(len(information)))
    return bread @ (first.T @ zy), first, bread


def effective_f(first: np.ndarray, zz: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    r"""Effective first-stage F of one confounder, and its critical value.

    ``F = pi' Q pi / tr(Sigma Q)`` with Q the cross products of the instruments and Sigma the
    robust covariance of the first-stage coefficients. The critical value is the conservative one
    (whatever the outcome's errors) at which the bias of 2SLS exceeds a tenth of its worst with
    5 % probability.

    Parameters
    ----------
    first : ndarray of shape (m,)
    zz : ndarray of shape (m, m)
    covariance : ndarray of shape (m, m)

    References
    ----------
    Montiel Olea, Pflueger (2013), A robust test for weak instruments, JBES 31(3), 358-369,
    doi 10.1080/00401706.2013.806694.
    """
    half = linalg.cholesky(zz, lower=True)
    w = half.T @ covariance @ half
    trace = float(np.trace(w))
    x = 10.0  # one over the bias that is tolerated
    largest = float(linalg.eigvalsh(w)[-1])
    k = trace**2 * (1 + 2 * x) / (float((w**2).sum()) + 2 * x * trace * largest)
    critical = float(special.chndtrix(0.95, k, x * k)) / k
    return float(first @ zz @ first) / trace, critical


def conditional_f(zz: np.ndarray, zd: np.ndarray, dd: np.ndarray, df: float) -> np.ndarray:
    """First-stage F of each of q confounders, given that the instruments serve the others too.

    With one confounder it is the classical F.

    Parameters
    ----------
    zz, zd, dd : ndarray of shape (m, m), (m, q), (q, q)
        Cross products of residuals.
    df : float
        Residual degrees of freedom.

    References
    ----------
    Sanderson, Windmeijer (2016), A weak instrument F-test in linear IV models with multiple
    endogenous variables, Journal of Econometrics 190(2), 212-221,
    doi 10.1016/j.jeconom.2015.06.004.
    """
    m, q = zd.shape
    first = solve(zz, zd)
    projected = zd.T @ first
    out = np.empty(q)
    for j in range(q):
        rest = [i for i in range(q) if i != j]
        c = np.zeros(q)
        c[j] = 1.0
        if rest:
            c[rest] = -linalg.solve(
                projected[np.ix_(rest, rest)], projected[rest, j], assume_a="pos"
            )
        explained = float(c @ projected @ c)
        residual = float(c @ dd @ c) - explained
        out[j] = explained / (m - q + 1) / (residual / df) if residual > 0 else np.inf
    return out


def anderson_rubin(
    zy: np.ndarray, zd: np.ndarray, meat: np.ndarray, critical: float
) -> list[tuple[float, float]]:
    """Values of theta at which ``g' S^-1 g <= critical``, as disjoint intervals.

    Here ``g(theta) = zy - theta zd`` and S is the covariance of g, a quadratic in theta. As
    ``g' S^-1 g <= c`` exactly where ``S - g g' / c`` has no negative eigenvalue, and that matrix is
    a quadratic polynomial in theta, the ends are the real eigenvalues of its companion pencil:
    with one instrument, the roots of a quadratic.

    Parameters
    ----------
    zy, zd : ndarray of shape (m,)
        Sums of the rows' moments.
    meat : ndarray of shape (2 m, 2 m)
        Sums, over rows or clusters, of outer products of the moments (zy, zd).
    critical : float

    Returns
    -------
    list of (low, high)
        Infinite ends where the set is unbounded, ``[(-inf, inf)]`` where it is the whole line,
        empty where no value is compatible with all instruments.
    """
    m = len(zy)
    s = meat - np.outer(np.concatenate([zy, zd]), np.concatenate([zy, zd])) / critical
    # A change of scale and origin, so that the eigenvalues of interest are of order one.
    d = float(zd @ zd)
    centre = float(zd @ zy) / d if d > 0 else 0.0
    vy = meat[:m, :m] - centre * (meat[:m, m:] + meat[m:, :m]) + centre**2 * meat[m:, m:]
    unit = float(np.sqrt(np.trace(vy) / np.trace(meat[m:, m:])))
    cross = s[:m, m:] + s[m:, :m]
    a0 = s[:m, :m] - centre * cross + centre**2 * s[m:, m:]
    a1 = unit * (2 * centre * s[m:, m:] - cross)
    a2 = unit**2 * s[m:, m:]
    r = 1.0 / np.sqrt(np.diag(vy))
    a0, a1, a2 = (a * r[:, None] * r[None, :] for a in (a0, a1, a2))
    eye, zero = np.eye(m), np.zeros((m, m))
    values = linalg.eigvals(
        np.block([[zero, eye], [-a0, -a1]]), np.block([[eye, zero], [zero, a2]])
    )
    values = values[np.isfinite(values)]
    real = np.sort(values.real[np.abs(values.imag) <= 1e-9 * (1.0 + np.abs(values.real))])

    def inside(t: float) -> bool:
        return bool(linalg.eigvalsh(a0 + t * a1 + t**2 * a2)[0] >= 0)

    edges = [-np.inf, *real.tolist(), np.inf]
    out: list[tuple[float, float]] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        if np.isinf(low) and np.isinf(high):
            t = 0.0
        elif np.isinf(low):
            t = high - 1.0 - abs(high)
        else:
            t = low + 1.0 + abs(low) if np.isinf(high) else 0.5 * (low + high)
        if not inside(t):
            continue
        pair = (centre + unit * low, centre + unit * high)
        if out and out[-1][1] == pair[0]:
            pair = (out.pop()[0], pair[1])
        out.append(pair)
    return out
