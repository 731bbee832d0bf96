"""Statistical truth of effects, policy values and fusion: intervals cover as often as they say.

Running this file writes the summary of the full simulation to results/effects_coverage.csv; a
scenario that is named is replaced:

    python tests/deconfound/test_effects_coverage.py [replications [scenario ...]]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, special
from sklearn.linear_model import LassoCV

from causalrm.core.result import Estimate
from causalrm.deconfound.effects import average_effect
from causalrm.deconfound.fusion import fuse
from causalrm.deconfound.heterogeneity import heterogeneity
from causalrm.deconfound.policy import policy_value

RESULTS = Path(__file__).parent / "results" / "effects_coverage.csv"
Found = Iterator[tuple[str, float, Estimate]]


def observational(n: int, rng: np.random.Generator, groups: int = 0) -> pd.DataFrame:
    """Treatment, effect and outcome that depend on x1; rows of a group share a part of all."""
    x1, x2, noise, u = rng.normal(size=(4, n))
    frame = pd.DataFrame({"x1": x1, "x2": x2})
    shared = np.zeros(n)
    if groups:
        frame["g"] = rng.integers(groups, size=n)
        shared = rng.normal(size=groups)[frame["g"]]
        frame["x1"] = (x1 + shared) / math.sqrt(2)
        noise = noise + rng.normal(size=groups)[frame["g"]]
    e = special.expit(0.8 * frame["x1"] - 0.4 * x2)
    frame["d"] = (special.ndtr(u) < e).astype(int)
    frame["y"] = frame["d"] * (1 + 0.5 * frame["x1"]) + frame["x1"] + 0.5 * x2 + noise
    return frame


# E[x1 | d = 1] of `observational`, by quadrature.
_NODES, _MASS = np.polynomial.hermite_e.hermegauss(60)
_GRID = np.outer(_MASS, _MASS) / (2 * math.pi)
_TREATED = _GRID * special.expit(np.add.outer(0.8 * _NODES, -0.4 * _NODES))
ATT = 1 + 0.5 * float((_TREATED * _NODES[:, None]).sum() / _TREATED.sum())


def logged(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Three actions; the policy to be valued picks b where x1 is above 0, else c."""
    x1, x2, noise = rng.normal(size=(3, n))
    p = special.softmax(np.stack([0 * x1, 0.7 * x1, -0.5 * x2], axis=1), axis=1)
    a = np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), 2)
    q = np.stack([x1, 0.5 + x2, 1 - 0.5 * x1], axis=1)
    rows = np.arange(n)
    return pd.DataFrame(
        {
            "x1": x1, "x2": x2, "action": np.array(["a", "b", "c"])[a], "p": p[rows, a],
            "reward": q[rows, a] + noise, "pick": np.where(x1 > 0, "b", "c"),
        }
    )  # fmt: skip


POLICY = 0.75 + 0.5 / math.sqrt(2 * math.pi)


def trial(n: int, rng: np.random.Generator, confounding: float | None) -> pd.DataFrame:
    """Rows of an experiment (None), or of a log whose hidden cause also moves the treatment."""
    x, hidden, noise, u = rng.normal(size=(4, n))
    chosen = u > 0 if confounding is None else x + confounding * hidden + u > 0
    y = chosen * (1 + 0.5 * x) + 2 * x + 0.5 * (x**2 - 1) + hidden + noise
    return pd.DataFrame({"y": y, "d": chosen.astype(int), "x": x})


def sparse(rng: np.random.Generator) -> pd.DataFrame:
    """The partially linear design of Chernozhukov et al. (2018) with 20 covariates, effect .5."""
    n, p = 500, 20
    x = rng.multivariate_normal(np.zeros(p), linalg.toeplitz(0.7 ** np.arange(p)), size=n)
    d = x[:, 0] + 0.25 * special.expit(x[:, 2]) + rng.normal(size=n)
    y = 0.5 * d + special.expit(x[:, 0]) + 0.25 * x[:, 2] + rng.normal(size=n)
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(p)]).assign(y=y, d=d)


def effects(rng: np.random.Generator, seed: int) -> Found:
    df = observational(500, rng)
    fit = partial(average_effect, df, outcome="y", treatment="d", rng=seed)
    xs = ["x1", "x2"]
    yield "aipw, ate", 1.0, fit(covariates=xs).effect()
    yield "aipw, att", ATT, fit(covariates=xs, estimand="att").effect()
    yield "ipw, ate", 1.0, fit(covariates=xs, method="ipw").effect()
    yield "ipw, att", ATT, fit(covariates=xs, method="ipw", estimand="att").effect()
    standard = fit(covariates=xs, method="regression", interact=xs, covariance="HC2")
    yield "standardised regression", 1.0, standard.effect()
    kinder = df.assign(y=df["y"] - 0.5 * df["x1"] * df["d"])  # the same effect for all rows
    plr = partial(average_effect, kinder, outcome="y", treatment="d", rng=seed, method="plr")
    yield "plr", 1.0, plr(covariates=xs).effect()
    yield "plr, 3 splits", 1.0, plr(covariates=xs, repeats=3).effect()


def clustered(rng: np.random.Generator, seed: int) -> Found:
    df = observational(600, rng, groups=60)
    fit = partial(average_effect, df, outcome="y", treatment="d", covariates=["x1", "x2"], rng=seed)
    yield "aipw, clusters", 1.0, fit(cluster="g").effect()


def slopes(rng: np.random.Generator, seed: int) -> Found:
    df = observational(500, rng)
    for method in ("linear", "dr"):
        found = heterogeneity(
            df, outcome="y", treatment="d", modifiers=["x1"], covariates=["x2"], method=method,
            rng=seed,
        )  # fmt: skip
        slope = found.to_frame().iloc[2]
        values = [slope[c] for c in ("estimate", "std_error", "conf_low", "conf_high")]
        yield f"slope of the effect, {method}", 0.5, Estimate(*map(float, values))


def policies(rng: np.random.Generator, seed: int) -> Found:
    df = logged(500, rng)
    value = partial(
        policy_value, df, action="action", reward="reward", policy="pick", covariates=["x1", "x2"],
        rng=seed,
    )  # fmt: skip
    for method in ("dr", "ips", "snips", "switch"):
        yield (
            f"policy, {method}, logged propensity",
            POLICY,
            value(method=method, propensity="p").effect(),
        )
    for method in ("dr", "ips", "snips", "direct"):
        yield f"policy, {method}, no propensity", POLICY, value(method=method).effect()


def fusion(rng: np.random.Generator, seed: int) -> Found:
    experiment = trial(200, rng, None)
    for confounding in (0.0, 1.0, 3.0):
        log = trial(4000, rng, confounding)
        found = fuse(
            experiment, log, outcome="y", treatment="d", covariates="x + I(x**2) + I(x**3)"
        )
        yield f"fused, confounding {confounding:g}", 1.0, found.effect()
        if not confounding:
            yield "experiment alone", 1.0, found.effect(term="experiment")
            yield "log, no confounding", 1.0, found.effect(term="log")
            yield "pooled, no confounding", 1.0, found.effect(term="pooled")


def lasso(rng: np.random.Generator, seed: int) -> Found:
    df = sparse(rng)
    covariates = [c for c in df if c.startswith("x")]
    yield "plr, sparse design, lasso", 0.5, average_effect(
        df, outcome="y", treatment="d", covariates=covariates, method="plr",
        nuisance=LassoCV(cv=3), rng=seed,
    ).effect()  # fmt: skip


SCENARIOS: dict[str, Callable[[np.random.Generator, int], Found]] = {
    "effects": effects, "clustered": clustered, "slopes": slopes, "policies": policies,
    "fusion": fusion, "lasso": lasso,
}  # fmt: skip


def summary(name: str, replications: int) -> pd.DataFrame:
    """Bias, error and coverage of all quantities of a scenario."""
    rows: list[dict[str, Any]] = []
    for i in range(replications):
        rng = np.random.default_rng([len(name), 11, i])
        for quantity, truth, e in SCENARIOS[name](rng, i):
            covered = e.conf_low <= truth <= e.conf_high
            rows.append(
                {"quantity": quantity, "truth": truth, "estimate": e.estimate,
                 "se": e.std_error, "covered": covered, "length": e.conf_high - e.conf_low}
            )  # fmt: skip
    by = pd.DataFrame(rows).groupby("quantity", sort=False)
    sd = by["estimate"].std()
    out = {
        "truth": by["truth"].first(),
        "mean_estimate": by["estimate"].mean(),
        "bias_in_sd": (by["estimate"].mean() - by["truth"].first()) / sd,
        "se_over_sd": by["se"].mean() / sd,
        "coverage": by["covered"].mean(),
        "mean_length": by["length"].mean(),
    }
    frame = pd.DataFrame(out).round(5)
    frame.insert(0, "scenario", name)
    frame.insert(1, "replications", replications)
    return frame.reset_index().set_index(["scenario", "quantity"])


# --------------------------------------------------------------------------- tests


@pytest.mark.parametrize("name", ["effects", "policies", "fusion"])
def test_coverage_in_a_few_samples(name: str) -> None:
    found = summary(name, 25)
    # Five of 25 missed has probability .001 at a level of .95.
    assert (found["coverage"] >= 0.8).all(), found
    assert (found["bias_in_sd"].abs() < 4 / math.sqrt(25)).all(), found
    assert found["se_over_sd"].between(0.6, 1.6).all(), found


def test_stored_coverage() -> None:
    found = pd.read_csv(RESULTS)
    assert set(found["scenario"]) == set(SCENARIOS)
    error = np.sqrt(0.05 * 0.95 / found["replications"])
    assert found["coverage"].between(0.93 - error, 0.97 + error).all(), found
    chance = 3 / np.sqrt(found["replications"])
    assert (found["bias_in_sd"].abs() < 0.05 + chance).all(), found
    # Weights by the inverse of small propensities have heavy tails, and so has the ratio.
    far = found["quantity"].eq("slope of the effect, dr") * 0.1
    assert ((found["se_over_sd"] - 1).abs() < 0.05 + far + chance / math.sqrt(2)).all(), found


def test_fusion_is_shorter_and_does_not_depend_on_confounding() -> None:
    found = pd.read_csv(RESULTS).set_index("quantity")
    fused = found.loc[[f"fused, confounding {c}" for c in (0, 1, 3)]]
    assert (fused["mean_length"] < 0.6 * found.loc["experiment alone", "mean_length"]).all()
    assert np.ptp(fused["coverage"]) < 0.015


def test_stored_lasso_design() -> None:
    """DoubleML reports coverage .945 and mean length .1748 for the same design."""
    found = pd.read_csv(RESULTS).set_index("quantity").loc["plr, sparse design, lasso"]
    assert abs(found["coverage"] - 0.945) < 2.5 * math.sqrt(
        0.95 * 0.05 * (1 / 1000 + 1 / found["replications"])
    )
    assert abs(found["mean_length"] - 0.1748) < 0.003


def test_lasso_design_in_a_few_samples() -> None:
    found = summary("lasso", 4).iloc[0]
    assert abs(found["mean_length"] - 0.1748) < 0.012
    assert abs(found["mean_estimate"] - 0.5) < 4 * found["mean_length"] / 3.92 / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_coverage(name: str) -> None:
    found = summary(name, 400)
    assert found["coverage"].between(0.92, 0.98).all(), found
    assert (found["bias_in_sd"].abs() < 0.2).all(), found


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for scenario in sys.argv[2:] or SCENARIOS:
        new = summary(scenario, count)
        if RESULTS.exists():
            old = pd.read_csv(RESULTS).set_index(["scenario", "quantity"])
            new = pd.concat([old.drop(scenario, level=0, errors="ignore"), new])
        new.to_csv(RESULTS)
