"""Maximum likelihood of paired comparisons: connectivity, Newton steps, covariances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import linalg, sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg

from causalrm.core import random
from causalrm.core.blocks import add, each
from causalrm.core.errors import ConvergenceError, DataError, IdentificationError
from causalrm.core.inference import invert_information, sandwich
from causalrm.core.parallel import blas_limit
from causalrm.preference import _kernels as K
from causalrm.preference.votes import Heaps, Votes, heap, reweighted

_CHOLESKY = 2_000  # items up to which the Laplacian is factored; beyond, conjugate gradients
_MOST = 6_000  # items up to which a covariance of all of them is worth its memory
_MANY = 1 << 16  # heaps from which sums are taken in spans, on threads
_SUMS = 1 << 23  # numbers in the cluster sums that are held at once, per thread
_RUNAWAY = 30.0  # standard error that only a parameter without a finite estimate has


@dataclass(frozen=True)
class Setup:
    """What is fitted.

    Attributes
    ----------
    model : int
        A model of the kernels.
    position : bool
    ridge : float
        Of all strengths around their mean, on the scale of the sum log-likelihood.
    names : tuple of str
        Of the parameters that all comparisons share: tie, position, covariates.
    """

    model: int
    position: bool
    ridge: float
    names: tuple[str, ...]

    @property
    def has_tau(self) -> int:
        """1 where the model has a tie parameter, the first of the common ones."""
        return int(self.model >= K.DAVIDSON)


@dataclass(frozen=True)
class Sums:
    """Log-likelihood, score, and a bordered Laplacian at some parameters."""

    value: float
    score: np.ndarray
    score_common: np.ndarray
    laplacian: np.ndarray
    border: np.ndarray
    corner: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """Where a fit ended: strengths that sum to zero or start at zero, common parameters."""

    strength: np.ndarray
    common: np.ndarray
    value: float
    iterations: int


# ---------------------------------------------------------------- identification


def check_connected(h: Heaps, items: Sequence[Any], ridge: float) -> dict[str, int]:
    """Refuse comparisons in which some strength has no finite estimate, unless there is a ridge.

    Ford's condition: however the items are divided in two, each part won against the other.

    Returns
    -------
    dict
        Numbers of parts that were never compared with each other, and of parts within which every
        item is reached from every other by a chain of wins (ties count for both).
    """
    k = len(items)
    won, lost = (h.y > 0) & (h.w > 0), (h.y < 1) & (h.w > 0)
    if k <= _CHOLESKY:
        beats = np.zeros((k, k), bool)
        beats[h.i[won], h.j[won]] = True
        beats[h.j[lost], h.i[lost]] = True
        if _reaches_all(beats) and _reaches_all(beats.T):
            return {"components": 1, "strong_components": 1}
    loser, winner = (np.concatenate([x[won], z[lost]]) for x, z in ((h.j, h.i), (h.i, h.j)))
    graph = sparse.csr_array((np.ones(len(loser), bool), (loser, winner)), shape=(k, k))
    parts, weak = csgraph.connected_components(graph, directed=True, connection="weak")
    pieces, strong = csgraph.connected_components(graph, directed=True, connection="strong")
    out = {"components": int(parts), "strong_components": int(pieces)}
    if ridge > 0 or pieces == 1:
        return out
    if parts > 1:
        sizes = np.bincount(weak)
        members = [np.flatnonzero(weak == c) for c in range(min(3, parts))]
        shown = [_listed([items[int(i)] for i in places]) for places in members]
        raise IdentificationError(
            f"Expected comparisons that connect all {k} items, but they fall into {parts} groups "
            f"that were never compared with one another, of {', '.join(map(str, sizes[:8]))} items "
            f"({'; '.join(shown)}). Fit each group by itself, add comparisons between them, or "
            "give a penalty, such as BradleyTerry(penalty=1.0)."
        )
    crossing = strong[loser] != strong[winner]
    beaten, wins = (np.isin(np.arange(pieces), strong[x[crossing]]) for x in (loser, winner))
    said = []
    for part, words in ((~beaten & wins, "lost"), (beaten & ~wins, "won")):
        names = [items[int(i)] for i in np.flatnonzero(part[strong])]
        if 0 < len(names) <= max(k // 2, 1):  # the few, not the many that they met
            said.append(f"{_listed(names)} never {words} against the others")
    raise IdentificationError(
        "Expected every item to win and to lose, directly or by a chain of comparisons, but "
        f"{' and '.join(said)}: their strengths have no finite estimate. Remove these items, add "
        "comparisons, or give a penalty, such as BradleyTerry(penalty=1.0), whose estimates are "
        "finite."
    )


def _reaches_all(beats: np.ndarray) -> bool:
    """Whether chains lead from the first item to all others."""
    reached, new = np.zeros(len(beats), bool), np.array([0])
    while new.size:
        reached[new] = True
        new = np.flatnonzero(beats[new].any(axis=0) & ~reached)
    return bool(reached.all())


def _listed(names: Sequence[Any]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(repr(n) for n in names[:6]) + more


# ---------------------------------------------------------------- sums


def sums(h: Heaps, s: Setup, k: int, strength: np.ndarray, common: np.ndarray, meat: bool) -> Sums:
    """Log-likelihood, score and information, or with `meat` products of scores instead."""
    q = len(common)
    n = len(h.i)
    weight = h.square if meat else h.w
    parts = 1 if n < _MANY else max(1, min(16, n // 65_536, (1 << 25) // max(len(h.first), 1)))
    edges = np.linspace(0, n, parts + 1).astype(int)

    def task(p: int) -> tuple[Any, ...]:
        r = slice(edges[p], edges[p + 1])
        out = (np.zeros(len(h.first)), np.zeros((k, q)), np.zeros((q, q)), np.zeros(k), np.zeros(q))
        value = K.accumulate(
            s.model, h.i[r], h.j[r], h.y[r], weight[r], h.pair[r], h.x[:, r], strength, common,
            s.has_tau, meat, *out,
        )  # fmt: skip
        return value, *out

    first, *others = each(task, range(parts))
    for other in others:
        first = add(first, other)
    value, laplacian, border, corner, score, score_common = first
    if q:
        corner = np.triu(corner) + np.triu(corner, 1).T
    return Sums(value, score, score_common, laplacian, border, corner)


def _dense(h: Heaps, weights: np.ndarray, k: int) -> np.ndarray:
    """The Laplacian of a graph with a weight per pair."""
    out = np.zeros((k, k))
    out[h.first, h.second] = -weights
    out += out.T
    out[np.diag_indices(k)] = -out.sum(axis=0)
    return out


def bordered(h: Heaps, f: Sums, k: int) -> np.ndarray:
    """The whole matrix over strengths and common parameters."""
    return np.block([[_dense(h, f.laplacian, k), f.border], [f.border.T, f.corner]])


# ---------------------------------------------------------------- Newton


class _Solver:
    """Solves with the grounded (or, with a ridge, the shifted) Laplacian."""

    def __init__(self, h: Heaps, f: Sums, k: int, ridge: float):
        self.free = slice(0 if ridge else 1, k)  # without a ridge the first item stays at zero
        if k <= _CHOLESKY:
            matrix = _dense(h, f.laplacian, k)[self.free, self.free]
            matrix[np.diag_indices_from(matrix)] += ridge
            self.factor, failed = linalg.lapack.dpotrf(matrix, lower=1, overwrite_a=1)
            if failed:
                raise linalg.LinAlgError("not positive definite")
            return
        both = np.concatenate([h.first, h.second]), np.concatenate([h.second, h.first])
        twice = np.concatenate([f.laplacian, f.laplacian])
        degree = np.bincount(both[0], twice, minlength=k) + ridge
        matrix = sparse.csr_array((-twice, both), shape=(k, k)) + sparse.diags_array(degree)
        self.matrix = matrix.tocsr()[self.free, self.free]
        self.scale = sparse.diags_array(1.0 / degree[self.free])
        self.factor = None

    def __call__(self, right: np.ndarray) -> np.ndarray:
        """Solution for one or several columns."""
        right = right[self.free]
        if self.factor is not None:
            return np.asarray(linalg.lapack.dpotrs(self.factor, right, lower=1)[0])
        if right.ndim == 1:
            return self._gradients(right)
        out = np.empty(right.shape)
        for c in range(right.shape[1]):
            out[:, c] = self._gradients(right[:, c])
        return out

    def _gradients(self, right: np.ndarray) -> np.ndarray:
        found, failed = sparse_linalg.cg(
            self.matrix, right, rtol=1e-10, atol=0.0, maxiter=5_000, M=self.scale
        )
        if failed:
            raise ConvergenceError(
                "Expected the conjugate gradients to converge within 5,000 steps, but they did "
                "not: the items hang together by very few comparisons. Give a penalty, or drop "
                "items that were hardly compared."
            )
        return np.asarray(found)


def start_tau(s: Setup, h: Heaps) -> np.ndarray:
    """Common parameters to start from: the share of ties between equal items, else zero."""
    common = np.zeros(len(s.names))
    if s.has_tau:
        share = min(float(h.w[h.y == 0.5].sum() / h.w.sum()), 0.99)
        if s.model == K.DAVIDSON:
            common[0] = math.log(2 * share / (1 - share))
        else:
            common[0] = math.log((1 + share) / (1 - share))
    return common


def _by_pair(h: Heaps, s: Setup) -> Heaps:
    """Heaps of the same pair as one, where only the mean outcome of a pair counts.

    That is so for log-likelihood and information with ties as half wins, not for the variance of
    the scores.
    """
    if s.has_tau or len(h.x) > int(s.position):
        return h
    cell = 2 * h.pair + (h.i > h.j)
    w = np.bincount(cell, h.w)
    used = np.flatnonzero(w)
    pair, swap = used // 2, used % 2 == 1
    i, j = (x[pair].astype(np.int32) for x in (h.first, h.second))
    return Heaps(
        np.where(swap, j, i), np.where(swap, i, j), np.bincount(cell, h.w * h.y)[used] / w[used],
        w[used], w[used], pair, h.first, h.second, np.ones((len(h.x), len(used))),
    )  # fmt: skip


def _check_separable(corner: np.ndarray, schur: np.ndarray, names: Sequence[str]) -> None:
    """Refuse common parameters about which the data say nothing beside the strengths."""
    left = np.diag(schur) / np.maximum(np.diag(corner), 1e-300)
    bad = [name for name, share in zip(names, left, strict=True) if not share > 1e-10]
    if bad:
        raise IdentificationError(
            "Expected covariates that vary between comparisons of the same items, but "
            f"{bad} follow from the items: the strengths hold their effect already. Remove them."
        )
    invert_information(schur, names)


def newton(
    h: Heaps, s: Setup, k: int, start: Fitted | None = None, max_iter: int = 100
) -> tuple[Fitted, Sums]:
    """Maximise the log-likelihood, minus ``ridge / 2`` times the strengths' sum of squares."""
    h = _by_pair(h, s)
    strength = np.zeros(k) if start is None else start.strength
    common = start_tau(s, h) if start is None else start.common
    if s.ridge:
        strength = strength - strength.mean()
    f = sums(h, s, k, strength, common, False)
    for iteration in range(1, max_iter + 1):
        penalty = 0.5 * s.ridge * float(strength @ strength)
        score = f.score - s.ridge * strength
        try:
            solve = _Solver(h, f, k, s.ridge)
            ahead = solve(score)
            across = solve(f.border)
            border = f.border[solve.free]
            if len(common):
                schur = f.corner - border.T @ across
                if iteration == 1:
                    _check_separable(f.corner, schur, s.names)
                step_common = linalg.solve(schur, f.score_common - border.T @ ahead, assume_a="pos")
            else:
                step_common = np.zeros(0)
        except linalg.LinAlgError:
            break
        step = np.zeros(k)
        step[solve.free] = ahead - across @ step_common
        gain = 0.5 * float(score @ step + f.score_common @ step_common)
        floor = 64 * np.finfo(float).eps * (1.0 + abs(f.value))
        for _ in range(30):
            moved = strength + step
            if s.ridge:
                moved -= moved.mean()  # rounding only
            trial = sums(h, s, k, moved, common + step_common, False)
            if trial.value - 0.5 * s.ridge * float(moved @ moved) >= f.value - penalty - floor:
                break
            step, step_common = 0.25 * step, 0.25 * step_common
        else:
            break
        strength, common, f = moved, common + step_common, trial
        if gain <= max(1e-9, floor):  # taken all the same, so that what is left is its square
            return Fitted(strength, common, f.value, iteration), f
    raise ConvergenceError(
        f"Expected the likelihood to reach its maximum, but after {iteration} Newton steps it was "
        "still rising. Covariates that separate wins from losses, or very large ones, do this: "
        "rescale or remove them, or give a penalty."
    )


# ---------------------------------------------------------------- covariances


def bread(h: Heaps, f: Sums, s: Setup, k: int) -> np.ndarray:
    """Inverse information over the free strengths (all with a ridge) and the common parameters."""
    matrix = _dense(h, f.laplacian, k)
    free = slice(0 if s.ridge else 1, k)
    matrix = matrix[free, free]
    matrix[np.diag_indices_from(matrix)] += s.ridge
    factor, failed = linalg.lapack.dpotrf(matrix, lower=1, overwrite_a=1)
    inverse, _ = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise IdentificationError(
            "Expected information on every strength, but the information matrix is singular. Give "
            "a penalty, or drop items that were hardly compared."
        )
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    if not s.names:
        return np.asarray(inverse)
    across = inverse @ f.border[free]
    corner = invert_information(f.corner - f.border[free].T @ across, s.names)
    side = -across @ corner
    return np.block([[inverse - side @ across.T, side], [side.T, corner]])


def check_finite_estimates(h: Heaps, s: Setup, common: np.ndarray, variance: np.ndarray) -> None:
    """Refuse common parameters that run to infinity, such as a covariate that separates."""
    size = np.ones(len(common))
    first = s.has_tau + int(s.position)
    size[first:] = h.x[int(s.position) :].std(axis=1)
    bad = [n for n, far in zip(s.names, np.sqrt(variance) * size > _RUNAWAY, strict=True) if far]
    if bad:
        raise IdentificationError(
            f"Expected finite estimates, but {bad} run to infinity: they separate wins from "
            "losses. Remove them, or add comparisons."
        )


def cluster_meat(v: Votes, s: Setup, strength: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Sum over clusters of the outer products of their scores.

    Rows are put into buckets of clusters first, so that the clusters' sums of one bucket fit in a
    cache-friendly table, whatever the number of clusters.
    """
    assert v.cluster is not None
    size = len(strength) + len(common)
    width = max(1, min(_SUMS // size, -(-v.n_clusters // 8)))
    starts = np.zeros(-(-v.n_clusters // width) + 1, np.int64)
    c = v.cluster
    order = K.bucket(c.values, c.table, width, starts)
    known = _known_scores(v, s, strength, common)
    thin = (2.0 * len(v.y) / v.n_clusters) ** 2 < size * size / 8  # few entries per cluster

    def task(g: int) -> np.ndarray:
        rows = order[starts[g] : starts[g + 1]]
        sums = np.zeros((min(width, v.n_clusters - g * width), size))
        K.add_scores(
            s.model, rows, *v.columns, v.w, v.x, int(s.position), c.values, c.table,
            g * width, strength, common, s.has_tau, known, sums,
        )  # fmt: skip
        if not thin:
            return np.asarray(sums.T @ sums)
        upper = np.zeros((size, size))
        K.outer_products(sums, upper)
        return np.triu(upper) + np.triu(upper, 1).T

    out = np.zeros((size, size))
    with blas_limit(1):
        for part in each(task, range(len(starts) - 1)):
            out += part
    return out


def _known_scores(v: Votes, s: Setup, strength: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Scores in z and tau by (a, b, outcome), where there are more votes than such cells."""
    k = len(strength)
    if v.table is None or 3 * k * k > len(v.y):
        return np.empty((2, 0))
    z = strength[:, None] - strength[None, :] + (common[s.has_tau] if s.position else 0.0)
    z, y = np.repeat(z.ravel(), 3), np.tile([0.0, 0.5, 1.0], k * k)
    return np.stack(K.votes(s.model, z, float(common[0]) if s.has_tau else 0.0, y)[1:])


def covariances(
    v: Votes, h: Heaps, s: Setup, fit: Fitted, f: Sums, n_boot: int, rng: Any
) -> tuple[dict[str, np.ndarray], int | None]:
    """Every covariance of (strengths but the first, common parameters) that the data allow."""
    k = len(v.items)
    if k > _MOST:
        raise DataError(
            f"Expected at most {_MOST:,} items, whose covariances need {16 * _MOST**2 / 1e6:.0f} "
            f"MB, but saw {k:,}. Drop items with few comparisons, or divide them into leagues."
        )
    inverse = bread(h, f, s, k)
    check_finite_estimates(h, s, fit.common, np.diag(inverse)[len(inverse) - len(s.names) :])
    free = slice(0 if s.ridge else 1, None)
    products = bordered(h, sums(h, s, k, fit.strength, fit.common, True), k)[free, free]
    out = {"model": inverse, "robust": sandwich(inverse, products)}
    if s.ridge:
        out["model"] = sandwich(inverse, bordered(h, f, k))
    if v.cluster is not None:
        products = cluster_meat(v, s, fit.strength, fit.common)[free, free]
        out["cluster"] = sandwich(inverse, products, v.n_clusters / (v.n_clusters - 1))
    if s.ridge:  # from all strengths to differences from the first
        out = {kind: _against_first(m, k) for kind, m in out.items()}
    entropy = None
    if n_boot:
        out["bootstrap"], entropy = bootstrap(v, h, s, fit, n_boot, rng)
    return out, entropy


def _against_first(matrix: np.ndarray, k: int) -> np.ndarray:
    half = np.vstack([matrix[1:k] - matrix[:1], matrix[k:]])
    return np.hstack([half[:, 1:k] - half[:, :1], half[:, k:]])


def bootstrap(
    v: Votes, h: Heaps, s: Setup, fit: Fitted, n_boot: int, rng: Any
) -> tuple[np.ndarray, int]:
    """Covariance over refits with random weights, each started at the estimate.

    Every vote, or every cluster, gets an exponential weight (the Bayesian bootstrap), so that the
    weight of a heap of votes is a gamma variable, and no comparison is ever lost: a replicate has
    a finite estimate where the data have one.
    """
    _, entropy = random.resolve(rng)
    children = random.spawn(entropy, n_boot)
    k = len(v.items)
    shape = h.w**2 / np.where(h.square > 0, h.square, 1.0)

    def refit(child: np.random.Generator) -> np.ndarray:
        if v.cluster is None:
            w = child.standard_gamma(shape) * h.square / np.where(h.w > 0, h.w, 1.0)
        else:
            factor = child.standard_exponential(v.n_clusters)
            votes = reweighted(v, factor / factor.mean())
            w = votes.w
        if v.cluster is None or h.rowwise:
            heaps = replace(h, w=w, square=w)
        else:
            heaps = heap(votes, s.position)
        found, _ = newton(heaps, s, k, fit)
        return np.concatenate([found.strength[1:] - found.strength[0], found.common])

    small = len(h.i) < _MANY and len(v.y) < _MANY  # else the sums of each refit use the threads
    draws = np.stack(list(each(refit, children) if small else map(refit, children)))
    return np.asarray(np.cov(draws, rowvar=False).reshape(draws.shape[1], -1)), entropy
