"""Columns without the effects of factors of any number of levels, by weighted least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalrm.core.blocks import each
from causalrm.core.errors import ConvergenceError
from causalrm.deconfound import _kernels_absorb as k

_COLUMNS_AT_ONCE = 16


@dataclass(frozen=True)
class Absorbed:
    """Columns from which the effects of all factors were removed.

    Attributes
    ----------
    values : ndarray of shape (r, n)
        What is left; the array that was given.
    effects : list of ndarray, one of shape (r, L_f) per factor
        Effects of its levels on each column, in the order of the factors. Those of all factors
        but the largest have mean zero over the rows of each connected component.
    n_components : list of int
        Connected components of the levels of the largest factor and each other, in the order of
        the factors; for the largest factor itself the largest of these.
    redundant : int
        Number of effects that follow from the others. Exact for one or two factors; for more, a
        count by pairs, which can be too small.
    method : {"means", "projections", "cholesky"}
        Means of one factor; accelerated alternating projections; or conjugate gradients with an
        approximate Cholesky factor.
    iterations : int
    error : float
        Estimated relative error of the columns.
    """

    values: np.ndarray
    effects: list[np.ndarray]
    n_components: list[int]
    redundant: int
    method: str
    iterations: int
    error: float


def absorb_columns(
    values: np.ndarray,
    codes: Sequence[np.ndarray],
    sizes: Sequence[int],
    weights: np.ndarray | None = None,
    tol: float = 1e-8,
    max_iter: int = 10_000,
) -> Absorbed:
    """Remove the effects of all factors from columns, by weighted least squares.

    Parameters
    ----------
    values : ndarray of float of shape (r, n), C-ordered
        Overwritten.
    codes : sequence of ndarray of int of shape (n,)
        One per factor, each level in use.
    sizes : sequence of int
        Numbers of levels.
    weights : ndarray of shape (n,), optional
        Above 0.
    tol : float
        Relative error of a column, as the root of its mean square.
    max_iter : int

    Returns
    -------
    Absorbed

    Raises
    ------
    ConvergenceError
        When the tolerance is not reached.

    Notes
    -----
    The largest factor is eliminated, and the normal equations of the others are solved by
    conjugate gradients. A pilot of 30 iterations with the diagonal as preconditioner, which are
    alternating projections with acceleration, decides whether the rest is worth an approximate
    Cholesky factor of the graph's Laplacian.

    References
    ----------
    Gaure (2013), OLS with multiple high dimensional category variables, Computational Statistics
    and Data Analysis 66, 8-18, doi 10.1016/j.csda.2013.03.024. Kyng, Sachdeva (2016), Approximate
    Gaussian elimination for Laplacians, FOCS 2016, 573-582, doi 10.1109/FOCS.2016.68.
    """
    by_size = sorted(range(len(codes)), key=lambda f: (-sizes[f], f))
    code = [np.ascontiguousarray(codes[f]) for f in by_size]
    size = [int(sizes[f]) for f in by_size]
    w = np.empty(0) if weights is None else np.ascontiguousarray(weights, dtype=float)
    cells = k.cells(code, size, w)
    r = len(values)
    u = np.empty((r, int(cells.offsets[-1])))
    method, iterations, error = "means", 0, 0.0
    if len(code) > 1:
        for a in range(0, r, _COLUMNS_AT_ONCE):
            some = range(a, min(a + _COLUMNS_AT_ONCE, r))
            found = _solve(values, some, cells, w, tol, max_iter)
            u[some.start : some.stop] = found.u.T
            if found.iterations >= iterations:
                method, iterations = found.method, found.iterations
            error = max(error, found.error)
    largest = np.empty((r, size[0]))

    def remove(j: int) -> None:
        k.residual(
            values[j], cells.order, cells.start, cells.row_codes, w, u[j], largest[j], values[j]
        )

    for _ in each(remove, range(r)):
        pass
    # Constants that move between factors: means zero, but for the largest factor.
    effects, counts = [largest], [0]
    redundant = 0
    for f in range(1, len(code)):
        part = slice(int(cells.offsets[f - 1]), int(cells.offsets[f]))
        component = k.components(code[0], code[f], size[0], size[f])
        counts.append(int(component.max()) + 1)
        own, base = component[size[0] :], component[: size[0]]
        pairs = [k.components(code[g], code[f], size[g], size[f]) for g in range(1, f)]
        redundant += max([counts[-1], *(int(c.max()) + 1 for c in pairs)])
        weight = cells.diagonal[part]
        total = np.bincount(own, weights=weight)
        for j in range(r):
            mean = np.bincount(own, weights=weight * u[j, part]) / total
            u[j, part] -= mean[own]
            largest[j] += mean[base]
        effects.append(u[:, part])
    counts[0] = max(counts[1:], default=size[0])
    place = np.argsort(by_size)
    return Absorbed(
        values, [effects[f] for f in place], [counts[f] for f in place], redundant,
        method, iterations, error,
    )  # fmt: skip


def _solve(
    values: np.ndarray, some: range, cells: k.Cells, w: np.ndarray, tol: float, max_iter: int
) -> k.Solution:
    b = np.zeros((len(some), int(cells.offsets[-1])))

    def right_side(j: int) -> float:
        return k.right_side(
            values[some[j]], cells.order, cells.start, cells.row_codes, w, b[j]
        )  # fmt: skip

    size = np.array(list(each(right_side, range(len(some)))))
    found = k.solve(cells, np.ascontiguousarray(b.T), size, tol, max_iter)
    if found.error > tol:
        raise ConvergenceError(
            f"Expected fixed effects to converge to a relative error of {tol:g}, but after "
            f"{found.iterations} iterations it is {found.error:.1e}. Raise max_iter, or absorb "
            "fewer factors."
        )
    return found
