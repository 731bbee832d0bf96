"""Linear predictors over blocks of rows, and the two regressions that everything needs.

A likelihood is written in its linear predictors eta_1..eta_m: per row a value, a gradient and a
Hessian with respect to them. `Predictors` turns these into score and Hessian of the coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import linalg

from causalrm.core.blocks import Block, Rows, length
from causalrm.core.design import Design
from causalrm.core.errors import IdentificationError
from causalrm.core.kernel import kernel

_STABLE = 10.0  # means below so many standard deviations need no centring
_RANK_TOL = 1e-9
_TILE = 512


def pairs(m: int) -> list[tuple[int, int]]:
    """Index pairs (i, j), i <= j, in the order of the weights of `Predictors.hessian`."""
    return [(i, j) for i in range(m) for j in range(i, m)]


class Predictors:
    """Linear predictors that may share designs.

    Columns whose mean or scale would harm the arithmetic are centred and scaled inside;
    `transform` maps back.

    Parameters
    ----------
    designs : sequence of Design or None
        One per predictor; None stands for a single free number.
    drop_intercept : sequence of bool
        Whether the intercept of the design is left out.
    """

    def __init__(self, designs: Sequence[Design | None], drop_intercept: Sequence[bool]):
        self.unique: list[Design] = []
        self.which: list[int] = []
        self.first: list[int] = []
        for design, drop in zip(designs, drop_intercept, strict=True):
            if design is None:
                self.which.append(-1)
                self.first.append(0)
                continue
            if design not in self.unique:
                self.unique.append(design)
            self.which.append(self.unique.index(design))
            self.first.append(int(drop and design.has_intercept))
        self.sizes = [
            1 if w < 0 else len(self.unique[w]) - f
            for w, f in zip(self.which, self.first, strict=True)
        ]
        stops = np.cumsum([0, *self.sizes])
        self.slices = [slice(int(a), int(b)) for a, b in zip(stops[:-1], stops[1:], strict=True)]
        self.n_params = int(stops[-1])
        self.shift = [np.zeros(len(d)) for d in self.unique]
        self.scale = [np.ones(len(d)) for d in self.unique]
        self.sd = [np.ones(len(d)) for d in self.unique]
        self.mean = [np.zeros(len(d)) for d in self.unique]

    # ---------------------------------------------------------------- scaling and rank

    def standardise(self, rows: Rows, names: Sequence[str]) -> None:
        """Look at the Gram matrices once: choose scales, refuse singular designs.

        Parameters
        ----------
        rows : Rows
        names : sequence of str
            Names of the predictors for messages.
        """
        if not self.unique:
            return
        first = rows.sample(1000).columns
        about: list[np.ndarray] = []
        size: list[np.ndarray] = []
        for d in self.unique:
            x = d.encode(first, length(first))
            m, s = x.mean(axis=1), x.std(axis=1)
            s = np.where(s > 0, s, np.where(m != 0, np.abs(m), 1.0))
            if d.has_intercept:
                m[0], s[0] = 0.0, 1.0
            else:  # nothing absorbs a mean, and columns that add up to 1 are not dependent
                m, s = np.zeros(len(x)), np.sqrt(m**2 + x.var(axis=1))
                s[s == 0] = 1.0
            about.append(m)
            size.append(s)
        sums = rows.total(_gram, self.unique, about, size)
        n = float(rows.n_obs)
        for i, d in enumerate(self.unique):
            mean, gram = sums[2 * i] / n, sums[2 * i + 1] / n
            var = np.clip(np.diag(gram) - mean**2, 0.0, None)
            self.sd[i] = size[i] * np.sqrt(var)
            means = self.mean[i] = about[i] + size[i] * mean
            user = [name for name, w in zip(names, self.which, strict=True) if w == i]
            _check_rank(gram, mean, d, user)
            sd = np.where(self.sd[i] > 0, self.sd[i], 1.0)
            if d.has_intercept and not self._without_intercept(i):
                self.shift[i] = np.where(np.abs(means) > _STABLE * sd, means, 0.0)
                self.shift[i][0] = 0.0
            odd = (sd > 1e3) | (sd < 1e-3)
            self.scale[i] = np.where(odd, 1.0 / sd, 1.0)

    def _without_intercept(self, i: int) -> bool:
        return any(w == i and f for w, f in zip(self.which, self.first, strict=True))

    def transform(self) -> np.ndarray:
        """Matrix T with ``raw coefficients = T @ internal coefficients``."""
        t = np.eye(self.n_params)
        for w, f, s in zip(self.which, self.first, self.slices, strict=True):
            if w < 0:
                continue
            scale, shift = self.scale[w][f:], self.shift[w][f:]
            block = np.diag(scale)
            if shift.any():
                block[0, 1:] = -(shift * scale)[1:]
            t[s, s] = block
        return t

    # ---------------------------------------------------------------- blocks

    def matrices(self, block: Block, n: int) -> list[np.ndarray]:
        """The designs of a block, each of shape (p, n)."""
        out = []
        for design, shift, scale in zip(self.unique, self.shift, self.scale, strict=True):
            x = design.encode(block, n)
            if shift.any():
                x -= shift[:, None]
            if (scale != 1.0).any():
                x *= scale[:, None]
            out.append(x)
        return out

    def part(self, xs: list[np.ndarray], i: int) -> np.ndarray | None:
        """Design of predictor `i` in a block, or None for a free number."""
        w = self.which[i]
        return None if w < 0 else xs[w][self.first[i] :]

    def values(self, xs: list[np.ndarray], theta: np.ndarray) -> list[Any]:
        """Each predictor's values: an array of shape (n,), or a number if it does not vary."""
        out: list[Any] = []
        for i, s in enumerate(self.slices):
            x = self.part(xs, i)
            if x is None or self.constant(i):
                out.append(float(theta[s][0]))
            else:
                out.append(theta[s] @ x)
        return out

    def constant(self, i: int) -> bool:
        """Whether predictor `i` is the same number for all rows."""
        w = self.which[i]
        if w < 0:
            return True
        return self.sizes[i] == 1 and self.unique[w].has_intercept and not self.first[i]

    def score(self, xs: list[np.ndarray], g: Sequence[np.ndarray]) -> np.ndarray:
        """Sum over rows of the gradient, shape (k,)."""
        return np.concatenate(
            [
                [float(gi.sum())] if (x := self.part(xs, i)) is None else x @ gi
                for i, gi in enumerate(g)
            ]
        )

    def scores(self, xs: list[np.ndarray], g: Sequence[np.ndarray]) -> np.ndarray:
        """Gradient of each row, shape (k, n)."""
        return np.concatenate(
            [gi[None, :] if (x := self.part(xs, i)) is None else x * gi for i, gi in enumerate(g)]
        )

    def hessian(self, xs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Sums of weighted outer products, as in a Hessian or the meat of a sandwich.

        Parameters
        ----------
        xs : list of ndarray
            Designs of the block.
        weights : ndarray of shape (q, m (m + 1) / 2, n)
            For each of q matrices the row weights by pair (i, j), i <= j, of the m predictors.

        Returns
        -------
        ndarray of shape (q, k, k)
        """
        m = len(self.slices)
        out = np.empty((len(weights), self.n_params, self.n_params))
        same: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for slot, (i, j) in enumerate(pairs(m)):
            same.setdefault((self.which[i], self.which[j]), []).append((slot, i, j))
        for (u, v), members in same.items():
            w = weights[:, [slot for slot, _, _ in members]]
            flat = w.reshape(-1, w.shape[-1])
            if u < 0 and v < 0:
                sums = flat.sum(axis=1)[:, None, None]
            elif u < 0 or v < 0:
                sums = flat @ xs[max(u, v)].T
                sums = sums[:, None, :] if u < 0 else sums[:, :, None]
            else:
                sums = np.zeros((len(flat), len(xs[u]), len(xs[v])))
                weighted_gram(xs[u], xs[v], flat, u == v, sums)
            sums = sums.reshape(len(weights), len(members), *sums.shape[1:])
            for place, (_, i, j) in enumerate(members):
                part = sums[:, place]
                part = part[:, self.first[i] if u >= 0 else 0 :, self.first[j] if v >= 0 else 0 :]
                out[:, self.slices[i], self.slices[j]] = part
                out[:, self.slices[j], self.slices[i]] = part.transpose(0, 2, 1)
        return out


@kernel(reassociate=True)
def weighted_gram(x: np.ndarray, z: np.ndarray, w: np.ndarray, same: bool, out: np.ndarray) -> None:
    """Add ``(x * w[q]) @ z.T`` to ``out[q]`` for every q.

    BLAS is slow for a few columns and many rows; tiles of rows that stay in the first-level cache
    and four sums at a time are about three times faster.

    Parameters
    ----------
    x, z : ndarray of shape (p, n), (r, n)
    w : ndarray of shape (m, n)
    same : bool
        Whether x is z, so that half of each matrix is enough.
    out : ndarray of shape (m, p, r)
    """
    n = x.shape[1]
    xw = np.empty(_TILE)
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        size = stop - start
        for q in range(w.shape[0]):
            wq = w[q, start:stop]
            for i in range(x.shape[0]):
                xi = x[i, start:stop]
                for t in range(size):
                    xw[t] = xi[t] * wq[t]
                end = i + 1 if same else z.shape[0]
                j = 0
                while j + 4 <= end:
                    z0, z1 = z[j, start:stop], z[j + 1, start:stop]
                    z2, z3 = z[j + 2, start:stop], z[j + 3, start:stop]
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
                    out[q, i, j] += s0
                    out[q, i, j + 1] += s1
                    out[q, i, j + 2] += s2
                    out[q, i, j + 3] += s3
                    j += 4
                while j < end:
                    z0 = z[j, start:stop]
                    s0 = 0.0
                    for t in range(size):
                        s0 += xw[t] * z0[t]
                    out[q, i, j] += s0
                    j += 1
    if same:
        for q in range(w.shape[0]):
            for i in range(x.shape[0]):
                for j in range(i):
                    out[q, j, i] = out[q, i, j]


def _gram(
    block: Block, designs: list[Design], about: list[np.ndarray], size: list[np.ndarray]
) -> tuple[np.ndarray, ...]:
    n = length(block)
    out: list[np.ndarray] = []
    for d, m, s in zip(designs, about, size, strict=True):
        x = d.encode(block, n)
        x -= m[:, None]
        x /= s[:, None]
        gram = np.zeros((1, len(x), len(x)))
        weighted_gram(x, x, np.ones((1, n)), True, gram)
        out += [x.sum(axis=1), gram[0]]
    return tuple(out)


def _check_rank(gram: np.ndarray, mean: np.ndarray, design: Design, users: Sequence[str]) -> None:
    """Raise when columns of a design are exact combinations of one another."""
    if design.has_intercept:
        centred = gram[1:, 1:] - np.outer(mean[1:], mean[1:])
        terms = design.terms[1:]
    else:
        centred, terms = gram, design.terms
    dependent = dependent_columns(centred, np.diag(gram)[-len(terms) :] if terms else None)
    if dependent is None:
        return
    names = [terms[i] for i in dependent]
    where = " and ".join(users)
    if len(names) == 1 and design.has_intercept:
        what = f"{names[0]!r} is constant"
        remedy = "Remove it: the intercept already stands for it"
    elif len(names) == 1:
        what = f"{names[0]!r} is zero in every row"
        remedy = "Remove it"
    else:
        what = f"the columns {names} are linearly dependent" + (
            " (with the intercept)" if design.has_intercept else ""
        )
        remedy = "Remove one of them, or centre a column that lies far from zero"
    raise IdentificationError(
        f"Expected linearly independent columns in the formula of {where} ({design.formula!r}), "
        f"but {what} ({len(names)} of {len(terms)} columns involved). {remedy}."
    )


def dependent_columns(gram: np.ndarray, reference: np.ndarray | None = None) -> list[int] | None:
    """Columns that take part in an exact linear dependence of a Gram matrix, or None.

    Parameters
    ----------
    gram : ndarray of shape (p, p)
    reference : ndarray of shape (p,), optional
        Sizes against which a diagonal entry counts as zero (before centring).
    """
    p = len(gram)
    if p == 0:
        return None
    diagonal = np.diag(gram).copy()
    base = diagonal if reference is None else np.maximum(reference, diagonal)
    zero = diagonal <= _RANK_TOL**1.5 * np.where(base > 0, base, 1.0)
    if zero.any():
        return [int(np.flatnonzero(zero)[0])]
    d = 1.0 / np.sqrt(diagonal)
    values, vectors = linalg.eigh(gram * d[:, None] * d[None, :])
    if values[0] > _RANK_TOL * p:
        return None
    weight = np.abs(vectors[:, 0])
    return [int(i) for i in np.flatnonzero(weight > 1e-4 * weight.max())]


# ---------------------------------------------------------------------------- regressions


def logistic_rows(
    y: np.ndarray, eta: np.ndarray, w: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, gradient and second derivative in eta of Bernoulli rows.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Outcomes in [0, 1].
    eta : ndarray of shape (n,)
        Log-odds.
    w : ndarray of shape (n,) or float
        Weights.
    """
    e = np.exp(-np.abs(eta))
    p = np.where(eta >= 0, 1.0, e) / (1.0 + e)
    value = y * eta - np.maximum(eta, 0.0) - np.log1p(e)
    return w * value, w * (y - p), -w * e / (1.0 + e) ** 2


def least_squares(
    gram: np.ndarray, moment: np.ndarray, names: Sequence[str] | None = None
) -> np.ndarray:
    """Solve the normal equations ``gram @ beta = moment`` by a scaled Cholesky factor.

    Parameters
    ----------
    gram : ndarray of shape (p, p)
    moment : ndarray of shape (p,) or (p, q)
    names : sequence of str, optional
        Names of the columns, for the message.

    Returns
    -------
    ndarray of shape (p,) or (p, q)

    Raises
    ------
    IdentificationError
        When the columns are linearly dependent; it says which.
    """
    dependent = dependent_columns(gram)
    if dependent is not None:
        involved = dependent if names is None else [names[i] for i in dependent]
        what = f"{involved} are dependent" if len(involved) > 1 else f"{involved} is zero"
        raise IdentificationError(
            f"Expected linearly independent columns, but of {len(gram)} columns {what}. Remove one "
            "of them."
        )
    d = 1.0 / np.sqrt(np.diag(gram))
    factor = linalg.cho_factor(gram * d[:, None] * d[None, :])
    scaled = moment * d if moment.ndim == 1 else moment * d[:, None]
    solution = linalg.cho_solve(factor, scaled)
    return np.asarray(solution * d if moment.ndim == 1 else solution * d[:, None])
