"""Risk sets and ranks: product-limit curves with their influence, and concordant pairs.

The influence of a row is the derivative of an estimate with respect to the row's weight (the
infinitesimal jackknife), so that weights and clusters need no formulas of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrm.core.kernel import kernel


@dataclass(frozen=True)
class RiskSets:
    """Weighted deaths and numbers at risk at each distinct time of death.

    Attributes
    ----------
    time, deaths, at_risk : ndarray of shape (m,)
    survival : ndarray of shape (m + 1,)
        Product-limit estimate from each time on; the first element is 1.
    own : ndarray of shape (n,)
        Place of a row's own death among the times; m where it has none.
    first, last : ndarray of shape (n,)
        The row is at risk at the times ``first:last``.
    """

    time: np.ndarray
    deaths: np.ndarray
    at_risk: np.ndarray
    survival: np.ndarray
    own: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def before(self, t: np.ndarray) -> np.ndarray:
        """Number of times of death below `t`."""
        return np.asarray(np.searchsorted(self.time, t, side="left"))

    def until(self, t: float | np.ndarray) -> np.ndarray:
        """Number of times of death up to `t`."""
        return np.asarray(np.searchsorted(self.time, t, side="right"))

    def integral(self, b: np.ndarray) -> np.ndarray:
        """Influence of each row on minus the sum of b log(1 - deaths/at_risk).

        Parameters
        ----------
        b : ndarray of shape (m,)
            Held fixed. Zero it where survival is zero: what comes later moves with no row.

        Returns
        -------
        ndarray of shape (n,)
        """
        left = self.at_risk - self.deaths
        per = np.divide(b, left, out=np.zeros(len(b)), where=left > 1e-12 * self.at_risk)
        share = np.divide(self.deaths, self.at_risk, out=np.zeros(len(b)), where=self.at_risk > 0)
        total = np.concatenate([[0.0], np.cumsum(per * share)])
        return np.asarray(np.append(per, 0.0)[self.own] - total[self.last] + total[self.first])


def risk_sets(
    time: np.ndarray,
    event: np.ndarray,
    weights: np.ndarray,
    entry: np.ndarray | None = None,
    censoring: bool = False,
) -> RiskSets:
    """Risk sets of the events, or of the censorings.

    Parameters
    ----------
    time, event, weights : ndarray of shape (n,)
    entry : ndarray of shape (n,), optional
        A row is at risk in (entry, time].
    censoring : bool
        Count censorings as deaths. Events come first at ties, so that a row with an event is not
        at risk of being censored at the same time.
    """
    died = (event > 0) != censoring
    times, own = np.unique(time[died], return_inverse=True)
    m = len(times)
    place = np.full(len(time), m)
    place[died] = own
    last = np.searchsorted(times, time, side="right")
    if censoring:
        last = np.where(died, last, np.searchsorted(times, time, side="left"))
    first = np.zeros(len(time), dtype=np.int64)
    if entry is not None:
        first = np.searchsorted(times, entry, side="right")
    deaths = np.bincount(place, weights, m + 1)[:m]
    moves = np.bincount(first, weights, m + 1) - np.bincount(last, weights, m + 1)
    at_risk = np.maximum(np.cumsum(moves)[:m], deaths)  # equal but for rounding at the end
    share = np.divide(deaths, at_risk, out=np.zeros(m), where=at_risk > 0)
    survival = np.concatenate([[1.0], np.cumprod(1.0 - share)])
    return RiskSets(times, deaths, at_risk, survival, place, first, last)


# ---------------------------------------------------------------------------- concordance


@kernel
def _add(tree: np.ndarray, place: int, value: float) -> None:
    """Add to one element of a Fenwick tree."""
    i = place + 1
    while i < tree.size:
        tree[i] += value
        i += i & -i


@kernel
def _sum(tree: np.ndarray, count: int) -> float:
    """Sum of the first `count` elements of a Fenwick tree."""
    total = 0.0
    i = count
    while i > 0:
        total += tree[i]
        i -= i & -i
    return total


@kernel
def _pairs(
    time: np.ndarray,
    event: np.ndarray,
    rank: np.ndarray,
    w: np.ndarray,
    v: np.ndarray,
    n_ranks: int,
    entry: np.ndarray,
    by_entry: np.ndarray,
    out: np.ndarray,
) -> None:
    n = time.size
    n_entry = by_entry.size
    # From the end: each event against those who are still under observation afterwards.
    tree = np.zeros(n_ranks + 1)
    inside = 0.0
    leaving = n_entry - 1
    stop = n
    while stop > 0:
        t = time[stop - 1]
        start = stop
        while start > 0 and time[start - 1] == t:
            start -= 1
            if event[start] == 0:
                _add(tree, rank[start], w[start])
                inside += w[start]
        while leaving >= 0 and entry[by_entry[leaving]] >= t:
            j = by_entry[leaving]
            _add(tree, rank[j], -w[j])
            inside -= w[j]
            leaving -= 1
        for i in range(start, stop):
            if event[i] == 1 and v[i] > 0:
                below = _sum(tree, rank[i])
                upto = _sum(tree, rank[i] + 1)
                out[0, i] = 0.5 * (below + upto)
                out[1, i] = inside
        for i in range(start, stop):
            if event[i] == 1:
                _add(tree, rank[i], w[i])
                inside += w[i]
        stop = start
    # From the start: each row against the events before it, less those before its entry.
    tree[:] = 0.0
    inside = 0.0
    entering = 0
    start = 0
    while start < n:
        t = time[start]
        while entering < n_entry and entry[by_entry[entering]] < t:
            j = by_entry[entering]
            out[2, j] -= inside - 0.5 * (_sum(tree, rank[j]) + _sum(tree, rank[j] + 1))
            out[3, j] -= inside
            entering += 1
        stop = start
        while stop < n and time[stop] == t:
            stop += 1
        for censored in range(2):
            for i in range(start, stop):
                if event[i] == 1 - censored:
                    out[2, i] += inside - 0.5 * (_sum(tree, rank[i]) + _sum(tree, rank[i] + 1))
                    out[3, i] += inside
            if censored == 0:
                for i in range(start, stop):
                    if event[i] == 1 and v[i] > 0:
                        _add(tree, rank[i], w[i] * v[i])
                        inside += w[i] * v[i]
        start = stop


def concordant_pairs(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    weights: np.ndarray,
    pair_weights: np.ndarray,
    entry: np.ndarray | None = None,
) -> np.ndarray:
    """Weights of concordant and comparable pairs of each row, in O(n log n).

    A pair is comparable when one row has an event while the other is under observation and stays
    so longer (a censoring at the time of an event is later); it is concordant when the one with
    the event has the higher risk, and half so at equal risk.

    Parameters
    ----------
    time, event, risk, weights : ndarray of shape (n,)
    pair_weights : ndarray of shape (n,)
        Of the pairs in which the row has the earlier event; 0 leaves them out.
    entry : ndarray of shape (n,), optional
        A row is under observation in (entry, time].

    Returns
    -------
    ndarray of shape (4, n)
        Concordant and comparable weight of the later rows per event, and of the earlier events
        (with their pair weights) per row.
    """
    order = np.argsort(time, kind="stable")
    levels, rank = np.unique(risk, return_inverse=True)
    start = np.empty(0) if entry is None else entry[order].astype(float)
    out = np.zeros((4, len(time)))
    _pairs(
        time[order].astype(float), (event[order] > 0).astype(np.int64), rank[order],
        weights[order].astype(float), pair_weights[order].astype(float), len(levels),
        start, np.argsort(start, kind="stable"), out,
    )  # fmt: skip
    back = np.empty_like(out)
    back[:, order] = out
    return back
