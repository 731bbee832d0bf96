"""The draws for ArviZ, with the groups that are large, and draws from the prior."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalrm.risk import _kernels as ker
from causalrm.risk.fitting import Setup
from causalrm.risk.predict import Draws, NewRows, simulate
from causalrm.risk.result import PosteriorResult, RiskResult, to_datatree

_CHAINS = 4  # into which the independent draws of a grid are dealt


def tree_of_draws(result: PosteriorResult, rng: np.random.Generator) -> Any:
    """Draws of a result as a DataTree of equal weights, one variable per parameter.

    Parameters
    ----------
    result : PosteriorResult
    rng : Generator
        For the resampling of weighted draws.
    """
    draws, n = result.draws, len(result.draws)
    stats: dict[str, np.ndarray] = {}
    chains = int(result.diagnostics.get("chains", _CHAINS))
    if result.weights is not None:
        edges = np.cumsum(result.weights / result.weights.sum())
        pick = np.searchsorted(edges, (np.arange(n) + rng.random(n)) / n * edges[-1])
        pick = rng.permutation(np.minimum(pick, n - 1))
        draws = draws[pick]
        khat = np.full(n, float(result.diagnostics["khat"]))
        stats = {"importance_weight": result.weights[pick], "khat": khat}
    length = n // chains
    keep = length * chains

    def dealt(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[:keep].reshape(chains, length, *x.shape[1:]))

    values: dict[str, np.ndarray] = {}
    coords: dict[str, list[str]] = {}
    dims: dict[str, list[str]] = {}
    for name in dict.fromkeys(result.parameter):
        at = [i for i, p in enumerate(result.parameter) if p == name]
        if name == "decider":
            values["decider_sd"], at = dealt(draws[:, at[0]]), at[1:]
        if [result.term[i] for i in at] == [name]:
            values[name] = dealt(draws[:, at[0]])
            continue
        dim = "decider_level" if name == "decider" else f"{name}_term"
        values[name], dims[name] = dealt(draws[:, at]), [dim]
        coords[dim] = [result.term[i] for i in at]
    return to_datatree(values, {k: dealt(v) for k, v in stats.items()}, coords, dims)


def _draws_of(tree: Any, result: RiskResult) -> Draws:
    """Flat draws of the posterior group, of equal weights."""
    found = tree["posterior"]

    def flat(name: str) -> np.ndarray:
        x = np.asarray(found[name].values)
        return x.reshape(-1, *x.shape[2:])

    sigma = flat("sigma")
    alpha = flat("alpha") if result.alpha is None else np.full(len(sigma), result.alpha)
    decider = flat("decider") if result.deciders else np.empty((len(sigma), 0))
    return Draws(
        flat("risk"), flat("testing"), sigma, alpha, decider, None, result.unobservable
    )  # fmt: skip


def row_log_likelihood(
    rows: NewRows, draws: Draws, tested: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Log-likelihood of test and outcome together, shape (S, n)."""
    code = ker.codes(tested, y)
    out = np.empty((len(draws), len(rows)))
    for span, block in rows.blocks():
        a, d = block.predictors(draws)
        for i, s in enumerate(draws.sigma):
            out[i, span] = ker.values(code[span], a[i], d[i], s, float(draws.alpha[i]), draws.law)
    return out


def extended(
    tree: Any,
    result: RiskResult,
    own: Setup | None,
    rows: NewRows | None,
    tested: np.ndarray | None,
    y: np.ndarray | None,
    log_likelihood: bool,
    predictive: bool,
    rng: np.random.Generator,
) -> Any:
    """Add groups to a tree; see `SelectiveLabelsModel.extend_posterior`."""
    import arviz as az

    out = tree.copy()
    draws = _draws_of(tree, result)
    shape = tree["posterior"]["sigma"].shape

    def add(group: str, values: dict[str, np.ndarray], dims: dict[str, list[str]]) -> None:
        coords = {k: v for k, v in _coords(tree).items() if any(k in own for own in dims.values())}
        out[group] = az.from_dict({group: values}, dims=dims, coords=coords)[group]

    if rows is not None and tested is not None and y is not None:
        if log_likelihood:
            found = row_log_likelihood(rows, draws, tested, y)
            add("log_likelihood", {"tested_outcome": found.reshape(*shape, -1)},
                {"tested_outcome": ["row"]})  # fmt: skip
        if predictive:
            pairs = [(t, t & o) for t, o in simulate(rows, draws, rng)]
            names = {"tested": ["row"], "positive": ["row"]}
            again = {
                name: np.array([pair[i] for pair in pairs], dtype=np.int8).reshape(*shape, -1)
                for i, name in enumerate(names)
            }
            add("posterior_predictive", again, names)
            seen = {"tested": tested.astype(np.int8), "positive": (tested & (y == 1)).astype("i1")}
            add("observed_data", seen, names)
    if own is not None:
        prior = prior_draws(result, own, len(draws), rng)
        values = {"risk": prior.risk, "testing": prior.testing, "sigma": prior.sigma}
        if result.alpha is None:
            values["alpha"] = prior.alpha
        if result.deciders:
            values["decider"] = prior.decider
        dims = {"risk": ["risk_term"], "testing": ["testing_term"], "decider": ["decider_level"]}
        add(
            "prior", {k: v.reshape(*shape, *v.shape[1:]) for k, v in values.items()},
            {k: v for k, v in dims.items() if k in values},
        )  # fmt: skip
    return out


def _coords(tree: Any) -> dict[str, list[Any]]:
    found = tree["posterior"].coords
    return {name: found[name].values.tolist() for name in found if name not in ("chain", "draw")}


def prior_draws(result: RiskResult, own: Setup, n: int, rng: np.random.Generator) -> Draws:
    """Draws from the priors, without constraints on the prevalence."""
    problem = own.problem
    sigma = np.abs(rng.normal(0.0, problem.sigma_sd, n))
    alpha = np.full(n, 1.0 if result.alpha is None else result.alpha)
    if result.alpha is None:
        alpha = np.abs(rng.normal(0.0, problem.alpha_sd, n))
    spread = np.abs(rng.normal(0.0, problem.decider_sd, n))
    return Draws(
        own.risk.raw(rng.normal(size=(n, problem.p)) * problem.risk_sd),
        own.testing.raw(rng.normal(size=(n, problem.q)) * problem.testing_sd),
        sigma, alpha, rng.normal(size=(n, problem.n_deciders)) * spread[:, None], None,
        result.unobservable,
    )  # fmt: skip
