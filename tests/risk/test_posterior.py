"""The draws in ArviZ's format, and ArviZ's functions on them."""

from __future__ import annotations

from typing import Any

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import causalrm as crm
from causalrm.risk import density
from tests.risk.simulated import ROLES, selective


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return selective(300, 2)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> Any:
    known = [crm.Prevalence(0.32, se=0.03), crm.Expertise(free=["x"])]
    return crm.SelectiveLabelsModel("x + z", constraints=known).fit(frame, **ROLES)


def test_equal_weights_keep_the_posterior(fit: Any) -> None:
    tree, table = fit.posterior_, fit.to_frame()
    assert tree is fit.posterior_
    posterior = tree["posterior"]
    assert posterior["risk"].shape == (4, 256, 3) and posterior["sigma"].shape == (4, 256)
    assert posterior["testing_term"].values.tolist() == ["Intercept", "x"]
    means = np.concatenate([
        posterior["risk"].mean(("chain", "draw")), posterior["testing"].mean(("chain", "draw")),
        [posterior["sigma"].mean()],
    ])  # fmt: skip
    assert (abs(means - table["estimate"]) < 0.12 * table["std_error"]).all()
    stats = tree["sample_stats"]
    assert set(stats) == {"importance_weight", "khat"}
    assert float(stats["khat"].max()) == pytest.approx(fit.result_.diagnostics["khat"])
    summary = az.summary(tree, ci_prob=0.95, ci_kind="eti", round_to="none")
    np.testing.assert_allclose(
        summary["mean"], table["estimate"], atol=0.12 * table["std_error"].max()
    )
    assert summary["r_hat"].max() < 1.02


def test_groups_on_request(fit: Any, frame: pd.DataFrame, tmp_path: Any) -> None:
    assert set(fit.posterior_.children) == {"posterior", "sample_stats"}
    tree = fit.extend_posterior(frame, log_likelihood=True, posterior_predictive=True, prior=True)
    assert tree is fit.posterior_
    assert {"log_likelihood", "posterior_predictive", "observed_data", "prior"} <= set(
        tree.children
    )
    # the sum over rows is the log-likelihood of the problem at the same draw
    own = fit._setup
    one = {k: tree["posterior"][k].values[1, 7] for k in ("risk", "testing", "sigma")}
    draw = np.concatenate([one["risk"], one["testing"], [one["sigma"]]])[None, :]
    expected, _ = density.log_likelihood(own.problem, own.standard(draw)[0])
    found = tree["log_likelihood"]["tested_outcome"].values[1, 7]
    assert found.shape == (300,) and found.sum() == pytest.approx(expected, rel=1e-9)
    loo = az.loo(tree)
    # about one effective parameter per coefficient
    assert 1 < loo.p < 8 and loo.good_k < 1 and (loo.pareto_k < 0.7).all()
    again = tree["posterior_predictive"]
    assert again["tested"].dtype == np.int8 and again["tested"].shape == (4, 256, 300)
    assert (again["positive"] <= again["tested"]).all()
    seen = tree["observed_data"]
    assert int(seen["tested"].sum()) == frame["tested"].sum()
    assert int(seen["positive"].sum()) == (frame["sick"] == 1).sum()
    share = again["tested"].mean(("chain", "row"))
    assert abs(float(share.mean()) - frame["tested"].mean()) < 0.03
    prior = tree["prior"]
    standard = own.risk.standard(prior["risk"].values.reshape(-1, 3))
    np.testing.assert_allclose(standard.std(axis=0), 3.0, rtol=0.1)
    assert float(prior["sigma"].min()) > 0
    az.plot_forest(tree, var_names=["risk", "sigma"])
    az.plot_dist(tree, var_names=["sigma"])
    plt.close("all")
    tree.to_zarr(tmp_path / "draws.zarr", consolidated=False)


def test_rows_are_needed_for_rows(fit: Any) -> None:
    with pytest.raises(crm.DataError, match="the rows of the fit as data"):
        fit.extend_posterior(log_likelihood=True)
