"""Risk of an outcome that is seen only for the tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from causalrm.core.errors import CausalRMError, DataError
from causalrm.core.estimator import Estimator
from causalrm.core.random import RNG, resolve, spawn
from causalrm.risk import fitting
from causalrm.risk import sensitivity as other
from causalrm.risk.assembly import assemble
from causalrm.risk.audit import RiskAudit
from causalrm.risk.audit import audit as audit_rows
from causalrm.risk.baselines import BaselineResult, compare
from causalrm.risk.checks import REPLICATES, by_decile
from causalrm.risk.constraints import Expertise, Prevalence, split_constraints
from causalrm.risk.posterior import extended, tree_of_draws
from causalrm.risk.predict import Draws, NewRows, new_rows, predict_risk, summarise_rows
from causalrm.risk.result import RiskResult
from causalrm.risk.rows import (
    Roles,
    check_identified,
    formulas_of,
    in_memory,
    read,
    read_outcome,
)

if TYPE_CHECKING:
    import pymc as pm

Formula = str | Sequence[str]


class SelectiveLabelsModel(Estimator):
    r"""Bayesian model of risk when only the tested have an outcome.

    A person with columns x has risk :math:`r = x\beta + Z` on the log-odds scale, where Z is what
    testers see and the data do not; the outcome is Bernoulli(logistic(r)), and the person is
    tested with log odds :math:`\alpha r + x\delta`. Only the outcomes of the tested are used.
    What is known besides, the prevalence or what testers look at, makes the risk of the
    untested estimable.

    Parameters
    ----------
    risk : str or list of str
        Formula of the log odds of the outcome; with an intercept.
    testing : str, list of str or None, default None
        Formula of what testing depends on beyond risk; None takes that of risk.
    unobservable : {"uniform", "normal"}
        Z is uniform between 0 and sigma, or normal with standard deviation sigma.
    alpha : float or None, default 1.0
        Weight of risk in the log odds of testing. None infers it, by NUTS; alpha and sigma are
        not identified together without an informative prior on one of them.
    constraints : list of Prevalence and Expertise, optional
    priors : dict, optional
        Standard deviations of the priors: "risk" and "testing" (normal; a number, or a dict by
        term; default 3), "sigma" and "alpha" (half-normal; 3), "decider" (half-normal, of the sd
        of the deciders' effects; 1). The priors of coefficients are those of columns that are
        centred and, unless they are 0/1, scaled to a standard deviation of one; estimates are on
        the scale of the data.
    method : {"auto", "grid", "nuts"}
        "grid" draws from a grid of sigma with importance weights, and raises when its checks
        fail; "nuts" samples `model_` with nutpie where it is installed, else PyMC; "auto" is the
        grid, and NUTS, with a warning, where the grid fails or has no answer (alpha inferred,
        deciders).
    rng : None, int, SeedSequence or Generator
    draws : int, default 1024
        Draws of the grid, rounded up to a power of two.
    nuts : dict, optional
        Options of NUTS: sampler ("nutpie", "pymc"), draws and tune (1000 each, per chain),
        chains (4), target_accept (.9), cores, progress.
    fan : bool or None, default None
        Whether a fit with a prevalence constraint also finds its coefficients under four other
        prevalences, for the summary and ``plot.fan``. Draws are reweighted where that will do;
        else the grid runs again with 256 draws, and a fit takes two or three times as long. None
        does so up to 20,000 distinct rows, True always, False leaves the fan out; `sensitivity`
        has it later.

    Attributes
    ----------
    result_ : RiskResult
        Draws of the coefficients and everything that tables, plots and predictions need; no rows.
    posterior_ : xarray.DataTree
        The draws for ArviZ: groups posterior and sample_stats, more by `extend_posterior`.
    model_ : pymc.Model
        The posterior as a PyMC model, to inspect and extend; built when asked for.

    References
    ----------
    Balachandar, Garg, Pierson (2024), Domain constraints improve risk prediction when outcome
    data is missing, ICLR, arXiv 2312.03878.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import causalrm as crm
    >>> rng = np.random.default_rng(0)
    >>> x, z = rng.normal(size=400), rng.uniform(0, 2, 400)
    >>> r = -2 + x + z
    >>> sick = rng.random(400) < 1 / (1 + np.exp(-r))
    >>> tested = rng.random(400) < 1 / (1 + np.exp(-1 - r))
    >>> df = pd.DataFrame({"x": x, "tested": tested, "sick": sick.astype(float)})
    >>> df.loc[~tested, "sick"] = np.nan
    >>> model = crm.SelectiveLabelsModel("x", constraints=[crm.Prevalence(0.3, se=0.03)])
    >>> fit = model.fit(df, tested="tested", outcome="sick")
    >>> fit.to_frame()["parameter"].tolist()
    ['risk', 'risk', 'testing', 'testing', 'sigma']
    >>> fit.predict_risk(df.head(2)).columns.tolist()
    ['estimate', 'std_error', 'conf_low', 'conf_high']
    """

    result_: RiskResult

    def __init__(
        self,
        risk: Formula,
        testing: Formula | None = None,
        unobservable: str = "uniform",
        alpha: float | None = 1.0,
        constraints: Sequence[Prevalence | Expertise] | None = None,
        priors: Mapping[str, Any] | None = None,
        method: str = "auto",
        rng: RNG = 0,
        *,
        draws: int = 1024,
        nuts: Mapping[str, Any] | None = None,
        fan: bool | None = None,
    ):
        self.risk = risk
        self.testing = testing
        self.unobservable = unobservable
        self.alpha = alpha
        self.constraints = constraints
        self.priors = priors
        self.method = method
        self.rng = rng
        self.draws = draws
        self.nuts = nuts
        self.fan = fan

    # ------------------------------------------------------------------ fitting

    def fit(
        self,
        data: Any,
        *,
        tested: str,
        outcome: str,
        weights: str | None = None,
        group: str | None = None,
        decider: str | None = None,
    ) -> Self:
        """Draw from the posterior.

        Parameters
        ----------
        data : data frame
            One row per person, in memory.
        tested : str
            Column of 1 (tested) and 0.
        outcome : str
            Column of 0 and 1 where tested. Its values elsewhere are not read: they are usually
            missing, and change nothing.
        weights : str, optional
            Column of sampling weights of at least 0; only their ratios matter. The posterior is
            then a pseudo-posterior.
        group : str, optional
            Column of groups for `audit` and plots; it is not part of the model.
        decider : str, optional
            Column of who decided on the test (doctor, site). Their effects on the log odds of
            testing are partially pooled; by NUTS.

        Returns
        -------
        SelectiveLabelsModel
            Itself, with `result_`.

        Raises
        ------
        DataError
            When a column, an option or a prevalence cannot be used.
        IdentificationError
            When none or all are tested, the outcomes of the tested are all the same, or columns
            are constant, dependent or separate the outcome.
        ConvergenceError
            When method="grid" did not pass its checks.
        """
        log: list[str] = []
        roles = Roles(tested, outcome, weights, group, decider)
        prevalences, expertise = self._check_options()
        numbers = sorted({p.weights for p in prevalences if p.weights is not None})
        source, sample = read(data, roles, formulas_of(self.risk, self.testing), numbers)
        check_identified(sample, roles)
        _, entropy = resolve(self.rng)
        streams = spawn(entropy, 4)
        alpha = None if self.alpha is None else float(self.alpha)
        own = fitting.setup(
            sample, source, roles, prevalences, expertise, self.priors, self.unobservable, alpha,
            log,
        )  # fmt: skip
        labels = None if group is None else fitting.levels_of(source, group, "the group")
        found = fitting.draw(own, self.method, int(self.draws), self.nuts or {}, streams[0], log)
        fitting.warn_of_priors(own, found, log)
        self.result_ = assemble(
            self._call(roles.given()), sample, source, roles, own, found, prevalences, expertise,
            self.fan, labels, entropy, streams[1:], log,
        )  # fmt: skip
        self._setup, self._tree, self._model = own, found.tree, None
        return self

    def _check_options(self) -> tuple[tuple[Prevalence, ...], Expertise | None]:
        """Refuse options out of their range, before any work."""
        for name, allowed in (
            ("unobservable", ("uniform", "normal")), ("method", ("auto", "grid", "nuts")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise DataError(
                    f"Expected {name} to be one of {list(allowed)}, but saw "
                    f"{getattr(self, name)!r}. Give one of these."
                )
        alpha, draws = self.alpha, self.draws
        if alpha is not None and not (_number(alpha) and 0 <= alpha < math.inf):
            raise DataError(
                f"Expected alpha to be a number of at least 0, or None to infer it, but saw "
                f"{alpha!r}. Give one."
            )
        if not (_number(draws) and draws == int(draws) and draws >= 64):
            raise DataError(
                f"Expected draws to be a whole number of at least 64, but saw {draws!r}. Give one."
            )
        if self.fan not in (None, True, False):
            raise DataError(f"Expected fan to be True, False or None, but saw {self.fan!r}.")
        if self.nuts is not None and not isinstance(self.nuts, Mapping):
            raise DataError(f"Expected nuts as a dict of options, but saw {self.nuts!r}. Give one.")
        return split_constraints(self.constraints)

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        for name in ("_setup", "_model"):  # rows, and what cannot be pickled
            state.pop(name, None)
        return state

    # ------------------------------------------------------------------ the posterior

    @property
    def posterior_(self) -> Any:
        """The draws as an ArviZ DataTree; of a grid, resampled to equal weights.

        Its group sample_stats keeps the importance weights and k-hat.
        """
        result = self.result_
        if getattr(self, "_tree", None) is None:
            rng = spawn(result.entropy, 6)[4]
            self._tree = tree_of_draws(result, rng)
        return self._tree

    @property
    def model_(self) -> pm.Model:
        """The posterior as a PyMC model whose variables are on the scale of the columns."""
        own = self._own("model_")
        if getattr(self, "_model", None) is None:
            from causalrm.risk.pymc_model import build

            self._model = build(own.problem, own.risk, own.testing)
        return self._model

    def _own(self, what: str) -> fitting.Setup:
        self.result_  # noqa: B018  raises where there is no fit
        own = getattr(self, "_setup", None)
        if own is None:
            raise CausalRMError(
                f"{what} needs the rows of the fit, which neither a pickle nor JSON keeps. Fit "
                "the model again."
            )
        return own  # type: ignore[no-any-return]

    def extend_posterior(
        self,
        data: Any = None,
        *,
        log_likelihood: bool = False,
        posterior_predictive: bool = False,
        prior: bool = False,
    ) -> Any:
        """Add groups to `posterior_` and return it.

        They are left out of the fit because rows x draws is large: 5e5 rows and 1,024 draws are
        4 GB per variable.

        Parameters
        ----------
        data : data frame, optional
            The rows of the fit, with their roles; for all but the prior of the coefficients.
        log_likelihood : bool
            Of test and outcome together, one value per row, for ``arviz.loo``.
        posterior_predictive : bool
            Replicated tests and outcomes, with the observed ones.
        prior : bool
            Draws of the coefficients from their priors, without any constraint on the prevalence.

        Returns
        -------
        xarray.DataTree
        """
        result = self.result_
        own = self._own("prior=True") if prior else None
        rows, status, y = None, None, None
        if log_likelihood or posterior_predictive:
            if data is None:
                raise DataError("Expected the rows of the fit as data, but saw none. Give them.")
            index, rows, status, y = self._with_outcomes(data)
            del index
        self._tree = extended(
            self.posterior_, result, own, rows, status, y, log_likelihood, posterior_predictive,
            spawn(result.entropy, 6)[5],
        )  # fmt: skip
        return self._tree

    def _with_outcomes(self, data: Any) -> tuple[pd.Index, NewRows, np.ndarray, np.ndarray]:
        """Rows with tests and outcomes, the roles being those of the fit."""
        result, roles = self.result_, self.result_.call["roles"]
        in_memory(data)
        index, rows, source = new_rows(result, data)
        codes, levels = fitting.levels_of(source, roles["tested"], "the test status")
        values = np.array([float(v) for v in levels])[codes]
        if not np.isin(values, (0.0, 1.0)).all():
            raise DataError(
                f"Expected 1 (tested) or 0 in column {roles['tested']!r}, but saw "
                f"{sorted(set(values))[:5]}. Recode it."
            )
        y = read_outcome(source, roles["outcome"], values == 1, roles["tested"])
        return index, rows, values == 1, y

    # ------------------------------------------------------------------ predictions

    def predict_risk(
        self, data: Any, given: str | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Probability of the outcome, marginal over the unobservable.

        Parameters
        ----------
        data : data frame
            New rows with the columns of the formulas.
        given : {None, "tested", "untested", "status"}
            Condition on the test result: that a row was tested, that it was not, or, with
            "status", on its own value of the column `tested`. A test is a sign of what testers
            saw.
        level : float

        Returns
        -------
        pandas.DataFrame
            Columns estimate (posterior mean), std_error, conf_low, conf_high; same index as
            `data`. Where the data have the column of deciders, each row is that of its decider;
            otherwise that of a typical one.
        """
        return predict_risk(self.result_, data, given, level)

    def predict_testing(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Probability to be tested; as `predict_risk`."""
        index, rows, _ = new_rows(self.result_, data)
        return summarise_rows(rows, Draws.of(self.result_), "testing", index, level)

    def audit(self, data: Any, by: str | None = None, draws: int = 256) -> RiskAudit:
        """Who is tested less or more than others at equal risk.

        For each draw, the probability of testing of every row is compared with what it would be
        if testing depended on risk alone (what testers see of it included), with one constant
        for all and the same expected number of tests.

        Parameters
        ----------
        data : data frame
            Rows with the columns of the formulas, `tested` and the groups.
        by : str, optional
            Column of groups; by default the `group` of the fit.
        draws : int
            Draws that are used, at most.

        Returns
        -------
        RiskAudit
            A row per group; and what giving the same number of tests to those at highest
            predicted risk would have found.
        """
        by = self.result_.call["roles"].get("group") if by is None else by
        if by is None:
            raise DataError(
                "Expected a column of groups, but neither by= nor group= of the fit gives one. "
                "Give by=."
            )
        index, rows, tested, y = self._with_outcomes(data)
        codes, levels = fitting.levels_of(in_memory(data), by, "the groups of an audit")
        return audit_rows(self.result_, rows, tested, y, by, codes, levels, draws)

    def sensitivity(self, prevalence: Sequence[Any], level: float = 0.95) -> pd.DataFrame:
        """Coefficients under other prevalences.

        Parameters
        ----------
        prevalence : list of float or dict
            In place of the value of the constraint; dicts from level to prevalence with by=.
        level : float

        Returns
        -------
        pandas.DataFrame
            Columns prevalence, parameter, term, estimate, std_error, conf_low, conf_high, method
            ("reweighted" draws where their Pareto k-hat allows it, else "refitted"), khat.

        Raises
        ------
        DataError
            Without a prevalence constraint.
        """
        own = self._own("sensitivity")
        if not own.known:
            raise DataError(
                "Expected a fit with a prevalence to vary, but it has no such constraint. Add "
                "Prevalence(...) to constraints."
            )
        entries = [other.targets_of(own, value) for value in prevalence]
        rng = spawn(self.result_.entropy, 3)[2]
        return other.fan(own, self.result_, entries, level, rng)

    def predictive_check(
        self, data: Any, kind: str = "posterior", bins: int = 10, level: float = 0.95
    ) -> pd.DataFrame:
        """Replicated shares tested and positive against the data, by bin of risk.

        Parameters
        ----------
        data : data frame
            With the roles of the fit.
        kind : {"posterior", "prior"}
            Where the parameters of the replicates come from. The bins are those of the posterior
            mean of risk in both.
        bins : int
        level : float

        Returns
        -------
        pandas.DataFrame
            Columns quantity, bin, risk, n, observed, predicted, conf_low, conf_high.
        """
        from causalrm.risk.posterior import prior_draws
        from causalrm.risk.predict import mean_of

        result = self.result_
        _, rows, tested, y = self._with_outcomes(data)
        rng = spawn(result.entropy, 6)[5]
        draws = Draws.of(result).thin(REPLICATES)
        order = mean_of(rows, draws, "risk")
        if kind == "prior":
            draws = prior_draws(result, self._own("A prior check"), REPLICATES, rng)
        elif kind != "posterior":
            raise DataError(f"Expected kind 'posterior' or 'prior', but saw {kind!r}. Give one.")
        return by_decile(rows, draws, tested, y, rng, bins, level, order)

    def baselines(self, data: Any, truth: str | None = None) -> BaselineResult:
        """Compare with what would be done without a model of testing.

        Parameters
        ----------
        data : data frame
            With the roles of the fit.
        truth : str, optional
            Column with the outcomes of all rows, where a simulation or a masked data set has
            them.

        Returns
        -------
        BaselineResult
            Coefficients of a logistic regression of the tested and of one that takes the
            untested as negative, beside those of risk; and AUC, Brier score and calibration
            where outcomes are known.
        """
        _, rows, tested, y = self._with_outcomes(data)
        known = None
        if truth is not None:
            known = read_outcome(in_memory(data), truth, np.ones(len(y), dtype=bool), "")
        return compare(self.result_, rows, tested, y, known)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
