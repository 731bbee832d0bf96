"""Heckman's selection model, Bayesian, with what is known besides the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from causalrm.core.column import Look, refuse_tiny
from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.estimator import Estimator
from causalrm.core.frame import check
from causalrm.core.linear import Predictors, dependent_columns
from causalrm.core.random import RNG, resolve
from causalrm.core.result import check_level
from causalrm.risk.constraints import Expertise, Prevalence, split_constraints
from causalrm.risk.heckman_classical import Classical, first_step, maximum_likelihood, two_step
from causalrm.risk.heckman_evidence import Evidence, look
from causalrm.risk.heckman_problem import HeckmanLikelihood, HeckmanProblem
from causalrm.risk.heckman_result import HeckmanResult, mean_outcome
from causalrm.risk.heckman_sampling import (
    HeckmanDraws,
    pymc_model,
    sample_grid,
    sample_nuts,
    whitening,
)
from causalrm.risk.heckman_setup import (
    HeckmanSample,
    KnownMean,
    known_means,
    posterior_of,
    starting_point,
)
from causalrm.risk.result import frame_of, to_datatree
from causalrm.risk.rows import in_memory, read_outcome

Formula = str | Sequence[str]
PRIORS = {"outcome": 3.0, "selection": 3.0, "sigma": 3.0, "covariance": 3.0}
_SIGNS = {"any": 0, "positive": 1, "negative": -1}


class HeckmanModel(Estimator):
    r"""Regression for an outcome that is seen only for those selected, such as wages of workers.

    .. math::

        Y = x^\top\beta + Z, \qquad T = 1[\,w^\top\gamma + u > 0\,], \qquad
        (Z, u) \sim N\!\left(0, \begin{pmatrix} \sigma^2 & \rho\sigma \\ \rho\sigma & 1
        \end{pmatrix}\right),

    and Y is seen where T = 1. The latent pair is integrated out exactly. What is known besides the
    rows enters as constraints: the mean of the outcome in the population, or that selection
    depends on covariates through the outcome alone.

    Parameters
    ----------
    outcome, selection : str or list of str
        Formulas. A term of `selection` that `outcome` lacks (an exclusion restriction) is what
        identifies rho; without one, and without a constraint, only the normal shape does.
    constraints : list of Prevalence and Expertise, optional
        ``Prevalence(value, se)`` is the mean of the outcome in the population. Under
        `Expertise` the selection coefficient of a covariate that is not free is
        :math:`\beta_j\rho/\sigma`: the covariate moves selection through the outcome alone.
    priors : dict, optional
        Standard deviations of the priors: "outcome" and "selection" of the normal priors of the
        coefficients, "sigma" of a half-normal, "covariance" of the (half-)normal prior of
        :math:`\rho\sigma`; 3 each. They are counted in standard deviations of the outcome (1 for
        selection) per standard deviation of a column; 0/1 columns are left as they are, and
        intercepts stand for the mean row.
    sign : {"any", "positive", "negative"}, default "any"
        What is known of the sign of rho.
    method : {"auto", "grid", "nuts"}, default "auto"
        "grid" draws rho on a grid and the rest given rho, with importance weights; "auto" falls
        back to "nuts" (PyMC), with a warning, where these weights are not good enough.
    draws : int, default 2048
        Draws of the grid, best a power of 2. NUTS makes 4 chains of 1,000 draws.
    rng : int, SeedSequence, Generator or None, default 0

    Attributes
    ----------
    result_ : HeckmanResult
    posterior_ : arviz DataTree
        Draws of outcome, selection, sigma and rho, with sample stats.
    model_ : pymc.Model
        The same posterior, to inspect or extend; built when it is first asked for.

    See Also
    --------
    causalrm.SelectiveLabelsModel : The same question for a binary outcome.

    References
    ----------
    Heckman (1979), Sample selection bias as a specification error, Econometrica 47(1), 153-161,
    doi 10.2307/1912352. Balachandar, Garg, Pierson (2024), Domain constraints improve risk
    prediction when outcome data is missing, arXiv 2312.03878.

    Examples
    --------
    Log wages of married women, seen for those who work; the family's other income moves work:

    >>> import causalrm as crm
    >>> df = crm.datasets.load_mroz()
    >>> fit = crm.HeckmanModel("age + wc", "age + wc + k5 + inc", draws=512)
    >>> fit = fit.fit(df, selected="lfp", outcome="lwg")
    >>> fit.to_frame().loc[2, ["parameter", "term"]].tolist()
    ['outcome', 'wc']
    """

    result_: HeckmanResult

    def __init__(
        self,
        outcome: Formula,
        selection: Formula,
        constraints: Sequence[Prevalence | Expertise] | None = None,
        priors: dict[str, float] | None = None,
        sign: str = "any",
        method: str = "auto",
        draws: int = 2048,
        rng: RNG = 0,
    ):
        self.outcome = outcome
        self.selection = selection
        self.constraints = constraints
        self.priors = priors
        self.sign = sign
        self.method = method
        self.draws = draws
        self.rng = rng

    # ------------------------------------------------------------------ fitting

    def fit(self, data: Any, *, selected: str, outcome: str, weights: str | None = None) -> Self:
        """Draw from the posterior.

        Parameters
        ----------
        data : data frame
            pandas, polars or pyarrow, one row per unit.
        selected : str
            Column of 1 (outcome seen) and 0.
        outcome : str
            Numeric column; it is read on selected rows only, and missing elsewhere as a rule.
        weights : str, optional
            Column of sampling weights; only their ratios matter.

        Returns
        -------
        HeckmanModel
            Itself, with `result_` and `posterior_`.

        Raises
        ------
        DataError
            When a column or an option is not what it must be.
        IdentificationError
            When nobody or everybody is selected, covariates decide selection exactly, or columns
            are dependent.
        ConvergenceError
            When ``method="grid"`` and its draws do not pass the checks.
        """
        log: list[str] = []
        priors = self._check_options()
        prevalences, expertise = split_constraints(self.constraints)
        generator, entropy = resolve(self.rng)
        sample = self._read(data, selected, outcome, weights, prevalences)
        likelihood = sample.likelihood
        start, information, independent = first_step(likelihood)
        two = two_step(likelihood, start, information)
        starts = [likelihood.predictors.transform() @ start, two.theta]
        ml = maximum_likelihood(likelihood, starts)
        known = known_means(sample, prevalences, log)
        problem = posterior_of(sample, priors, known, expertise, _SIGNS[self.sign])
        best = ml.theta if np.isfinite(ml.estimates).all() else two.theta
        begin = starting_point(problem, best)
        found, method = self._draw(problem, begin, generator, log)
        self._problem, self._start = problem, begin
        self.posterior_ = self._posterior(problem, found)
        evidence = look(
            problem, ml, two.theta, problem.coefficients(found.u[0]).mean(axis=0), independent
        )
        for text in evidence.warnings:
            warn(text, IdentificationWarning, log)
        self.result_ = self._result(
            sample, problem, found, method, known, ml, two, evidence, expertise,
            {"selected": selected, "outcome": outcome, "weights": weights}, log, entropy,
        )  # fmt: skip
        return self

    def _check_options(self) -> dict[str, float]:
        if self.sign not in _SIGNS:
            raise DataError(f"Expected sign to be one of {list(_SIGNS)}, but saw {self.sign!r}.")
        if self.method not in ("auto", "grid", "nuts"):
            raise DataError(
                f"Expected method to be 'auto', 'grid' or 'nuts', but saw {self.method!r}."
            )
        if not isinstance(self.draws, (int, np.integer)) or self.draws < 100:
            raise DataError(f"Expected at least 100 draws, but saw {self.draws!r}. Give more.")
        given = dict(self.priors or {})
        wrong = [k for k, v in given.items() if k not in PRIORS or not 0 < v < math.inf]
        if wrong:
            raise DataError(
                f"Expected priors for some of {list(PRIORS)}, each a standard deviation above 0, "
                f"but saw { ({k: given[k] for k in wrong})!r}. Correct these."
            )
        return PRIORS | given

    def _read(
        self, data: Any, selected: str, outcome: str, weights: str | None,
        prevalences: tuple[Prevalence, ...],
    ) -> HeckmanSample:  # fmt: skip
        in_memory(data)
        formulas = {
            "outcome": formula_text(self.outcome, "outcome"),
            "selection": formula_text(self.selection, "selection"),
        }
        others = [weights, *(p.weights for p in prevalences)]
        positive = list(dict.fromkeys(name for name in others if name is not None))
        source, rows, designs, _ = prepare(data, formulas, numbers=[selected, *positive])
        check(
            rows, [selected], lambda t: (t != 0) & (t != 1), "1 (outcome seen) or 0",
            "Recode the column, for example with df[column] == value.", source.index,
        )  # fmt: skip
        for name in positive:
            check(
                rows, [name], lambda w: ~(w >= 0), "weights of at least 0",
                "Drop these rows or correct the weights.", source.index,
            )  # fmt: skip
        for name in positive:
            if not rows.columns[name].sum() > 0:
                raise DataError(
                    f"Expected positive weights in column {name!r}, but all {rows.n_obs} are 0. "
                    "Give at least some rows a weight."
                )
        seen = rows.columns[selected] == 1
        n, n_seen = rows.n_obs, int(seen.sum())
        if n_seen in (0, n):
            raise IdentificationError(
                f"Expected rows of both kinds in column {selected!r}, but {n_seen} of {n} are "
                "selected. With none there is no outcome; with all, use least squares."
            )
        y = read_outcome(source, outcome, seen, selected, binary=False)
        refuse_tiny(outcome, Look(n_seen, y[seen], low=y[seen].min(), high=y[seen].max()))
        for role, design in designs.items():
            if not design.has_intercept:
                raise DataError(
                    f"Expected an intercept in the formula of {role}, but {design.formula!r} has "
                    "none. Remove the 0 or -1."
                )
        predictors = Predictors([designs["outcome"], designs["selection"], None, None], [False] * 4)
        predictors.standardise(rows, ["outcome", "selection", "sigma", "rho"])
        rows.columns[outcome] = np.where(seen, y, 0.0)
        w = rows.columns[weights].astype(float) if weights else np.ones(n)
        x = {role: design.encode(rows.columns, n).T for role, design in designs.items()}
        held = x["outcome"][seen & (w > 0)]
        dependent = dependent_columns(held.T @ held)
        if dependent is not None:
            names = [designs["outcome"].terms[j] for j in dependent]
            raise IdentificationError(
                f"Expected columns of the outcome formula that vary among the {len(held)} selected "
                f"rows, but there {names} are constant or dependent. Merge levels that are never "
                "selected, or remove a term."
            )
        return HeckmanSample(
            source,
            HeckmanLikelihood(rows, predictors, outcome, selected, weights, float(w.mean())),
            designs, x["outcome"], x["selection"], y, seen, w / w.mean(),
        )  # fmt: skip

    def _draw(
        self, problem: HeckmanProblem, start: np.ndarray, rng: np.random.Generator, log: list[str]
    ) -> tuple[HeckmanDraws, str]:
        if self.method != "nuts":
            found = sample_grid(problem, start, int(self.draws), rng)
            if not found.reason:
                return found, "grid"
            if self.method == "grid":
                raise ConvergenceError(
                    f"Expected draws that can be trusted from method='grid', but {found.reason}. "
                    "Use method='auto' or 'nuts', or tighter priors."
                )
            warn(
                f"The grid is not good enough here ({found.reason}); PyMC's NUTS draws instead.",
                ConvergenceWarning, log,
            )  # fmt: skip
        found = sample_nuts(problem, self._terms(problem), start, rng)
        if found.checks["max_r_hat"] > 1.01 or found.checks["divergences"]:
            warn(
                f"NUTS ended with R-hat {found.checks['max_r_hat']:.3f} and "
                f"{found.checks['divergences']} divergences: the draws may miss a part of the "
                "posterior. Give tighter priors, a sign of rho, or a constraint.",
                ConvergenceWarning, log,
            )  # fmt: skip
        return found, "nuts"

    @staticmethod
    def _terms(problem: HeckmanProblem) -> dict[str, list[str]]:
        outcome, selection = problem.likelihood.terms
        return {"outcome_term": outcome, "selection_term": selection}

    def _posterior(self, problem: HeckmanProblem, found: HeckmanDraws) -> Any:
        theta = problem.coefficients(found.u)
        p = problem.p
        return to_datatree(
            {
                "outcome": theta[..., :p], "selection": theta[..., p:-2],
                "sigma": np.exp(theta[..., -2]), "rho": np.tanh(theta[..., -1]),
            },
            found.stats, self._terms(problem),
            {"outcome": ["outcome_term"], "selection": ["selection_term"]},
        )  # fmt: skip

    @property
    def model_(self) -> Any:
        """The posterior as a PyMC model."""
        self._check_native()
        if not hasattr(self, "_problem"):
            raise DataError("Expected a fit in this session for its PyMC model. Call fit.")
        problem, start = self._problem, self._start
        return pymc_model(problem, self._terms(problem), whitening(problem, start))

    def _result(
        self, sample: HeckmanSample, problem: HeckmanProblem, found: HeckmanDraws, method: str,
        known: list[KnownMean], ml: Classical, two: Classical, evidence: Evidence,
        expertise: Expertise | None, roles: dict[str, Any], log: list[str], entropy: int,
    ) -> HeckmanResult:  # fmt: skip
        theta = problem.coefficients(found.u).reshape(-1, problem.likelihood.n_params)
        draws = np.column_stack([theta[:, :-2], np.exp(theta[:, -2]), np.tanh(theta[:, -1])])
        terms = [*problem.likelihood.terms[0], *problem.likelihood.terms[1]]
        p, q = problem.p, len(terms) - problem.p
        means = np.array([k.row for k in known]).reshape(-1, p)
        means = np.vstack([np.average(sample.x, axis=0, weights=sample.weights), means])
        implied = draws[:, :p] @ means.T
        unconstrained, spread = ml.theta[:p] @ means.T, np.full(len(means), math.nan)
        if ml.covariance is not None:
            spread = np.sqrt(((means @ ml.covariance[:p, :p]) * means).sum(axis=1))
        prevalence = frame_of(implied.T, None, 0.95).assign(
            label=["", *(k.label for k in known)],
            target=[math.nan, *(k.value for k in known)],
            se=[math.nan, *(k.se for k in known)],
            ml=unconstrained,
            ml_std_error=spread,
        )
        if found.u.shape[0] > 1:
            ess, r_hat = _chain_checks(self.posterior_)
        else:
            ess = np.full(draws.shape[1], found.checks["importance_ess"])
            r_hat = np.full(draws.shape[1], math.nan)
        seen_mean = float(np.average(sample.y[sample.selected],
                                     weights=sample.weights[sample.selected]))  # fmt: skip
        return HeckmanResult(
            call=self._call(roles),
            n_obs=len(sample.y),
            entropy=entropy,
            warnings=tuple(log),
            assumptions=evidence.assumptions(self.sign, prevalence, expertise is not None),
            diagnostics=found.checks | evidence.diagnostics | {"mean_row": means[0]},
            parameter=(*["outcome"] * p, *["selection"] * q, "sigma", "rho"),
            term=(*terms, "sigma", "rho"),
            draws=draws,
            ess_bulk=ess,
            r_hat=r_hat,
            method=method,
            designs={role: design.to_dict() for role, design in sample.designs.items()},
            counts={"rows": len(sample.y), "selected": int(sample.selected.sum())},
            seen_mean=seen_mean,
            means=prevalence,
            ml=np.column_stack([ml.estimates, ml.std_errors]),
            two_step=np.column_stack([two.estimates, two.std_errors]),
            notes={"ml": ml.note, "two_step": two.note},
            loglik=ml.loglik,
            pit=evidence.pit,
        )

    # ------------------------------------------------------------------ predictions

    def predict_outcome(
        self, data: Any, given: str | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Mean of the outcome of new rows.

        Parameters
        ----------
        data : data frame
            With the columns of the formulas.
        given : {None, "selected", "unselected"}
            None: of everybody with these covariates. Else of those of them who are, or are not,
            selected.
        level : float

        Returns
        -------
        pandas.DataFrame
            `estimate, std_error, conf_low, conf_high`: posterior mean, sd and interval, one row per
            row of `data`, same index.
        """
        if given not in (None, "selected", "unselected"):
            raise DataError(
                f"Expected given to be None, 'selected' or 'unselected', but saw {given!r}."
            )
        return self._predict(data, level, given or "everybody")

    def predict_selection(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Probability that new rows are selected; as `predict_outcome`."""
        return self._predict(data, level, "selection")

    def _predict(self, data: Any, level: float, what: str) -> pd.DataFrame:
        check_level(level)
        self._check_native()
        r = self.result_
        source, rows = encode_new(data, [r.outcome_design, r.selection_design])
        x = r.outcome_design.encode(rows.columns, rows.n_obs).T
        w = r.selection_design.encode(rows.columns, rows.n_obs).T
        parts = []
        for first in range(0, rows.n_obs, 2048):  # rows x draws, in pieces
            piece = slice(first, first + 2048)
            parts.append(frame_of(mean_outcome(r.draws, x[piece], w[piece], what), None, level))
        return pd.concat(parts, ignore_index=True).set_axis(source.index, axis=0)


def _chain_checks(posterior: Any) -> tuple[np.ndarray, np.ndarray]:
    import arviz as az

    names = ["outcome", "selection", "sigma", "rho"]
    facts = az.summary(posterior, var_names=names, kind="diagnostics", round_to="none")
    return facts["ess_bulk"].to_numpy(dtype=float), facts["r_hat"].to_numpy(dtype=float)
