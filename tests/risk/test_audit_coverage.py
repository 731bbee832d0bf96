"""Coverage of the audit's and the predictions' intervals: the stored table, and how to repeat it.

Running this file simulates 200 data sets, some minutes, and writes results/audit_coverage.csv:

    python -m tests.risk.test_audit_coverage
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit

import causalrm as crm
from causalrm.risk.audit import TERMS
from tests.risk.simulated import ROLES, selective

STORE = Path(__file__).with_name("results") / "audit_coverage.csv"
NODES = (np.arange(200) + 0.5) / 100  # of the unobservable, uniform between 0 and 2
SURVEY = 500
DATASETS = 200


def truths(frame: pd.DataFrame) -> dict[str, np.ndarray | dict[tuple[str, str], float]]:
    """What the design of `selective` implies for these rows, by sums over the unobservable."""
    a = (-2 + 0.08 * (frame["x"] - 50) + 0.5 * frame["z"]).to_numpy()
    d = (1 - 0.03 * (frame["x"] - 50) + 0.8 * (frame["g"] == "c")).to_numpy()
    r = a[:, None] + NODES
    sick, now = expit(r), expit(r + d[:, None])
    c = brentq(lambda c: (expit(r + c) - now).mean(), -10, 10)
    out: dict[tuple[str, str], float] = {}
    for group, rows in frame.groupby("g").groups.items():
        rates = now[rows].mean(), expit(r[rows] + c).mean()
        values = (*rates, rates[0] - rates[1], float(d[rows].mean() - c))
        out |= {(str(group), term): v for term, v in zip(TERMS, values, strict=True)}
    return {
        "audit": out, "marginal": sick.mean(axis=1),
        "tested": (sick * now).mean(axis=1) / now.mean(axis=1),
        "untested": (sick * (1 - now)).mean(axis=1) / (1 - now).mean(axis=1),
    }  # fmt: skip


def one(seed: int, n: int) -> list[dict[str, object]]:
    """Whether the intervals of one data set hold the truth, and by how many sds they miss."""
    frame = selective(n, 10_000 + seed)
    true = truths(frame)
    k = np.random.default_rng(seed).binomial(SURVEY, true["marginal"].mean())
    known = [crm.Prevalence(beta=(k + 1, SURVEY - k + 1)), crm.Expertise(free=["x", "g"])]
    model = crm.SelectiveLabelsModel("x + z + g", constraints=known, draws=512, method="grid")
    fit = model.fit(frame, **ROLES, group="g")
    audit = fit.audit(frame, draws=256)
    found = audit.to_frame().set_index(["group", "term"])
    expected = dict(true["audit"])
    gap = {("c", TERMS[3]): 1.0, ("a", TERMS[3]): -0.5, ("b", TERMS[3]): -0.5}
    contrast = audit.contrast(gap)
    found.loc[("c - (a + b)/2", TERMS[3]), ["estimate", "std_error", "conf_low", "conf_high"]] = [
        contrast.estimate, contrast.std_error, contrast.conf_low, contrast.conf_high
    ]  # fmt: skip
    expected["c - (a + b)/2", TERMS[3]] = 0.8
    out = []
    for key, value in expected.items():
        row = found.loc[key]
        out.append(
            {
                "quantity": f"{key[1]}, {key[0]}", "truth": value,
                "estimate": row["estimate"], "std_error": row["std_error"],
                "covered": float(row["conf_low"] <= value <= row["conf_high"]),
                "z": (row["estimate"] - value) / row["std_error"],
            }
        )  # fmt: skip
    for given in ("marginal", "tested", "untested"):
        table = fit.predict_risk(frame, given=None if given == "marginal" else given)
        value = true[given]
        hit = (table["conf_low"] <= value) & (value <= table["conf_high"])
        out.append(
            {
                "quantity": f"risk of a row, {given}", "truth": value.mean(),
                "estimate": table["estimate"].mean(), "std_error": table["std_error"].mean(),
                "covered": hit.mean(),
                "z": ((table["estimate"] - value) / table["std_error"]).mean(),
            }
        )  # fmt: skip
    return out


def study(datasets: int, n: int = 1000) -> pd.DataFrame:
    """Simulate data sets and summarise them."""
    return summarised([row for seed in range(datasets) for row in one(seed, n)], datasets, n)


def summarised(found: list[dict[str, object]], datasets: int, n: int) -> pd.DataFrame:
    """Coverage, mean error and mean width over data sets."""
    rows = pd.DataFrame(found)
    rows["error"] = rows["estimate"] - rows["truth"]
    grouped = rows.groupby("quantity", sort=False)
    out = grouped[["truth", "estimate", "error", "std_error", "covered", "z"]].mean()
    out["sd_of_estimates"] = grouped["error"].std()
    out["mcse_covered"] = grouped["covered"].std() / np.sqrt(datasets)
    return out.assign(n_datasets=datasets, n=n).reset_index()


def test_stored_intervals_cover() -> None:
    frame = pd.read_csv(STORE)
    assert (frame["n_datasets"] == DATASETS).all() and len(frame) == 16
    covers(frame)
    # what an interval of the fitted level could hide: the mean over data sets is right
    assert (frame["z"].abs() < 0.4).all()
    rates = frame[frame["quantity"].str.startswith("test rate")]
    assert (rates["error"].abs() < 0.006).all()


@pytest.mark.slow
def test_audit_covers() -> None:
    covers(study(DATASETS))


def covers(frame: pd.DataFrame) -> None:
    """Coverage at least 95 % but for its Monte Carlo error."""
    error = np.sqrt(0.95 * 0.05 / frame["n_datasets"])
    assert (frame["covered"] > 0.95 - 4 * error).all()


def main() -> None:
    STORE.parent.mkdir(exist_ok=True)
    found = study(DATASETS)
    print(found.round(4).to_string())
    found.to_csv(STORE, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
