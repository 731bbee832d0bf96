"""Differences of measures between groups or scores, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrm.calibration import estimation as est
from causalrm.calibration.scored import Scored
from causalrm.core.inference import quantile, two_sided_p
from causalrm.core.result import COLUMNS

Floats = NDArray[np.float64]


def difference(
    a: Scored,
    b: Scored,
    measure: est.Smooth | est.Norm,
    joint: Callable[[est.Smooth], float],
    level: float,
) -> list[Any]:
    """Difference of a measure: name, estimate, standard error, statistic, p-value, interval.

    `joint` gives the standard error of a smooth measure's difference. For the others the
    median-unbiased estimates are subtracted and their intervals joined: each end moves by the
    root of the sum of squared distances, less what the correlation of the simulated samples
    takes off (MOVER), or by their sum where the lower limit is zero.
    """
    nothing = math.nan
    values = measure.value(a), measure.value(b)
    if not all(map(math.isfinite, values)) or not (a.n_boot or isinstance(measure, est.Smooth)):
        return [measure.name, *[nothing] * 6]
    q = quantile(level, a.df)
    if isinstance(measure, est.Smooth):
        value, error = values[0] - values[1], joint(measure)
        down = up = q * error
    else:
        x, y = est.inverted(measure, a, level), est.inverted(measure, b, level)
        value = x.median_unbiased - y.median_unbiased
        left, right = measure.draws(a, level), measure.draws(b, level)
        both = float(left.std() * right.std())
        rho = float(np.mean((left - left.mean()) * (right - right.mean()))) / both if both else 0.0

        def side(first: float, second: float, bound: float) -> float:
            # An estimate above a lower limit of zero may be all bias: then the ends subtract.
            if bound <= 0.0:
                return first + second
            return math.sqrt(max(first**2 + second**2 - 2.0 * rho * first * second, 0.0))

        down = side(y.high - y.median_unbiased, x.median_unbiased - x.low, x.low)
        up = side(x.high - x.median_unbiased, y.median_unbiased - y.low, y.low)
        error = (up + down) / (2.0 * q)
    toward = (down if value > 0.0 else up) / q
    z = value / toward if toward > 0.0 else nothing
    p_value = float(two_sided_p(np.array(z), a.df))
    return [measure.name, value, error, z, p_value, value - down, value + up]


CONTRASTED: tuple[est.Smooth | est.Norm, ...] = (
    *est.SMOOTH,
    est.ECE,
    est.SQUARED,
    est.SMOOTH_ECE,
    est.ICI,
    est.ECCE,
    est.MCB,
)


def group_contrasts(
    s: Scored, codes: NDArray[np.int64], parts: list[Scored], names: list[str], level: float
) -> pd.DataFrame:
    """Every measure of each group less that of the rest, Holm-adjusted over the groups."""
    rows = []
    for g, (part, name) in enumerate(zip(parts, names, strict=True)):
        inside = codes == g
        rest = part_of(s, ~inside, len(names) + g)
        if not usable(part) or not usable(rest):
            continue
        joint = partial(_joint_error, s, inside, part, rest)
        for measure in CONTRASTED:
            rows.append([name, *difference(part, rest, measure, joint, level)])
    frame = pd.DataFrame(rows, columns=["group", *COLUMNS])
    frame["p_adjusted"] = frame.groupby("term")["p_value"].transform(holm) if rows else math.nan
    return frame


def _joint_error(
    s: Scored, inside: NDArray[np.bool_], part: Scored, rest: Scored, measure: est.Smooth
) -> float:
    if s.replicates is not None:
        return _replicate_error(s, inside, measure)
    if s.cluster is None:
        return math.hypot(measure.std_error(part), measure.std_error(rest))
    psi = np.empty(s.n)
    psi[inside], psi[~inside] = measure.psi(part), -measure.psi(rest)
    return math.sqrt(s.covariance(psi)[0, 0])


def _replicate_error(s: Scored, inside: NDArray[np.bool_], measure: est.Smooth) -> float:
    assert s.replicates is not None

    def gap(weights: Floats | None) -> float:
        inner, outer = s.subset(inside, weights), s.subset(~inside, weights)
        return measure.value(inner) - measure.value(outer)

    value = gap(None)
    change = [gap(w) - value for w in s.replicates.T]
    return math.sqrt(4.0 / len(change) * float(np.square(change).sum()))


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values; missing ones stay missing and do not count."""
    order = p.dropna().sort_values()
    m = len(order)
    raised = order * np.arange(m, 0, -1)
    return raised.cummax().clip(upper=1.0).reindex(p.index)


def usable(s: Scored) -> bool:
    """Say whether there are two rows with weight."""
    return s.n >= 2 and (s.w is None or int(np.count_nonzero(s.w)) >= 2)


def part_of(s: Scored, rows: NDArray[np.bool_], stream: int) -> Scored:
    """Return some of the rows, with draws that depend on those of others only by clusters."""
    part = s.subset(rows)
    if s.cluster is None and s.replicates is None:
        # Disjoint independent rows need independent draws; clusters need common ones.
        part.entropy = int(np.random.SeedSequence([s.entropy, stream]).generate_state(1)[0])
    return part
