"""Simulated scores with known calibration, and the coverage of every interval on them.

Run as a script it writes the summary that `test_coverage.py` reads:
python -m tests.calibration.simulation 1000
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr
from scipy.stats import beta

from causalrm.calibration import _kernels_curve as curve
from causalrm.calibration import _kernels_rank as rank
from causalrm.calibration import decision, estimation
from causalrm.calibration.scored import Scored

SUMMARY = Path(__file__).parents[1] / "reference" / "calibration_coverage.csv"
DESIGNS = ("independent", "weighted", "clustered", "few clusters")
TRUTHS = {
    "calibrated": lambda p: p,
    "overconfident": lambda p: expit(0.6 * logit(p) + 0.2),
    "wave": lambda p: np.clip(p + 0.1 * np.sin(2 * np.pi * p), 0, 1),
    "jump": lambda p: p - 0.2 * ((p > 0.4) & (p < 0.7)),
}
THRESHOLD = 0.3


def draw(n, truth, design, rng):
    """Outcomes, scores, and the options that tell the design."""
    gap = TRUTHS[truth]
    if design == "weighted":
        # A population of which high scores are sampled more often; weights undo that.
        many = rng.beta(1.2, 1.8, 8 * n)
        chance = 0.15 + 0.7 * many
        p = many[rng.uniform(size=many.size) < chance][:n]
        y = rng.uniform(size=n) < gap(p)
        return y, p, {"weights": 1 / (0.15 + 0.7 * p)}
    if design == "clustered":
        # Four rows of one cluster: scores alike, and in half of the rows a common chance.
        groups = n // 4
        label = np.repeat(np.arange(groups), 4)
        p = np.repeat(rng.beta(1.2, 1.8, groups), 4)
        common = rng.uniform(size=groups)[label]
        u = np.where(rng.uniform(size=n) < 0.5, common, rng.uniform(size=n))
        return u < gap(p), p, {"cluster": label}
    if design == "few clusters":
        # 40 clusters of 2 to 8 rows (or ten times as many), correlated scores and outcomes.
        label = np.repeat(np.arange(40), (n // 200) * np.tile([2, 3, 4, 5, 5, 6, 7, 8], 5))
        common, alone = rng.standard_normal((2, 40)), rng.standard_normal((2, n))
        score, chance = ndtr(np.sqrt(0.3) * common[:, label] + np.sqrt(0.7) * alone)
        p = beta.ppf(score, 1.2, 1.8)
        return chance < gap(p), p, {"cluster": label}
    p = rng.beta(1.2, 1.8, n)
    return rng.uniform(size=n) < gap(p), p, {}


@cache
def true_values(truth, size=1_000_000):
    """Every measure of the population, by numerical integration over the scores.

    A measure with bins, a span or an isotonic fit is what its formula gives for the population:
    for ICI, E50, E90 and Emax the loess curve of span 0.75 of all scores, not the gap itself.
    """
    p = beta.ppf((np.arange(size) + 0.5) / size, 1.2, 1.8)
    q = TRUTHS[truth](p)
    d, rate = q - p, q.mean()
    bins = np.bincount((p * 10).astype(int), d, 10) / size
    share = np.bincount((p * 10).astype(int), minlength=10) / size
    run = np.concatenate(([0.0], np.cumsum(d))) / size
    fit = rank.isotonic(np.ones(size), q)
    x = np.repeat(fit.value, np.diff(np.append(fit.start, size)))
    mass = np.bincount(np.rint(p * 4096).astype(int), d, 4097) / size
    z = logit(p)
    slope = np.zeros(2)
    large = 0.0
    for _ in range(30):
        pi = expit(slope[0] + slope[1] * z)
        v = pi * (1 - pi)
        info = np.array([[v.mean(), (v * z).mean()], [(v * z).mean(), (v * z * z).mean()]])
        slope = slope + np.linalg.solve(info, [(q - pi).mean(), (z * (q - pi)).mean()])
        pi = expit(large + z)
        large += (q - pi).mean() / (pi * (1 - pi)).mean()
    some = slice(size // 4000, None, size // 2000)
    curved = np.abs(curve.loess_matrix(p[some], np.ones(2000), p[some]) @ d[some])
    below = (np.cumsum(1 - q) - 0.5 * (1 - q)) / size
    brier = (q * (1 - p) ** 2 + (1 - q) * p**2).mean()
    worth = np.where(p >= THRESHOLD, q - (1 - q) * THRESHOLD / (1 - THRESHOLD), 0.0)
    return {
        "prevalence": rate,
        "mean_score": p.mean(),
        "observed_expected": rate / p.mean(),
        "calibration_in_the_large": large,
        "calibration_slope": slope[1],
        "auc": (q * below).mean() / (rate * (1 - rate)),
        "brier": brier,
        "scaled_brier": 1 - brier / (rate * (1 - rate)),
        "log_loss": -(q * np.log(p) + (1 - q) * np.log1p(-p)).mean(),
        "ece": np.abs(bins).sum(),
        "squared_error": (bins**2 / share).sum(),
        "smooth_ece": curve.smooth_ece(curve.node_spectrum(mass)),
        "ici": curved.mean(),
        "e50": np.quantile(curved, 0.5),
        "e90": np.quantile(curved, 0.9),
        "emax": curved.max(),
        "ecce": run.max() - run.min(),
        "mcb": (d**2 - (q - x) ** 2).mean(),
        "dsc": ((q - rate) ** 2 - (q - x) ** 2).mean(),
        "unc": rate * (1 - rate),
        "net_benefit": worth.mean(),
    }


def coverage(n, truth, design, sets, n_boot=500, seed=0, measures=estimation.ORDER, size=1_000_000):
    """Share of intervals that miss on either side, one row per measure."""
    values = true_values(truth, size)
    misses = {}
    place = [list(TRUTHS).index(truth), DESIGNS.index(design)]
    for i in range(sets):
        rng = np.random.default_rng([seed, n, i, *place])
        y, p, options = draw(n, truth, design, rng)
        s = Scored(y, p, n_boot=n_boot, rng=i, **options)
        found = [measure(s, 0.95).estimate for measure in measures]
        ends = [(e.name, e.conf_low, e.conf_high) for e in found]
        row = decision.decision_frame(s, [THRESHOLD], 0.95).iloc[0]
        ends.append(("net_benefit", row["conf_low"], row["conf_high"]))
        for name, low, high in ends:
            if name in values and not np.isnan(low):
                m = misses.setdefault(name, [0, 0, 0, 0.0])
                m[0] += 1
                m[1] += values[name] < low - 1e-10
                m[2] += values[name] > high + 1e-10
                m[3] += high - low
    rows = [
        (truth, design, n, name, c, 1 - (a + b) / c, a / c, b / c, w / c, values[name])
        for name, (c, a, b, w) in misses.items()
    ]
    columns = "truth design n term sets coverage below above width value".split()
    return pd.DataFrame(rows, columns=columns)


def by_measure(d):
    """Share of settings whose coverage is 93 to 97 %, and the worst one, by measure."""
    error = np.sqrt(d["coverage"] * (1 - d["coverage"]) / d["sets"])
    off = (d["coverage"] - 0.95).abs() - 1e-9
    d = d.assign(off=off, within=off <= 0.02, allowing=off <= 0.02 + 2 * error)
    rows = []
    for term, part in [("all", d), *d.groupby("term", sort=False)]:
        worst = part.loc[part["off"].idxmax()]
        where = f"{worst['truth']}, {worst['design']}, {worst['n']}"
        shares = part["within"].mean(), part["allowing"].mean(), part["coverage"].mean()
        rows.append((term, *shares, worst["coverage"], where))
    columns = "term within within_2_errors mean worst setting".split()
    return pd.DataFrame(rows, columns=columns).round(4)


def main(sets):
    """Write the summary of all settings."""
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for design in DESIGNS:
            for truth in TRUTHS:
                for n in (200, 2000):
                    parts.append(coverage(n, truth, design, sets, n_boot=300))
                    print(truth, design, n, flush=True)
    found = pd.concat(parts, ignore_index=True)
    found.round(4).to_csv(SUMMARY, index=False)
    print(by_measure(found).to_string(index=False))
    print(f"Monte Carlo standard error of a share of 0.95: {np.sqrt(0.95 * 0.05 / sets):.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
