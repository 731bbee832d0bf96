"""From checked rows and options to a posterior: constraints, priors, draws, diagnostics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causalrm.core.blocks import Block
from causalrm.core.column import look_at, refuse
from causalrm.core.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.frame import Source
from causalrm.core.inference import condition_number
from causalrm.core.random import seed_int
from causalrm.risk import _kernels as ker
from causalrm.risk.constraints import Expertise, Prevalence, Target
from causalrm.risk.grid import fit_grid
from causalrm.risk.problem import PrevalenceTerm, Problem
from causalrm.risk.result import frame_of, summarise
from causalrm.risk.rows import Roles, Sample, Scaling
from causalrm.risk.separation import look_for_separation, warn_of_separation

PRIORS = {"risk": 3.0, "testing": 3.0, "sigma": 3.0, "alpha": 3.0, "decider": 1.0}
_CHUNK = 16  # draws that share one pass over the rows
_SLACK = 4.0  # standard errors by which a prevalence may leave the range that the data allow


class Known(NamedTuple):
    """A prevalence target with its name for tables."""

    label: str
    target: Target
    sd: float


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that the engines need, and the way back to the scale of the columns.

    Attributes
    ----------
    problem : Problem
        With standardised columns.
    risk, testing : Scaling
    free : ndarray of bool
        Columns of the testing design with a coefficient.
    known : list of Known
        One per term of ``problem.prevalence``.
    deciders : tuple
        Their levels.
    unbounded : tuple of (str, str)
        Coefficients that ordinary regressions cannot bound; see `causalrm.risk.separation`.
    """

    problem: Problem
    risk: Scaling
    testing: Scaling
    free: np.ndarray
    known: list[Known]
    deciders: tuple[Any, ...]
    unbounded: tuple[tuple[str, str], ...] = ()

    def raw(self, theta: np.ndarray) -> np.ndarray:
        """Draws on the scale of the columns, from those of the standardised ones."""
        p, n = self.problem.p, self.problem.p + self.problem.q
        parts = (self.risk.raw(theta[:, :p]), self.testing.raw(theta[:, p:n]), theta[:, n:])
        return np.hstack(parts)

    def standard(self, draws: np.ndarray) -> np.ndarray:
        """The way back."""
        p, n = self.problem.p, self.problem.p + self.problem.q
        parts = (
            self.risk.standard(draws[:, :p]), self.testing.standard(draws[:, p:n]), draws[:, n:],
        )  # fmt: skip
        return np.hstack(parts)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws on the scale of the columns, and how well they were made.

    Attributes
    ----------
    draws : ndarray of shape (S, k)
    weights : ndarray of shape (S,), optional
    ess_bulk, r_hat : ndarray of shape (k,)
    method : str
    diagnostics : dict
    tree : xarray.DataTree, optional
        Of NUTS.
    """

    draws: np.ndarray
    weights: np.ndarray | None
    ess_bulk: np.ndarray
    r_hat: np.ndarray
    method: str
    diagnostics: dict[str, Any]
    tree: Any = None


# ------------------------------------------------------------------------- specification


def prior_sds(priors: Mapping[str, Any] | None, terms: Mapping[str, Sequence[str]]) -> Any:
    """Check the priors and spread them over the terms: a dict of arrays and numbers."""
    given = {} if priors is None else priors
    if not isinstance(given, Mapping) or set(given) - set(PRIORS):
        raise DataError(
            f"Expected priors as a dict from {sorted(PRIORS)} to a standard deviation, but saw "
            f"{priors!r}. Correct the names."
        )
    out: dict[str, Any] = {}
    for name, usual in PRIORS.items():
        own = given.get(name, usual)
        if isinstance(own, Mapping):
            known = terms.get(name, ())
            unknown = [term for term in own if term not in known]
            if unknown:
                raise DataError(
                    f"Expected priors of {name} for its terms {list(known)}, but saw {unknown}. "
                    "Correct the names, or give one number."
                )
            values = [own.get(term, usual) for term in known]
        else:
            values = [own] * max(len(terms.get(name, ())), 1)
        for x in values:
            if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 < x < math.inf:
                raise DataError(
                    f"Expected the prior of {name} as a standard deviation above 0, but saw {x!r}."
                    " Correct it."
                )
        out[name] = np.array(values, dtype=float) if name in terms else float(values[0])
    return out


def levels_of(source: Source, name: str, role: str) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Codes and levels of a column that labels groups; numbers are labels too."""
    source.want([name], role)
    look = look_at(name, source.frame[name], ["categories"])
    refuse(name, look, False, source.index)
    levels = look.column(name).levels or ()
    return look.codes(levels), levels


def _known(
    item: Prevalence, sample: Sample, source: Source, log: list[str]
) -> list[tuple[Known, PrevalenceTerm]]:
    """The terms of one constraint, checked against the rows."""
    base = sample.weights
    if item.weights is not None:
        base = base * sample.columns[item.weights]
    codes, levels = np.zeros(len(base), dtype=int), (None,)
    if item.by is not None:
        codes, levels = levels_of(source, item.by, "a prevalence by group")
    out = []
    for target in item.targets():
        if target.level not in levels:
            raise DataError(
                f"Expected a prevalence for levels of column {item.by!r}, but {target.level!r} is "
                f"not among {list(levels)[:20]}. Correct it."
            )
        w = base * (codes == levels.index(target.level))
        w = w / w.sum()
        where = "" if item.by is None else f" ({item.by} = {target.level})"
        v = target.value
        if not 0 < v < 1:
            raise DataError(
                f"Expected a prevalence{where} between 0 and 1, but saw {v!r}. Give a share, not "
                "a percentage or a count."
            )
        binomial = math.sqrt(v * (1 - v) * float(w @ w))
        sd = target.se if target.se is not None else binomial
        if target.beta is not None:
            sd = math.sqrt(v * (1 - v) / (sum(target.beta) + 1))
        if item.hard:
            sd = 0.0
        low = float(w[sample.tested] @ sample.y[sample.tested])
        high = 1.0 - float(w[sample.tested] @ (1 - sample.y[sample.tested]))
        slack = _SLACK * max(sd, binomial)
        if not low - slack <= v <= high + slack:
            raise DataError(
                f"Expected a prevalence{where} that the outcomes of the tested allow, which is "
                f"between {low:.4g} (all untested negative) and {high:.4g} (all positive), but "
                f"saw {v:.4g}. Check the value, its unit, and the population it belongs to."
            )
        if target.se is not None and target.se < 0.99 * binomial:
            warn(
                f"The standard error {target.se:.3g} of the prevalence{where} is below the "
                f"binomial standard error of the sample, {binomial:.3g}: it claims to know the "
                "share of these very rows. Intervals will be too narrow if the prevalence is that "
                "of a population; leave se out for the binomial one.",
                IdentificationWarning,
                log,
            )
        label = where if item.weights is None else f"{where} (weights {item.weights})"
        a, b = target.beta or (None, None)
        term = PrevalenceTerm(w, v, None if item.hard or target.beta else sd, a, b, item.hard)
        out.append((Known(label, target, sd), term))
    return out


def setup(
    sample: Sample,
    source: Source,
    roles: Roles,
    prevalences: Sequence[Prevalence],
    expertise: Expertise | None,
    priors: Mapping[str, Any] | None,
    unobservable: str,
    alpha: float | None,
    log: list[str],
) -> Setup:
    """Put rows, constraints and priors together; duplicate rows are collapsed."""
    masked = np.zeros(len(sample.testing), dtype=bool)
    if expertise is not None:
        masked = expertise.masked(sample.testing)
    soft = None if expertise is None else expertise.soft
    free = ~masked if soft is None else np.ones(len(masked), dtype=bool)
    names = {
        "risk": sample.risk.terms,
        "testing": tuple(t for t, keep in zip(sample.testing.terms, free, strict=True) if keep),
    }
    sds = prior_sds(priors, names)
    if soft is not None:
        sds["testing"] = np.where(masked, soft, sds["testing"])
    known, terms = [], []
    for item in prevalences:
        for one, term in _known(item, sample, source, log):
            known.append(one)
            terms.append(term)
    risk = Scaling.of(sample.x, sample.weights)
    testing = Scaling.of(sample.w[:, free], sample.weights)
    x, w = risk.columns(sample.x), testing.columns(sample.w[:, free])
    unbounded = look_for_separation(sample, x, w, free, roles)
    options: dict[str, Any] = {}
    deciders: tuple[Any, ...] = ()
    if roles.decider is not None:
        codes, deciders = levels_of(source, roles.decider, "the decider")
        if len(deciders) < 2:
            raise IdentificationError(
                f"Expected several deciders in column {roles.decider!r}, but all rows have "
                f"{deciders[0]!r}. Leave decider out."
            )
        options = {
            "deciders": codes.astype(np.int64), "n_deciders": len(deciders),
            "decider_terms": tuple(map(str, deciders)),
        }  # fmt: skip
    problem = Problem.from_rows(
        x, w, sample.tested, sample.y, sample.weights,
        risk_sd=sds["risk"], testing_sd=sds["testing"], sigma_sd=sds["sigma"],
        alpha_sd=sds["alpha"], decider_sd=sds["decider"], unobservable=unobservable, alpha=alpha,
        prevalence=tuple(terms), risk_terms=names["risk"], testing_terms=names["testing"],
        **options,
    )  # fmt: skip
    return Setup(problem, risk, testing, free, known, deciders, unbounded)


# ------------------------------------------------------------------------- draws


def draw(
    own: Setup, method: str, n_draws: int, nuts: Mapping[str, Any], rng: np.random.Generator,
    log: list[str],
) -> Posterior:  # fmt: skip
    """Draw from the posterior with the engine asked for."""
    problem = own.problem
    reasons = [
        text
        for text, there in (
            ("alpha is inferred", problem.alpha is None),
            ("deciders have effects", problem.deciders is not None),
        )
        if there
    ]
    if reasons and method == "grid":
        raise DataError(
            f"Expected a model that the sigma grid supports, but {' and '.join(reasons)}. Set "
            "method='auto' or 'nuts'."
        )
    if reasons and method == "auto":
        warn(
            f"Because {' and '.join(reasons)}, NUTS draws from the posterior, which takes longer "
            "than the sigma grid; method='nuts' says so without a warning.",
            log=log,
        )
    if method != "nuts" and not reasons:
        found = fit_grid(problem, n_draws, rng)
        if found.ok:
            return _of_grid(own, found)
        if method == "grid":
            raise ConvergenceError(
                f"Expected the sigma grid to pass its checks, but {found.reason}. Set "
                "method='auto' or 'nuts'."
            )
        warn(
            f"The sigma grid did not pass its checks ({found.reason}); NUTS draws from the same "
            "posterior instead, which takes longer.",
            ConvergenceWarning,
            log,
        )
    return _of_nuts(own, nuts, rng, log)


def _of_grid(own: Setup, found: Any) -> Posterior:
    weights = np.exp(found.log_weights - found.log_weights.max())
    k = found.theta.shape[1]
    diagnostics = {
        "khat": float(found.khat), "importance_ess": float(found.ess), "grid": dict(found.checks),
    }  # fmt: skip
    return Posterior(
        own.raw(found.theta), weights / weights.sum(), np.full(k, float(found.ess)),
        np.full(k, math.nan), "grid", diagnostics,
    )  # fmt: skip


def _of_nuts(
    own: Setup, options: Mapping[str, Any], rng: np.random.Generator, log: list[str]
) -> Posterior:
    from arviz_stats.base import array_stats

    from causalrm.risk.pymc_model import build, sample

    model = build(own.problem, own.risk, own.testing)
    tree, sampler = sample(model, seed_int(rng), options)
    names = ["risk", "testing", "sigma", "alpha", "decider_sd", "decider"]
    found = tree["posterior"]
    parts = [np.asarray(found[name].values) for name in names if name in found]
    chains = np.concatenate([p[..., None] if p.ndim == 2 else p for p in parts], axis=-1)
    axes = {"chain_axis": 0, "draw_axis": 1}
    bulk = np.asarray(array_stats.ess(chains, method="bulk", **axes))
    tail = np.asarray(array_stats.ess(chains, method="tail", prob=(0.05, 0.95), **axes))
    r_hat = np.asarray(array_stats.rhat(chains, **axes))
    divergences = int(tree["sample_stats"]["diverging"].sum())
    diagnostics = {
        "sampler": sampler, "chains": chains.shape[0], "max_r_hat": float(r_hat.max()),
        "min_ess_bulk": float(bulk.min()), "min_ess_tail": float(tail.min()),
        "divergences": divergences,
    }  # fmt: skip
    if r_hat.max() > 1.01 or bulk.min() < 100 * chains.shape[0] or divergences:
        warn(
            f"The chains of NUTS have R-hat up to {r_hat.max():.3f}, a bulk ESS down to "
            f"{bulk.min():.0f} and {divergences} divergences. Give nuts={{'tune': 2000, 'draws': "
            "2000, 'target_accept': 0.95}, tighten the priors, or add a constraint.",
            ConvergenceWarning,
            log,
        )
    flat = chains.reshape(-1, chains.shape[-1])
    return Posterior(flat, None, bulk, r_hat, "nuts", diagnostics, tree)


def warn_of_priors(own: Setup, found: Posterior, log: list[str]) -> None:
    """Say which coefficients the prior alone decides on one side."""
    if own.unbounded:
        problem = own.problem
        theta = own.standard(found.draws)[:, : problem.p + problem.q]
        _, sd, _, _ = summarise(theta.T, found.weights, 0.95)
        prior = np.concatenate([problem.risk_sd, problem.testing_sd])
        warn_of_separation(own.unbounded, problem.labels(), sd, prior, log)


# ------------------------------------------------------------------------- implied prevalence


def _implied_block(block: Block, betas: np.ndarray, sigmas: np.ndarray, law: str) -> Any:
    a = betas @ block["X"].T
    m = np.array([ker.risk(row, s, law)[0] for row, s in zip(a, sigmas, strict=True)])
    own = block.get("prevalence")
    return m @ block["counts"], np.empty((len(m), 0)) if own is None else m @ own


def implied_by_draw(own: Setup, draws: np.ndarray) -> np.ndarray:
    """Implied prevalence of the sample and of each target, by draw; shape (S, 1 + targets)."""
    problem, out = own.problem, []
    theta = own.standard(draws)
    place = problem.p + problem.q
    for start in range(0, len(theta), _CHUNK):
        some = theta[start : start + _CHUNK]
        first, rest = problem.rows.total(
            _implied_block, some[:, : problem.p], some[:, place], problem.unobservable
        )
        out.append(np.column_stack([first / problem.counts.sum(), rest]))
    return np.concatenate(out)


def prevalence_frame(own: Setup, found: np.ndarray, weights: np.ndarray | None) -> pd.DataFrame:
    """Implied prevalence against target, one row for the sample and one per target."""
    frame = frame_of(found.T, weights, 0.95)
    frame.insert(0, "label", ["", *(k.label for k in own.known)])
    frame["target"] = [math.nan, *(k.target.value for k in own.known)]
    frame["se"] = [math.nan, *(k.sd for k in own.known)]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (frame["estimate"] - frame["target"]) / frame["se"]
    frame["z"] = z.where(frame["se"] > 0)
    if len(own.known) == 1 and own.known[0].label == "":  # the sample is the population
        frame = frame.iloc[1:].reset_index(drop=True)
    return frame


def shape_of(own: Setup, draws: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    """Condition number of the posterior, and how much it narrowed the priors."""
    problem = own.problem
    theta = own.standard(draws)[:, : problem.p + problem.q + 1 + (problem.alpha is None)]
    cov = np.atleast_2d(np.cov(theta.T, aweights=weights))
    at = {"sigma": problem.p + problem.q, "risk intercept": 0, "testing intercept": problem.p}
    half = 1.0 - 2.0 / math.pi
    prior = {
        "sigma": problem.sigma_sd**2 * half, "risk intercept": float(problem.risk_sd[0] ** 2),
        "testing intercept": float(problem.testing_sd[0] ** 2),
    }  # fmt: skip
    if problem.alpha is None:
        at["alpha"], prior["alpha"] = problem.p + problem.q + 1, problem.alpha_sd**2 * half
    moving = np.diag(cov) > 0
    return {
        "condition_number": condition_number(cov[np.ix_(moving, moving)])[0],
        "contraction": {name: 1.0 - float(cov[i, i]) / prior[name] for name, i in at.items()},
    }


def moved(term: PrevalenceTerm, target: float) -> PrevalenceTerm:
    """The same knowledge about another prevalence: same se, or same size of the Beta."""
    if term.a is not None and term.b is not None:
        size = term.a + term.b
        return replace(term, target=target, a=target * size, b=(1 - target) * size)
    return replace(term, target=target)
