"""Rewards from logged outcomes, without the known confounders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from causalrm.core.blocks import Rows
from causalrm.core.column import refuse_offset
from causalrm.core.design import encode_new, formula_text, prepare
from causalrm.core.encoding import Design
from causalrm.core.errors import DataError, check_choice
from causalrm.core.estimator import Estimator
from causalrm.core.frame import Source, check_weights, scan
from causalrm.core.random import RNG, resolve, spawn
from causalrm.core.result import quantile
from causalrm.deconfound import evidence
from causalrm.deconfound.best_of import best_of
from causalrm.deconfound.fitting import fit_method
from causalrm.deconfound.fixed_effects import effects_of, fit_absorbed
from causalrm.deconfound.pairs import labels_of, pair_frame, write_jsonl
from causalrm.deconfound.result import DeconfoundedResult
from causalrm.deconfound.sensitivity import SensitivityResult, sensitivity
from causalrm.deconfound.stages import near_singular
from causalrm.deconfound.strengths import chosen, examined
from causalrm.deconfound.task import Fitted, Task
from causalrm.text import texts

Formula = str | Sequence[str]


class DeconfoundedReward(Estimator):
    r"""Reward of text from logged outcomes, with the effect of known confounders taken out.

    Outcomes of past texts (clicks, votes, sales) depend on the text X and on a confounder C (hour,
    author, popularity) that the editors may have chosen with the text in mind:
    :math:`Y = f(X) + \gamma' C + e`. What is wanted is f, up to a constant. Every method estimates
    a gamma, subtracts :math:`\gamma'(C - \bar C)` from the outcome, and regresses what is left on
    the text; the noise of gamma enters all standard errors.

    Parameters
    ----------
    method : str, default "plr"
        - "plr": gamma by partialling the text out of outcome and confounder, cross-fitted.
        - "iv": gamma by two-stage least squares with `instruments`, which move the confounder and
          nothing else. The text is no control there: a text that follows the confounder would bias
          gamma wherever something hidden moves outcome and confounder.
        - "joint": least squares on features and confounders at once.
        - "fixed_effects": the same beside absorbed effects of columns with many levels; features
          of a text that these or other features determine are left out and counted.

        And what is done instead, for comparison, each right under its own assumption: "ignore"
        (gamma = 0), "residualise" (slope of the outcome on the confounder alone; biased when text
        quality goes with the confounder), "invariance" (best score that is uncorrelated with the
        confounder), "input" (the confounder is one more regressor, penalised or grown like any
        other, and averaged over at use).
    encoder : encoder of causalrm.text, optional
        For a column of texts; `TfidfText()` by default. It is fitted anew in every fold.
    nuisance : float or scikit-learn regressor, optional
        Learner of nuisances and of the reward model, copied and seeded for each fit. A number is
        the penalty of linear ones (half of it times the squared coefficients of standardised
        features, on half the mean squared error). By default least squares on feature columns, and
        on texts ridge regression with the penalty chosen by generalised cross-validation.
    folds : int, default 5
        Clusters and copies of one text stay in one fold. Where copies tie clusters together in a
        few large groups, nuisances must extrapolate from group to group; this is warned of where
        the standard errors do not count it.
    repeats : int, default 1
        Random splits, of which the median is taken.
    rng : None, int, SeedSequence or Generator, default 0

    Attributes
    ----------
    result_ : DeconfoundedResult
        With up to 100 clusters and linear nuisances clustered errors leave each cluster out (the
        jackknife), so that they count what its rows teach the nuisances of others; else they are
        sums of scores. Effects of the confounders under the parameter "confounder", coefficients
        of the reward model on feature columns under "reward".
    rewards_ : pandas.DataFrame
        One row per row of the data: `outcome`; `deconfounded`, the outcome at the mean confounder,
        with `std_error`, the noise of what was subtracted; `reward`, the out-of-fold value of the
        reward model, with `reward_std_error` of the model (NaN where the learner has none).

    See Also
    --------
    causalrm.PreferenceRewardModel : Learns from the pairs that `to_pairs` gives.

    References
    ----------
    Loghmani (2025), Aligning language models with observational data: opportunities and risks from
    a causal perspective, arXiv 2506.00152. Robinson (1988), Root-N-consistent semiparametric
    regression, Econometrica 56(4), 931-954, doi 10.2307/1912705. Chernozhukov et al. (2018),
    Double/debiased machine learning for treatment and structural parameters, Econometrics Journal
    21(1), C1-C68, doi 10.1111/ectj.12097. Chen et al. (2024), ODIN: disentangled reward mitigates
    hacking in RLHF, arXiv 2402.07319 (invariance).

    Examples
    --------
    >>> import causalrm as crm
    >>> df, truth = crm.datasets.make_logged_rewards(2000, rng=1)  # gamma = 1, quality = 1
    >>> roles = {"outcome": "outcome", "text": ["quality", "style"], "confounders": ["popularity"]}
    >>> fit = crm.DeconfoundedReward("plr").fit(df, **roles)
    >>> fit.to_frame().round(2)[["parameter", "term", "estimate", "std_error"]]
        parameter        term  estimate  std_error
    0  confounder  popularity      1.04       0.04
    1      reward   Intercept     -0.04       0.03
    2      reward     quality      0.95       0.03
    3      reward       style      0.03       0.03
    >>> wrong = crm.DeconfoundedReward("residualise").fit(df, **roles)
    >>> wrong.to_frame().round(2)["estimate"].tolist()
    [1.62, -0.05, 0.77, -0.32]
    """

    result_: DeconfoundedResult
    rewards_: pd.DataFrame

    def __init__(
        self,
        method: str = "plr",
        encoder: Any = None,
        nuisance: Any = None,
        folds: int = 5,
        repeats: int = 1,
        rng: RNG = 0,
    ):
        self.method = method
        self.encoder = encoder
        self.nuisance = nuisance
        self.folds = folds
        self.repeats = repeats
        self.rng = rng

    # ------------------------------------------------------------------ fitting

    def fit(
        self,
        data: Any,
        *,
        outcome: str,
        text: str | Sequence[str],
        confounders: Formula | None = None,
        instruments: Formula | None = None,
        absorb: str | Sequence[str] | None = None,
        cluster: str | None = None,
        weights: str | None = None,
        timing: Mapping[str, str] | None = None,
    ) -> Self:
        """Estimate what the confounders do, and the reward of text without them.

        Parameters
        ----------
        data : data frame, path of parquet files, pyarrow data set, or Dask data frame
            One row per logged outcome; every column that is used must be complete. With feature
            columns and linear nuisances rows are read in blocks; else they are held in memory.
        outcome : str
            Numeric column.
        text : str or list of str
            One column of texts, or numeric feature columns.
        confounders : list of str or formula
            Columns known to move the outcome. Formulas may have interactions, splines and ``C(x)``.
        instruments : list of str or formula, optional
            For "iv", at least as many columns as there are confounder columns.
        absorb : str or list of str, optional
            For "fixed_effects", columns whose levels have an effect each.
        cluster : str, optional
            Column of labels of dependent rows.
        weights : str, optional
            Column of sampling weights of at least 0; only their ratios matter.
        timing : mapping of str to str, optional
            For columns of confounders and instruments: "pre" (fixed before the text was written),
            "post" (after it was shown: refused), or "text" (computed from the text: its effect is
            then taken out of the reward on purpose).

        Returns
        -------
        DeconfoundedReward
            Itself, with `result_` and `rewards_`.

        Raises
        ------
        DataError
            When a column or an option cannot be used.
        IdentificationError
            When the data cannot tell the effects of text and confounder apart, or a confounder is
            a consequence of the text.
        """
        log: list[str] = []
        evidence.check_options(self, text, confounders, instruments, absorb)
        task = Task(
            method=self.method, outcome=outcome, cluster=cluster, weights=weights,
            text=text if isinstance(text, str) else tuple(text),
            absorb=(absorb,) if isinstance(absorb, str) else tuple(absorb or ()),
            encoder=self.encoder, nuisance=self.nuisance, n_folds=int(self.folds),
        )  # fmt: skip
        formulas = {
            role: formula_text(value, role)
            for role, value in (("confounders", confounders), ("instruments", instruments))
            if value is not None
        }
        names = [task.text] if isinstance(task.text, str) else list(task.text)
        numbers = [outcome, *([] if task.is_text else names), *([weights] if weights else [])]
        groups = [*(names if task.is_text else []), *([cluster] if cluster else [])]
        source, rows, designs, reader = prepare(data, formulas, numbers, groups)
        for column in reader.columns:
            if column.name in names:
                refuse_offset(column)
        if weights is not None:
            check_weights(rows, weights, source.index)
        used = {role: [c.name for c in design.columns] for role, design in designs.items()}
        evidence.check_timing(used, timing or {}, outcome, names, log)
        task.place(rows, designs, reader.levels, self._generator())
        if task.is_text and "confounders" in designs:
            evidence.check_derived(task, designs["confounders"], timing or {})
        evidence.check_outcome(task, log)
        evidence.check_clusters(task, log)
        if self.method == "fixed_effects":
            fitted = fit_absorbed(data, task, formulas.get("confounders"), log)
        else:
            with near_singular(log):
                fitted = fit_method(task, spawn(self.rng, self.repeats), log)
        roles = {
            "outcome": outcome, "text": task.text, "confounders": confounders,
            "instruments": instruments, "absorb": absorb, "cluster": cluster, "weights": weights,
            "timing": None if timing is None else dict(timing),
        }  # fmt: skip
        self._finish(task, fitted, roles, source.index, log)
        return self

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(resolve(self.rng)[1])

    def _finish(
        self, task: Task, fitted: Fitted, roles: dict[str, Any], index: pd.Index, log: list[str]
    ) -> None:
        self.rewards_ = fitted.rewards.set_axis(index, axis=0)
        self.model_ = fitted.model
        self._kept = fitted.kept
        design = task.designs.get("confounders")
        self.result_ = DeconfoundedResult(
            call=self._call(roles),
            n_obs=task.rows.n_obs - fitted.dropped,
            entropy=resolve(self.rng)[1],
            assumptions=evidence.assumptions(task, fitted, roles["timing"] or {}),
            diagnostics=fitted.diagnostics,
            warnings=tuple(log),
            parameter=fitted.parameter,
            term=fitted.term,
            estimates=fitted.estimates,
            covariances=fitted.covariances,
            covariance="cluster" if "cluster" in fitted.covariances else "robust",
            n_params=len(fitted.estimates),
            df_resid=None if task.n_clusters is None else task.n_clusters - 1.0,
            method=task.method,
            outcome=task.outcome,
            text=task.text,
            centre=fitted.centre,
            design=None if design is None else design.to_dict(),
            effects=fitted.effects,
            sigma=fitted.sigma,
            ar_moments=fitted.ar_moments,
            cluster_sums=fitted.cluster_sums,
            gammas=fitted.gammas,
            overlap=fitted.overlap,
        )

    # ------------------------------------------------------------------ predictions

    def _features(self, data: Any) -> tuple[Source, Rows, np.ndarray]:
        """New rows and their features (p, n)."""
        r = self.result_
        if isinstance(r.text, str):
            source = Source(data)
            reader, rows = scan(source, categories=[r.text])
            model = self._model()
            levels = texts(reader.levels[r.text], f"column {r.text!r}")
            return source, rows, np.ascontiguousarray(model.encode(levels)[rows.columns[r.text]].T)
        source, rows = encode_new(data, [], numbers=r.text)
        return source, rows, np.stack([rows.columns[name] for name in r.text])

    def _model(self) -> Any:
        if not hasattr(self, "model_"):
            raise DataError(
                "This estimator was restored from JSON, which cannot hold its encoder or learner. "
                "Its tables and plots work; to predict, restore it from a pickle, or fit it again."
            )
        return self.model_

    def predict_reward(self, data: Any, level: float = 0.95) -> pd.DataFrame:
        """Reward of new texts, with the confounder at its mean over the rows of the fit.

        Parameters
        ----------
        data : data frame
            With the column or columns of text.
        level : float

        Returns
        -------
        pandas.DataFrame
            One row per row of `data`: `reward, std_error, conf_low, conf_high`; the uncertainty is
            that of the reward model, gamma included, without the bias of a penalty, and NaN where
            the learner gives none.
        """
        z = quantile(level, self.result_._df)
        source, _, x = self._features(data)
        reward, se = self._rewards(x)
        columns = {
            "reward": reward, "std_error": se, "conf_low": reward - z * se,
            "conf_high": reward + z * se,
        }  # fmt: skip
        return pd.DataFrame(columns, index=source.index)

    def _rewards(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = self.result_
        if len(r._part("reward")):
            return r.rewards(x)
        found: tuple[np.ndarray, np.ndarray] = self._model().rewards(x)
        return found

    def transform(self, data: Any) -> pd.DataFrame:
        """Deconfounded outcomes of new rows.

        Parameters
        ----------
        data : data frame
            With the columns of outcome, confounders, absorbed effects and text.

        Returns
        -------
        pandas.DataFrame
            With the columns of `rewards_`; here `reward` is the value of the final reward model,
            and `std_error` is NaN where there are absorbed effects.

        Raises
        ------
        DataError
            When a column cannot be used, or an absorbed column has levels that the fit had not.
        """
        r = self.result_
        design = None if r.design is None else Design.from_dict(r.design)
        source, rows = encode_new(data, [] if design is None else [design], numbers=[r.outcome])
        n = rows.n_obs
        y = np.asarray(rows.columns[r.outcome], dtype=float)
        _, _, x = self._features(data)
        if r.method == "input" and not len(r.gamma):
            assert design is not None
            c = design.slopes(rows.columns, n)
            removed, se = self._model().removed(x, c), np.full(n, np.nan)
        else:
            removed, se = r.subtracted(rows.columns, n)
            if r.effects:
                removed, se = removed + effects_of(r.effects, data), np.full(n, np.nan)
        reward, reward_se = self._rewards(x)
        columns = {
            "outcome": y, "deconfounded": y - removed, "std_error": se, "reward": reward,
            "reward_std_error": reward_se,
        }  # fmt: skip
        return pd.DataFrame(columns, index=source.index)

    # ------------------------------------------------------------------ uses

    def to_pairs(
        self,
        data: Any,
        *,
        prompt: str | None = None,
        answer: str | None = None,
        by: str = "deconfounded",
        min_margin: float = 0.0,
        max_pairs: int | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> pd.DataFrame:
        """Preference pairs of texts, ordered by the deconfounded outcome.

        Parameters
        ----------
        data : data frame
            The rows of the fit or new ones, with all columns of the fit but instruments, weights
            and clusters.
        prompt : str, optional
            Column of what the texts answer; only texts of one prompt are compared. Without it all
            are answers to one empty prompt.
        answer : str, optional
            Column of what stands in `chosen` and `rejected`; the column of texts, or where the fit
            had feature columns the row labels, by default.
        by : {"deconfounded", "reward"}
            Order by the outcomes themselves, or by the reward model.
        min_margin : float
            Only pairs that differ by more are given.
        max_pairs : int, optional
            Per prompt, drawn at random where there are more.
        path : str or path, optional
            Also write the pairs as JSON lines.

        Returns
        -------
        pandas.DataFrame
            `prompt, chosen, rejected, margin, weight`, and `margin_std_error`, the noise of what
            was subtracted. The weight, at most 1, is the inverse variance of the margin relative to
            that of two texts with the same confounders.

        Raises
        ------
        DataError
            When there are no such columns, or no pairs are left.

        Notes
        -----
        A margin makes pairs easy: they are for learning. Judge a reward model on pairs that were
        not chosen by their outcome, or by `best_of_n`.
        """
        check_choice("by", by, ("deconfounded", "reward"))
        r = self.result_
        answer = answer or (r.text if isinstance(r.text, str) else None)
        if by == "reward":  # needs neither outcomes nor confounders
            source, _, x = self._features(data)
            score, _ = self._rewards(x)
        else:
            found = self.transform(data)
            source, score = Source(data), found["deconfounded"].to_numpy()
        c = np.empty((0, len(score)))
        if by == "deconfounded" and r.design is not None:
            c = r.confounders(encode_new(data, [Design.from_dict(r.design)])[1].columns, len(score))
        frame = pair_frame(
            score,
            np.full(len(score), "", dtype=object) if prompt is None else labels_of(data, prompt),
            source.index.to_numpy() if answer is None else labels_of(data, answer),
            float(min_margin), max_pairs, self._generator(), r.sigma, c, r._block("confounder"),
        )  # fmt: skip
        if path is not None:
            write_jsonl(frame, path)
        return frame

    def best_of_n(self, n: int = 4, *, prompt: Any = None, level: float = 0.95) -> pd.DataFrame:
        """Value of showing the best of n candidates by the out-of-fold reward.

        Candidates are drawn from the rows of the fit. The choice is made by a reward model that did
        not see the row, and valued by deconfounded outcomes, so that no candidate is rewarded for
        the luck by which it was chosen. The value is what the method believes: a comparator values
        its choice by its own outcomes.

        Parameters
        ----------
        n : int
        prompt : array-like of shape (n_obs,), optional
            Labels of the prompts of the rows, such as ``df["prompt"]``: candidates are then of one
            prompt, and prompts with fewer than n are left out.
        level : float

        Returns
        -------
        pandas.DataFrame
            Rows "best of n", "random" and "gain" with the columns of a result frame. Intervals hold
            the sampling of rows (or clusters), the noise of gamma and the confounder's mean, for
            the reward model as it is; those of a fit with absorbed effects hold the noise of gamma
            only in part. What clusters do to gamma is that of the fit, the jackknife or scores;
            there is no wild bootstrap.

        Raises
        ------
        DataError
            When n or the labels cannot be used, or the estimator was restored from JSON.
        """
        if not hasattr(self, "_kept"):
            self._model()
        return best_of(self.rewards_, self._kept, n, prompt, level, self.result_._df)

    def sensitivity(
        self, term: str | None = None, *,
        benchmarks: Sequence[str] | Mapping[str, tuple[float, float]] | None = None,
        null: float = 0.0, outcome_sd: float | None = None,
    ) -> SensitivityResult:  # fmt: skip
        """How strong something hidden must be to change the effect of a confounder.

        Parameters
        ----------
        term : str, optional
            A confounder column, or for "iv" an instrument; the first by default. What is examined
            for "iv" is the effect of the instrument on the outcome: something hidden that explains
            it away explains the effect of the confounder away.
        benchmarks : list of str, or mapping of str to (cf_y, cf_d), optional
            Feature columns whose strength, and "text" for all of it, a hidden confounder is
            compared with; or strengths of your own. By default "text" and the five strongest.
        null : float
            The effect against which robustness is measured; 0 for "iv".
        outcome_sd : float, optional
            Standard deviation of the outcome: adds an E-value.

        Returns
        -------
        SensitivityResult
            Robustness values, bounds and their plots.

        Raises
        ------
        DataError
            When there is no such column or benchmark, or the method is a comparator.
        """
        r = self.result_
        row = examined(r, term)
        if not isinstance(benchmarks, Mapping):
            benchmarks = chosen(r.diagnostics.get("benchmarks"), str(row.name), benchmarks)
        return sensitivity(
            float(row["estimate"]), float(row["std_error"]), scale=float(row["scale"]), null=null,
            benchmarks=benchmarks, outcome_sd=outcome_sd, name=str(row.name), n_obs=r.n_obs,
        )  # fmt: skip
