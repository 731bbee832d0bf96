"""Posteriors by numpyro's NUTS, from a likelihood written here by quadrature, without our kernels.

    python tests/reference/risk/posteriors.py [scenario ...]      # needs numpyro; minutes each

Writes posteriors.csv beside this file: mean and sd of every parameter with their Monte Carlo
standard errors, bulk effective sample size and R-hat over four chains.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jax.nn import log_sigmoid
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import MCMC, NUTS

sys.path.insert(0, str(Path(__file__).parent))
import scenarios

jax.config.update("jax_enable_x64", True)
STORE = Path(__file__).with_name("posteriors.csv")
WARMUP, DRAWS, CHAINS = 500, 1500, 4


def nodes(law: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in units of sigma and weights."""
    if law == "uniform":
        t, w = np.polynomial.legendre.leggauss(32)
        return 0.5 * (t + 1.0), 0.5 * w
    t = np.linspace(-7.0, 7.0, 71)
    w = np.exp(-0.5 * t**2)
    return t, w / w.sum()


def model(X, W, tested, y, law, se, target):
    t, w = (jnp.asarray(v) for v in nodes(law))
    p, q, sd = X.shape[1], W.shape[1], scenarios.PRIOR_SD
    g = numpyro.sample("g", dist.ImproperUniform(dist.constraints.real_vector, (), (p + q,)))
    v = numpyro.sample("v", dist.ImproperUniform(dist.constraints.real, (), ()))
    s = jnp.logaddexp(0.0, v)
    k = jnp.sqrt(1.0 + (0.0288 if law == "uniform" else 0.3456) * s**2)
    coefficients = (k * g).at[0].add(-0.5 * s if law == "uniform" else 0.0)
    numpyro.deterministic("theta", jnp.append(coefficients, s))
    numpyro.factor("jacobian", (p + q) * jnp.log(k) + log_sigmoid(v))
    numpyro.factor("prior", -0.5 * (coefficients @ coefficients + s**2) / sd**2)
    # sums of positive terms: x = e^{-r} and e = e^{-(r + d)} at every node
    x = jnp.exp(-(X @ coefficients[:p]))[:, None] * jnp.exp(-s * t)
    e = x * jnp.exp(-(W @ coefficients[p:]))[:, None]
    none, positive = ~tested[:, None], (y == 1)[:, None]
    top = jnp.where(none, e * (1.0 + x), jnp.where(positive, 1.0, x))
    numpyro.factor("rows", jnp.log((top / ((1.0 + x) * (1.0 + e))) @ w).sum())
    if se is not None:
        implied = ((1.0 / (1.0 + x)) @ w).mean()
        numpyro.factor("prevalence", -0.5 * ((implied - target) / se) ** 2)


def sample(name: str) -> pd.DataFrame:
    data = scenarios.arrays(name)
    p, q = data["X"].shape[1], data["W"].shape[1]
    law, se, target = data.pop("law"), data.pop("se"), data.pop("target")
    data["y"] = np.where(data["tested"], data["y"], 0.0)
    kernel = NUTS(
        lambda **rows: model(**rows, law=law, se=se, target=target),
        dense_mass=True, target_accept_prob=0.9,
        init_strategy=numpyro.infer.init_to_value(values={"g": np.zeros(p + q), "v": 1.0}),
    )  # fmt: skip
    mcmc = MCMC(
        kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS, chain_method="sequential",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.PRNGKey(17), **data, extra_fields=("diverging",))
    theta = np.asarray(mcmc.get_samples(group_by_chain=True)["theta"])
    mean, sd = theta.mean(axis=(0, 1)), theta.std(axis=(0, 1), ddof=1)
    ess = effective_sample_size(theta)
    ess_square = effective_sample_size((theta - mean) ** 2)
    names = [("risk", f"x{j}") for j in range(p)] + [("testing", f"x{j}") for j in range(q)]
    out = pd.DataFrame([*names, ("sigma", "sigma")], columns=["parameter", "term"])
    out.insert(0, "scenario", name)
    out["mean"], out["sd"] = mean, sd
    out["mcse_mean"] = sd / np.sqrt(ess)
    spread = ((theta - mean) ** 2).std(axis=(0, 1), ddof=1)
    out["mcse_sd"] = spread / np.sqrt(ess_square) / (2 * sd)
    out["ess"], out["r_hat"] = ess, gelman_rubin(theta)
    out["divergences"] = int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum())
    return out


def main() -> None:
    for name in sys.argv[1:] or list(scenarios.SCENARIOS):
        found = sample(name)
        print(name, found.round(3).to_string(), sep="\n", flush=True)
        if STORE.exists():
            old = pd.read_csv(STORE)
            found = pd.concat([old[old["scenario"] != name], found])
        found.to_csv(STORE, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
