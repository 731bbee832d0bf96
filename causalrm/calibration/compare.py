"""Two or more scores on the same rows: paired differences of every measure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from causalrm.calibration import estimation as est
from causalrm.calibration.contrasts import difference, holm
from causalrm.calibration.scored import Scored
from causalrm.core.errors import DataError
from causalrm.core.parallel import blas_limit
from causalrm.core.random import RNG
from causalrm.core.result import COLUMNS, Assumption, Result, check_level
from causalrm.core.table import Section, Table, section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMOOTH = (est.BRIER, est.LOG_LOSS, est.AUC, est.OBSERVED_EXPECTED, est.SLOPE)
_NORMS = (est.ECE, est.SMOOTH_ECE, est.ICI, est.MCB)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """What `compare` returns.

    Attributes
    ----------
    level : float
    differences : pandas.DataFrame
        `group` names the pair, "b - a"; `p_adjusted` is Holm's over the pairs.
    scores : pandas.DataFrame
        Each score's own measures, without intervals.
    """

    level: float
    differences: pd.DataFrame
    scores: pd.DataFrame

    def to_frame(self, level: float | None = None) -> pd.DataFrame:
        """Return the differences; `level`, if given, must be that of the comparison.

        Raises
        ------
        DataError
            For another level.
        """
        if level is not None and level != self.level:
            raise DataError(
                f"The intervals of this comparison have level {self.level:g}; for {level:g} call "
                f"compare(..., level={level:g})."
            )
        return self.differences.copy()

    def summary(self, level: float | None = None) -> Table:
        """Return scores, differences and what drives them."""
        drives = tuple(self.diagnostics["drives"].items())
        sections = (
            Section(rows=(("Observations", f"{self.n_obs:,}"),)),
            section(self.scores, "Scores"),
            section(self.to_frame(level).drop(columns="statistic"), "Differences", self.level),
            Section("Difference of the Brier scores", rows=drives),
            *self._remarks(),
        )
        return Table("Comparison of scores", sections)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the differences with their intervals.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from causalrm.core import plotting

        return plotting.forest(ax, self.differences, xlabel="Difference")


def compare(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    *,
    weights: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    bins: int = 10,
    strategy: str = "width",
    level: float = 0.95,
    n_boot: int = 1000,
    rng: RNG = 0,
) -> Comparison:
    """Compare scores of the same rows.

    Brier score and log loss are compared by paired t tests, AUC by DeLong's test, both summed
    within clusters; ECE, smooth ECE, ICI and MCB by samples in which the noise of the scores
    depends on one another as it does in the rows. Positive differences mean that the second
    score of a pair has the larger value.

    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0/1 or bool.
    scores : mapping of str to array-like of shape (n,)
        At least two scores in [0, 1] by name.
    weights, cluster, bins, strategy, level, n_boot, rng
        As in `ece`.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        With fewer than two scores, or when rows are incomplete or out of range.

    References
    ----------
    Zou, G. Y., and Donner, A. (2008). Construction of confidence limits about effect measures:
    a general approach. Statistics in Medicine 27, 1693-1702. doi:10.1002/sim.3095.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=500)  # simulated
    >>> y = rng.uniform(size=500) < p
    >>> found = compare(y, {"good": p, "timid": 0.25 + 0.5 * p}, n_boot=200)
    >>> frame = found.to_frame().set_index("term")
    >>> bool(frame.loc["brier", "conf_low"] > 0), bool(frame.loc["mcb", "conf_low"] > 0)
    (True, True)
    """
    level = check_level(level)
    if len(scores) < 2:
        raise DataError(f"compare needs at least two scores; got {list(scores)}.")
    n = np.asarray(y).size
    # Rows that are independent are clusters of one row: the samples of all scores then share
    # their multipliers.
    unit = np.arange(n) if cluster is None else cluster
    sets = {}
    for name, p in scores.items():
        try:
            sets[name] = Scored(
                y,
                p,
                weights=weights,
                cluster=unit,
                bins=bins,
                strategy=strategy,
                n_boot=n_boot,
                rng=rng,
            )
        except DataError as error:
            raise DataError(f"Score {name!r}: {error}") from error
        rng = sets[name].entropy
    with blas_limit(1):
        return _build(sets, level, cluster is not None)


def _build(sets: dict[str, Scored], level: float, clustered: bool) -> Comparison:
    rows, drives = [], {}
    for (one, a), (two, b) in itertools.combinations(sets.items(), 2):
        pair = f"{two} - {one}"
        for measure in (*_SMOOTH, *_NORMS):
            rows.append([pair, *difference(b, a, measure, partial(_paired, b, a), level)])
        gap = est.BRIER.value(b) - est.BRIER.value(a)
        mcb = est.MCB.value(b) - est.MCB.value(a)
        drives[pair] = _verdict(gap, mcb)
    frame = pd.DataFrame(rows, columns=["group", *COLUMNS])
    frame["p_adjusted"] = frame.groupby("term")["p_value"].transform(holm)
    own = pd.DataFrame(
        {
            "score": list(sets),
            **{m.name: [m.value(s) for s in sets.values()] for m in (*_SMOOTH, *_NORMS)},
            "dsc": [s.corp().dsc for s in sets.values()],
        }
    )
    first = next(iter(sets.values()))
    statement = (
        f"The {first.n_clusters:,} clusters are independent of one another"
        if clustered
        else "Rows are independent of one another"
    )
    return Comparison(
        call={
            "estimator": "compare",
            "options": {"level": level, "n_boot": first.n_boot, "bins": first._bins},
            "roles": {"scores": list(sets)},
        },
        n_obs=first.n,
        entropy=first.entropy,
        assumptions=(
            Assumption(
                "Independence", statement, "repeat with cluster= set to questions or persons"
            ),
        ),
        diagnostics={"drives": drives},
        warnings=tuple(dict.fromkeys(w for s in sets.values() for w in s.log)),
        level=level,
        differences=frame,
        scores=own,
    )


def _paired(b: Scored, a: Scored, measure: est.Smooth) -> float:
    return math.sqrt(float(b.covariance(measure.psi(b) - measure.psi(a))[0, 0]))


def _verdict(gap: float, mcb: float) -> str:
    # gap = mcb - (difference of dsc), exactly.
    dsc = mcb - gap + 0.0
    more = "calibration (MCB)" if abs(mcb) >= abs(dsc) else "discrimination (DSC)"
    return f"{gap:+.5f} = {mcb:+.5f} (MCB) - {dsc:+.5f} (DSC); driven by {more}"
