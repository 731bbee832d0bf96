"""Estimates of a standardised contrast, with the covariance from stacked estimating equations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import linalg
from sklearn.base import clone

from causalrm.core.blocks import Block, Rows, length, pieces
from causalrm.core.design import encode_new, formula_text
from causalrm.core.errors import (
    CausalRMError,
    DataError,
    IdentificationError,
    IdentificationWarning,
    warn,
)
from causalrm.core.inference import by_cluster
from causalrm.core.result import Assumption
from causalrm.survival import _contrast_aipw as aipw
from causalrm.survival._contrast_aipw import CLUSTER, Nuisances, Propensity
from causalrm.survival._contrast_data import (
    Arms,
    Curves,
    Population,
    Treatment,
    chain,
    covariate_terms,
    fit_columns,
    open_treatment,
    treatment_term,
)
from causalrm.survival.regression import SurvivalRegression
from causalrm.survival.result import SurvivalResult

SMALL, SMALL_G = 0.02, 0.05  # propensity, and probability to be uncensored, that warn
_BALANCED = 0.1  # standardised difference after weighting
_SCORE = 0.1  # score statistic above which rows cannot be those of the fit


@dataclass(frozen=True)
class Found:
    """What an estimator found; fields as in `ContrastResult`."""

    estimates: np.ndarray
    covariance: np.ndarray
    df_resid: float | None
    fitted: bool
    diagnostics: dict[str, Any]


def gformula_sums(
    block: Block, arms: Arms, fitted: bool, n_clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Totals of weighted predictions, weights and scores, their derivatives and products."""
    n = length(block)
    w = arms.weights(block, n)
    value, slope, points = arms.evaluate(block, n)
    parts = [w * value.reshape(-1, n), w[None]]
    gradient = np.concatenate(
        [chain(arms.model, p, w * s) for p, s in zip(points, slope, strict=True)]
    )
    if fitted:
        parts.append(arms.model.scores(block, arms.theta))
    stack = np.concatenate(parts)
    products = by_cluster(block[CLUSTER], stack, n_clusters) if n_clusters else stack @ stack.T
    return stack.sum(axis=1), gradient, products


def _meat(products: np.ndarray, n_clusters: int, size: int) -> np.ndarray:
    """Sum of outer products of the first `size` contributions."""
    if not n_clusters:
        return products[:size, :size]
    part = products[:, :size]
    return np.asarray(n_clusters / (n_clusters - 1) * part.T @ part)


def _stacked(
    totals: np.ndarray,
    gradient: np.ndarray | None,
    bread: np.ndarray | None,
    products: np.ndarray,
    n_clusters: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Means and their covariance from contributions, weights and scores."""
    means = totals[:size] / totals[size]
    left = np.hstack([np.eye(size), -means[:, None]])
    if gradient is not None and bread is not None:
        left = np.hstack([left, gradient @ bread])
    left /= totals[size]
    meat = _meat(products, n_clusters, left.shape[1])
    return means, left @ meat @ left.T


@dataclass(frozen=True)
class Plan:
    """Everything that was asked for and read.

    Attributes
    ----------
    result : SurvivalResult
    population : Population
    treatment : Treatment
    curves : Curves
    propensity, censoring, clip
        The arguments of `standardized_contrast`.
    log : list of str
        Takes the warnings.
    """

    result: SurvivalResult
    population: Population
    treatment: Treatment
    curves: Curves
    propensity: Any
    censoring: Any
    clip: float | None
    log: list[str] = field(default_factory=list)

    @property
    def _arms(self) -> Arms:
        return Arms(self.result.model, self.result.estimates, self.treatment, self.curves)

    @property
    def _size(self) -> int:
        return len(self.treatment.values) * len(self.curves)

    @property
    def _terms(self) -> list[str]:
        return covariate_terms(self.result, self.treatment.name)

    @property
    def _propensity_formula(self) -> str:
        if self.propensity is not None:
            return formula_text(self.propensity, "propensity")
        return " + ".join(self._terms) or "1"

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Arm and weight of each row."""
        columns, n = self.population.rows.columns, self.population.rows.n_obs
        return self.treatment.arms(columns[self.treatment.name]), self._arms.weights(columns, n)

    def _shape(self, means: np.ndarray) -> np.ndarray:
        return means.reshape(len(self.treatment.values), len(self.curves))

    def _strange_scores(self, score: np.ndarray, bread: np.ndarray) -> bool:
        """Whether the fit's estimating equations do not hold in these rows."""
        if self.result.call["options"].get("penalty"):
            return False
        return float(score @ bread @ score) > _SCORE

    # ------------------------------------------------------------------ g-formula

    def gformula(self) -> Found:
        """Mean predictions with the treatment set to each level."""
        pop, size, result = self.population, self._size, self.result
        rows, fitted = pop.rows, pop.fitted
        if pop.clusters is not None:
            rows.columns[CLUSTER] = pop.clusters
        totals, gradient, products = rows.total(gformula_sums, self._arms, fitted, pop.n_clusters)
        df = [float(pop.n_clusters - 1)] if pop.n_clusters else []
        if fitted:
            bread = aipw.bread_of(result, rows)
            fitted = not self._strange_scores(totals[size + 1 :], bread)
        if fitted:
            means, covariance = _stacked(totals, gradient, bread, products, pop.n_clusters, size)
        else:  # sampling of covariates, and independently of it the fit
            means, covariance = _stacked(totals, None, None, products, pop.n_clusters, size)
            slope = gradient / totals[size]
            covariance = covariance + slope @ result.covariances[result.covariance] @ slope.T
            df += [] if result._df is None else [result._df]
        return Found(
            self._shape(means), covariance, min(df) if df else None, fitted,
            self._overlap_of_arms() if fitted else {},
        )  # fmt: skip

    def _overlap_of_arms(self) -> dict[str, Any]:
        """Propensities and differences in covariates between arms, where they can be had."""
        arm, w = self._rows()
        out = self._counts(arm)
        try:
            model = aipw.fit_propensity(
                self.population.frame, self._propensity_formula, self.treatment, arm, w
            )
        except CausalRMError as error:
            if self.propensity is not None and isinstance(error, DataError):
                raise
            return out | {"propensity_failed": str(error)}
        _, rows = encode_new(self.population.frame, model.predictors.unique)
        p = np.empty((len(self.treatment.values), rows.n_obs))
        for start, block in pieces(rows.columns):
            n = length(block)
            p[:, start : start + n] = model.probabilities(model.predictors.matrices(block, n), n)
        return out | self._judge(p, arm, w, model)

    # ------------------------------------------------------------------ AIPW

    def aipw(self) -> Found:
        """Mean of the uncentred efficient influence function; models fitted to all rows."""
        arm, w = self._rows()
        pop, size = self.population, self._size
        fitted = self._nuisances(self._arms, pop.frame, arm, w)
        nuisances, rows = self._with_rows(fitted, pop.rows, pop.frame, pop.clusters)
        totals, gradient, products = rows.total(nuisances.sums, True, pop.n_clusters)
        own = aipw.bread_of(self.result, pop.rows)
        breads = [own, nuisances.propensity.bread]
        if nuisances.censoring is not None:
            there = Rows(nuisances.parts(rows.columns)[2], rows.n_obs)
            breads.append(aipw.bread_of(nuisances.censoring, there))
        score = totals[size + 1 : size + 1 + len(own)]
        if self._strange_scores(score, own):
            raise DataError(
                "Expected the rows of the fit for method='aipw', but the fit's estimating "
                "equations do not hold in them: outcomes agree, covariates do not. Give the data "
                "that the model was fitted to."
            )
        bread = linalg.block_diag(*breads)
        found = _stacked(totals, gradient, bread, products, pop.n_clusters, size)
        return self._judged(*found, nuisances, *nuisances.overlap(rows))

    def cross_fit(self, fit: SurvivalRegression, folds: int, rng: np.random.Generator) -> Found:
        """The same with models fitted to the other folds, and the plain variance."""
        arm, w = self._rows()
        pop, n, size = self.population, self.population.rows.n_obs, self._size
        fold = _folds(arm, pop.clusters, folds, rng)
        roles = {k: v for k, v in self.result.call["roles"].items() if k != "cluster"}
        totals, products = np.zeros(size + 1), np.zeros(())
        p, g = np.empty((len(self.treatment.values), n)), np.ones(n)
        nuisances = None
        for k in range(folds):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            frame = pop.frame.iloc[train]
            outcome = clone(fit).set_params(covariance="auto").fit(frame, **roles).result_
            self.log.extend(f"Fold {k + 1}, outcome model: {text}" for text in outcome.warnings)
            treatment = _recoded(outcome, self.treatment)
            arms = Arms(outcome.model, outcome.estimates, treatment, self.curves)
            fitted = self._nuisances(arms, frame, arm[train], w[train])
            rest = pop.frame.iloc[test]
            _, seen = encode_new(rest, outcome.model.predictors.unique, outcome.model.roles.numbers)
            # weights count on one scale in all folds
            model = outcome.model
            model.mean_weight = self.result.model.mean_weight
            codes = None if pop.clusters is None else pop.clusters[test]
            nuisances, rows = self._with_rows(fitted, seen, rest, codes)
            sums, _, part = rows.total(nuisances.sums, False, pop.n_clusters)
            totals, products = totals + sums, products + part
            p[:, test], g[test] = nuisances.overlap(rows)
        assert nuisances is not None
        found = _stacked(totals, None, None, products, pop.n_clusters, size)
        return self._judged(*found, nuisances, p, g)

    def _nuisances(self, arms: Arms, frame: Any, arm: np.ndarray, w: np.ndarray) -> Nuisances:
        propensity = aipw.fit_propensity(frame, self._propensity_formula, arms.treatment, arm, w)
        censoring = aipw.fit_censoring(
            frame, self.result.model.roles, self.censoring, self._terms,
            treatment_term(self.result, self.treatment.name), arm, self.curves.end, self.log,
        )  # fmt: skip
        return Nuisances(arms, propensity, censoring, self.clip)

    def _with_rows(
        self, nuisances: Nuisances, outcome: Rows, frame: Any, clusters: np.ndarray | None
    ) -> tuple[Nuisances, Rows]:
        rows = nuisances.columns(outcome, frame)
        refined = nuisances.refined(rows)
        if clusters is not None:
            rows.columns[CLUSTER] = clusters
        return refined, rows

    def _judged(
        self,
        means: np.ndarray,
        covariance: np.ndarray,
        nuisances: Nuisances,
        p: np.ndarray,
        g: np.ndarray,
    ) -> Found:
        """AIPW estimates with what was seen of their models."""
        if not np.isfinite(means).all():
            raise IdentificationError(
                "Expected finite weights, but a probability to be free of the event and uncensored "
                "is zero to machine precision. Ask for earlier times, or change the models."
            )
        arm, w = self._rows()
        clusters = self.population.n_clusters
        self._warn(p, g)
        diagnostics = self._counts(arm) | self._judge(p, arm, w, nuisances.propensity)
        diagnostics |= self._judge_censoring(p, g, arm, nuisances.censoring)
        df = float(clusters - 1) if clusters else None
        return Found(self._shape(means), covariance, df, True, diagnostics)

    # ------------------------------------------------------------------ diagnostics

    def _counts(self, arm: np.ndarray) -> dict[str, Any]:
        labels = self.treatment.labels
        counts = np.bincount(arm, minlength=len(labels))
        return {"rows": {a: int(c) for a, c in zip(labels, counts, strict=True)}}

    def _judge(
        self, p: np.ndarray, arm: np.ndarray, w: np.ndarray, model: Propensity
    ) -> dict[str, Any]:
        """Overlap of the arms."""
        labels, here = self.treatment.labels, np.arange(len(arm))
        weight = w / p[arm, here]
        sizes = [
            float(weight[arm == a].sum() ** 2 / (weight[arm == a] ** 2).sum())
            for a in range(len(labels))
        ]
        frame = self.population.frame
        return {
            "propensity_formula": model.formula,
            "propensity_range": {
                a: (float(v.min()), float(v.max())) for a, v in zip(labels, p, strict=True)
            },
            "small_propensities": int((p < SMALL).any(axis=0).sum()),
            "effective_rows": dict(zip(labels, sizes, strict=True)),
            "imbalance": aipw.balance(frame, model, arm, w, None),
            "imbalance_weighted": aipw.balance(frame, model, arm, w, p),
            "clipped": 0 if self.clip is None else int((p[arm, here] < self.clip).sum()),
        }

    def _judge_censoring(
        self, p: np.ndarray, g: np.ndarray, arm: np.ndarray, model: SurvivalResult | None
    ) -> dict[str, Any]:
        out: dict[str, Any] = {
            "smallest_uncensored": float(g.min()),
            "largest_weight": float((1.0 / (p[arm, np.arange(len(arm))] * g)).max()),
        }
        if model is not None:
            options = model.call["options"]
            out["censoring_model"] = {
                k: options[k] for k in ("phi", "lam", "gamma", "kappa") if options[k] is not None
            }
            out["censored"] = model.n_events
            out["cox_snell_gap"] = model.diagnostics.get("cox_snell_gap")
            out["cox_snell_limit"] = model.diagnostics.get("cox_snell_limit")
        return out

    def _warn(self, p: np.ndarray, g: np.ndarray) -> None:
        low = int((p < SMALL).any(axis=0).sum())
        if low:
            warn(
                f"{low} of {len(g)} rows have a propensity below {SMALL:g} for one of the arms "
                f"(least {p.min():.2g}): the estimate leans on few rows. Restrict the rows to "
                "where all arms occur, simplify the propensity formula, or see how clip= changes "
                "it.",
                IdentificationWarning,
                self.log,
            )
        if g.min() < SMALL_G:
            warn(
                f"{int((g < SMALL_G).sum())} of {len(g)} rows have a probability below "
                f"{SMALL_G:g} to be uncensored by the end of their use (least {g.min():.2g}): the "
                "estimate leans on few rows. Ask for earlier times.",
                IdentificationWarning,
                self.log,
            )

    def follow_up(self, fitted: bool) -> dict[str, float]:
        """Latest time in each arm of the rows of the fit; in all of them for other rows."""
        result = self.result
        if not fitted:
            return {"all": float(np.asarray(result.curves["grid"])[-1])}
        time, _, _, upper = result.model.times(self.population.rows.columns)
        if upper is not None:
            time = np.where(np.isfinite(upper), upper, time)
        arm, _ = self._rows()
        return {
            label: float(time[arm == a].max())
            for a, label in enumerate(self.treatment.labels)
            if (arm == a).any()
        }


def _folds(
    arm: np.ndarray, clusters: np.ndarray | None, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Fold of each row: balanced within arms, or whole clusters."""
    n = len(arm)
    if clusters is not None:
        place = rng.permutation(int(clusters.max()) + 1) % folds
        return np.asarray(place[clusters])
    order = np.lexsort((rng.random(n), arm))
    out = np.empty(n, dtype=int)
    out[order] = np.arange(n) % folds
    return out


def _recoded(result: SurvivalResult, treatment: Treatment) -> Treatment:
    """The same levels in the same order, as another fit codes them."""
    if fit_columns(result)[treatment.name].levels is None:
        return treatment
    here = open_treatment(result, None, treatment.name, None)
    code = dict(zip(here.labels, here.values, strict=True))
    missing = [a for a in treatment.labels if a not in code]
    if missing:
        raise IdentificationError(
            f"Expected all levels of {treatment.name!r} in every fold, but {missing} are missing "
            "in one. Use fewer folds, or fit without these levels."
        )
    return dataclasses.replace(treatment, values=tuple(code[a] for a in treatment.labels))


# ---------------------------------------------------------------------------- assumptions


def assumptions(
    result: SurvivalResult, treatment: Treatment, method: str, d: dict[str, Any]
) -> tuple[Assumption, ...]:
    """What a causal reading rests on, with what was seen of it."""
    name = treatment.name
    given = ", ".join(c for c in fit_columns(result) if c != name)
    overlap, status = "Compare the covariates of the arms.", "untested"
    if "propensity_failed" in d:
        overlap, status = d["propensity_failed"], "doubtful"
    elif "propensity_range" in d:
        least = min(low for low, _ in d["propensity_range"].values())
        sizes = ", ".join(f"{v:.0f} in {a}" for a, v in d["effective_rows"].items())
        overlap = (
            f"Propensities ({d['propensity_formula']!r}) are at least {least:.3g}; "
            f"{d['small_propensities']} rows below {SMALL:g}; effective rows after weighting: "
            f"{sizes}."
        )
        status = "supported" if not d["small_propensities"] else "doubtful"
    balance = "Ask what else the choice of treatment depended on."
    if "imbalance" in d:
        balance = (
            f"The largest standardised difference between arms in a covariate is "
            f"{d['imbalance']:.2f}, after weighting {d['imbalance_weighted']:.2f}; of covariates "
            "that were not measured the data say nothing."
        )
    out = [
        Assumption(
            "exchangeability",
            f"Given {given}, who has which level of {name} says nothing about survival under "
            "either."
            if given
            else f"{name} was assigned independently of survival.",
            balance,
        ),
        Assumption(
            "positivity", f"Every level of {name} occurs at all covariates.", overlap, status
        ),
        Assumption(
            "consistency",
            f"Survival under the observed level of {name} is what setting that level would give.",
            "The data cannot show it: is the treatment well defined, and does nobody's treatment "
            "affect others?",
        ),
    ]
    model = [a for a in result.assumptions if a.name in ("distribution", "censoring")]
    fit = next((a for a in model if a.name == "distribution"), None)
    if method == "gformula":
        return (*out, *model)
    seen = "" if fit is None else f" Outcome model: {fit.diagnostic}"
    seen += f" Propensity: largest weighted difference {d['imbalance_weighted']:.2f}."
    gap, limit = d.get("cox_snell_gap"), d.get("cox_snell_limit")
    weights = d["imbalance_weighted"] < _BALANCED
    if gap is not None and limit is not None:
        weights = weights and gap <= limit
        seen += f" Censoring model: Cox-Snell gap {gap:.3f} (5% limit {limit:.3f})."
    out.append(
        Assumption(
            "models",
            "The outcome model is right, or the propensity and the censoring model both are.",
            seen.strip(),
            "supported"
            if weights or (fit is not None and fit.status == "supported")
            else "doubtful"
            if fit is not None and fit.status == "doubtful"
            else "untested",
        )
    )
    out.append(
        Assumption(
            "censoring",
            f"Given {name} and the covariates, censoring says nothing about the time to come, and "
            "nobody is certain to be censored before the times asked for.",
            f"The least probability to be uncensored by the end of a row's use is "
            f"{d['smallest_uncensored']:.3g}.",
            "doubtful" if d["smallest_uncensored"] < SMALL_G else "untested",
        )
    )
    return tuple(out)
