"""Shapley values of prompt components, or of the players of any game."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from causalrm.attribution import _kernels
from causalrm.attribution._interactions import interactions, least_coalitions
from causalrm.attribution._refine import refine
from causalrm.attribution._report import (
    assumptions,
    differences,
    endpoint_of,
    positive,
    trace_frame,
    variants_frame,
)
from causalrm.attribution._run import (
    Budget,
    Evaluated,
    Game,
    Run,
    Spent,
    interleaved,
    outcomes,
    walked,
)
from causalrm.attribution.archive import Archive, header
from causalrm.attribution.design import keys, next_coalitions, prefixes, random_orders
from causalrm.attribution.estimators import METHODS, Attribution, estimate
from causalrm.attribution.result import AttributionResult
from causalrm.attribution.template import Baseline, PromptTemplate
from causalrm.attribution.values import Value, _PromptValue
from causalrm.core import random
from causalrm.core.errors import CausalRMWarning, DataError, IdentificationError, warn
from causalrm.core.estimator import Estimator
from causalrm.core.parallel import blas_limit
from causalrm.llm.plan import Plan

KINDS = ("shapley", "owen", "ordered")
_FREE_ORDERS = 4000  # where all coalitions are known


class PromptShapley(Estimator):
    """Attribute what a model does to the components of its prompt, with standard errors.

    Parameters
    ----------
    method : str, default "auto"
        "exact" asks all coalitions, up to 20 players; "permutation" walks through orders and their
        reverses;
        "kernel", "leverage", "odd_gp", "link", "sparse" and "tree" read pairs of complementary
        coalitions. "auto" is exact where the budget allows, and otherwise takes the surrogate
        with the smallest error at pairs left out of its fit.
    budget : Budget, optional
    order : int, default 1
        Interactions of up to so many components.
    rng : None, int, SeedSequence or Generator, default 0
    kind : {"shapley", "owen", "ordered"}
        Owen values respect groups: members of one stay together. Ordered (asymmetric) values
        respect stages: an earlier component joins before a later one. Both are found by
        walking through admissible orders.

    Attributes
    ----------
    result_ : AttributionResult
    archive_ : Archive
        All replies, also after an error or an interrupt.

    References
    ----------
    Shapley (1953), doi:10.1515/9781400881970-018. Owen (1977), doi:10.1007/978-3-642-45494-3_7.
    Frye, Rowat, Feige (2020), arXiv:1910.06358. Mohammadi (2024), arXiv:2404.01332.

    Examples
    --------
    >>> import numpy as np
    >>> def glove(Z):  # two left gloves, one right: a pair is worth one
    ...     return Z[:, :2].any(axis=1) & Z[:, 2]
    >>> fit = PromptShapley().fit(["left", "other left", "right"], glove)
    >>> fit.to_frame()[["term", "estimate"]].round(4)
             term  estimate
    0        left    0.1667
    1  other left    0.1667
    2       right    0.6667
    """

    result_: AttributionResult
    archive_: Archive

    def __init__(
        self,
        method: str = "auto",
        budget: Budget | None = None,
        order: int = 1,
        rng: random.RNG = 0,
        *,
        kind: str = "shapley",
    ) -> None:
        self.method = method
        self.budget = budget
        self.order = order
        self.rng = rng
        self.kind = kind

    def fit(
        self, template: Any, value: Any, *, archive: Archive | str | Path | None = None
    ) -> Self:
        """Ask for coalitions until the budget is used up, and estimate.

        Parameters
        ----------
        template : PromptTemplate, or list of names or Components
        value : ChoiceValue, ScoreValue, or callable
            With a list of names: ``f(Z: bool[m, n]) -> float[m]``.
        archive : Archive, str or path, optional
            Where every reply is kept. What it holds is not asked again, so that the same call
            goes on where an interrupted one stopped.

        Returns
        -------
        self

        Raises
        ------
        DataError
            When the budget is too small, a value is not finite or has the wrong shape, or the
            archive is of another game. Replies so far are in `archive_`.
        BackendError
            When the value function raises, or a call gives no answer at all.
        """
        return self._fit(self._game(template, value), archive)

    def _fit(self, game: Game, archive: Archive | str | Path | None) -> Self:
        self.archive_ = archive if isinstance(archive, Archive) else Archive(archive)
        rng, entropy = self._entropy(self.archive_)
        names = [c.name for c in game.players]
        self.archive_.open(header(names, game.mark, game.value.fingerprint(), entropy))
        run = Run(game, self.archive_, self.budget or Budget())
        log: list[str] = []
        trace: list[tuple[int, int, Attribution]] = []
        total = self._affordable(game)
        try:
            stopped = self._drive(run, total, rng, entropy, trace)
        except Spent as reason:
            stopped = str(reason)
        self.result_ = self._result(game, run, entropy, trace, stopped, log)
        return self

    def reanalyse(self, template: Any, value: Any, archive: Archive | str | Path) -> Self:
        """Fit from archived replies alone, without a call.

        Parameters
        ----------
        template, value
            As in `fit`. Another target or scale of a `ChoiceValue` is read off the same
            replies.
        archive : Archive, str or path

        Returns
        -------
        self
        """
        game = self._game(template, value)
        self.archive_ = archive if isinstance(archive, Archive) else Archive(archive)
        if not len(self.archive_):
            raise DataError(f"{self.archive_!r} is empty: there is nothing to analyse.")
        names = [c.name for c in game.players]
        self.archive_.open(header(names, game.mark, game.value.fingerprint(), 0))
        run = Run(game, self.archive_, Budget())
        run.asked = set(self.archive_.rows)
        run.calls = len(self.archive_)
        entropy = random.resolve(self.rng)[1]
        self.result_ = self._result(game, run, entropy, [], "archive", [])
        return self

    def refine(
        self,
        template: Any,
        value: Any,
        *,
        least: float = 0.0,
        level: float = 0.95,
        archive: Archive | str | Path | None = None,
    ) -> Self:
        """Attribute to groups first, and look inside those whose value is not zero.

        For long texts: sections, then the sentences of the sections that matter, then their
        words. The players are the outermost groups; a group whose interval excludes zero is
        replaced by what it holds, and so on until none is left. Owen values: the parts of a
        group share its value.

        Parameters
        ----------
        template, value
            As in `fit`, with ``Component(..., group=...)``; `PromptTemplate.from_text` gives
            nested groups.
        least : float, default 0
            Groups with a value of at most this size stay whole, too.
        level : float, default 0.95
            Of the intervals that decide; they are not corrected for the number of groups.
        archive : Archive, str or path, optional
            As in `fit`. What a stage has asked the next does not ask again.

        Returns
        -------
        self
            The values of the last stage, with ``kind="owen"``. The budget is that of each
            stage. ``result_.diagnostics["refined"]`` names the groups that were opened.
        """
        game = self._game(template, value)
        whole = archive if isinstance(archive, Archive) else Archive(archive)
        entropy = self._entropy(whole)[1]
        names = [c.name for c in game.players]
        whole.open(header(names, game.mark, game.value.fingerprint(), entropy))

        def stage(kind: str) -> PromptShapley:
            method = "permutation" if kind == "owen" and self.method != "exact" else self.method
            return PromptShapley(method, self.budget, rng=entropy, kind=kind)

        self.archive_ = whole
        fit, opened = refine(lambda: Game(template, value), whole, stage, least, level)
        seen = dict(fit.result_.diagnostics) | {"refined": opened}
        self.result_ = replace(fit.result_, call=self._call({}), kind="owen", diagnostics=seen)
        return self

    def _entropy(self, archive: Archive) -> tuple[np.random.Generator, int]:
        """The seed, or without one that of an archive which is continued."""
        stored = archive.header.get("entropy")
        return random.resolve(int(stored) if stored and self.rng is None else self.rng)

    def plan(self, template: PromptTemplate, value: Value) -> Plan:
        """Count calls, tokens and money of `fit` without sending anything.

        Adaptive stopping may need fewer.
        """
        game = self._game(template, value)
        if not isinstance(game.value, _PromptValue):
            raise DataError("Only value functions with a client have a plan.")
        Z, times = next_coalitions(
            game.n, self._affordable(game), random.resolve(self.rng)[0], noisy=game.noisy
        )
        rows = np.repeat(np.arange(len(Z)), times * game.cost_of_one)
        step = np.concatenate([np.arange(t * game.cost_of_one) for t in times])
        price = self.budget.price if self.budget else None
        return game.value.plan(
            template, Z[rows], step % game.variants, step // game.variants, price
        )

    def sensitivity(
        self, template: PromptTemplate, value: Value, policies: dict[str, Baseline]
    ) -> pd.DataFrame:
        """Compare values under several meanings of "absent".

        Parameters
        ----------
        template, value
            As in `fit`; each policy is a fit of its own, with its own calls.
        policies : dict of str to Drop, Mask, Neutral or Resample
            Applied to all components.

        Returns
        -------
        DataFrame
            The columns of every result frame after `group`, the policy; `difference` from the
            first policy, with `difference_se` and `difference_p` as if the two were independent.
        """
        frames = {}
        for name, baseline in policies.items():
            fit = type(self)(**self.get_params(deep=False))
            frames[name] = fit.fit(template.with_baseline(baseline), value).to_frame()
        return differences(frames)

    def _game(self, template: Any, value: Any) -> Game:
        if self.method not in METHODS:
            raise DataError(f"method must be one of {METHODS}; got {self.method!r}.")
        if self.kind not in KINDS:
            raise DataError(f"kind must be one of {KINDS}; got {self.kind!r}.")
        if self.kind != "shapley" and self.method not in ("auto", "exact", "permutation"):
            raise DataError(
                f"kind={self.kind!r} walks through orders: method must be 'auto' or "
                f"'permutation'; got {self.method!r}."
            )
        if isinstance(self.order, bool) or self.order not in (1, 2, 3):
            raise DataError(f"order must be 1, 2 or 3; got {self.order!r}.")
        game = Game(template, value)
        if self.kind == "owen" and not any(c.group for c in game.players):
            raise DataError("kind='owen' needs groups: Component(..., group='...').")
        if self.kind == "ordered" and len({c.stage for c in game.players}) < 2:
            raise DataError("kind='ordered' needs stages: Component(..., stage=1).")
        return game

    def _affordable(self, game: Game) -> int:
        """Coalitions (or replies to them) that the budget allows."""
        n, calls = game.n, self.budget.calls if self.budget else None
        if calls is None:
            total = 2**n if n <= 8 else 50 * n
            if game.noisy:
                total = max(total, 50 * n)
            if self.method == "exact" and n <= 20 and getattr(game.value, "client", None) is None:
                total = max(total, 2**n)  # asked for, and calls of a plain function are free
        else:
            total = int(calls) // game.cost_of_one
        walks = self.method == "permutation" or self.kind != "shapley"
        least = 2 + 4 * (n - 1) if walks else 8
        if self.method == "exact" or n < 3:
            least = 2**n
        if self.order > 1:
            least = max(least, least_coalitions(n, self.order))
        if total < min(least, 2**n):
            allowed = f"The budget of {calls} calls allows"
            if calls is None:
                allowed = "Without a number of calls a fit has"
            raise DataError(
                f"{allowed} {total} coalitions, where each needs {game.cost_of_one} calls "
                f"(wordings x option orders x replies); method {self.method!r} with {n} players "
                f"needs {min(least, 2**n)} or more, {min(least, 2**n) * game.cost_of_one} calls. "
                "Give budget=Budget(calls=...), or use another method."
            )
        return total

    def _drive(
        self,
        run: Run,
        total: int,
        rng: np.random.Generator,
        entropy: int,
        trace: list[tuple[int, int, Attribution]],
    ) -> str:
        """Go from checkpoint to checkpoint, each with twice the coalitions of the last."""
        game, n = run.game, run.game.n
        budget = run.budget
        complete = n <= 20 and 2**n <= total
        walks = not (complete and not game.noisy) and (
            self.method == "permutation" or self.kind != "shapley"
        )
        client = getattr(game.value, "client", None)
        if client is not None and not game.noisy:
            spare = 0 if budget.calls is None else 2
            if not complete or 2**n <= total - spare:
                ends = np.array([[False] * n, [True] * n])
                run.ask(ends, np.ones(2, dtype=int))
                run.repeat(ends)
                total -= spare
        orders = np.zeros((0, n), dtype=int)
        goal, met = max(2 * n + 2, 16), 0
        if complete and not game.noisy:
            goal = total
        elif self.method == "exact":
            goal = 2**n
        while True:
            goal = min(goal, total)
            have = sum(run.times.values()) // game.value.replies
            if walks:
                pairs = max(2 - len(orders) // 2, (goal - have) // max(2 * (n - 1), 1))
                new = random_orders(n, 2 * pairs, rng, **self._structure(game))
                orders = np.concatenate([orders, new]) if pairs else orders
                run.archive.add_orders(orders)
                Z = prefixes(orders)
                Z = Z[[mask not in run.times for mask in keys(Z)]]
                times = np.ones(len(Z), dtype=int)
            else:
                Z, times = next_coalitions(n, goal - have, rng, run.Z, noisy=game.noisy)
                Z, times = interleaved(Z, times)
            run.ask(Z, times)
            spent = have + int(times.sum())
            left = total - spent >= 2 * (n - 1) if walks else len(Z) > 0  # a pair of orders more
            last = goal >= total or not left
            if last and not trace:
                return "complete" if complete and not game.noisy else "calls"
            if len(Z):
                found = run.evaluated()
                trace.append((run.calls, len(found.Z), self._estimate(game, found, run, entropy)))
            if budget.target_se is not None and not last:
                met = met + 1 if trace[-1][2].std_error.max() <= budget.target_se else 0
                if met == 2:
                    return "target_se"
            if last:
                return "calls"
            goal *= 2

    def _structure(self, game: Game) -> dict[str, Any]:
        if self.kind == "owen":
            return {"groups": game.levels}
        if self.kind == "ordered":
            return {"stages": np.array([c.stage for c in game.players])}
        return {}

    def _estimate(
        self, game: Game, found: Evaluated, run: Run, entropy: int, wording: int | None = None
    ) -> Attribution:
        mean, noise = found.mean, found.noise
        count, rng = found.count, np.random.default_rng(entropy)
        if wording is not None:
            mean, noise = found.values[:, wording], found.var[:, wording]
            count = np.maximum(count // game.wordings, 1)
        orders = np.array(run.archive.orders, dtype=int).reshape(-1, game.n)
        method = self.method
        complete = game.n <= 20 and len(found.Z) == 2**game.n
        if self.kind != "shapley":
            levels = game.levels if self.kind == "owen" else None
            if complete and not noise.any() and levels is not None and len(levels) == 1:
                table = np.empty(2**game.n)
                table[found.Z @ (1 << np.arange(game.n))] = mean
                phi, zero = _kernels.owen(table, levels[0]), np.zeros((game.n, game.n))
                gap = float(phi.sum() - table[-1] + table[0])
                return Attribution(phi, zero, zero, "exact", gap, {}, True)
            method = "permutation"
        if method == "auto" and complete:  # unbiased, where a surrogate is only nearly so
            method = "exact"
        if method == "permutation" and complete and not len(orders):
            orders = random_orders(game.n, _FREE_ORDERS, rng, **self._structure(game))
        if method == "permutation":
            orders = walked(orders, found.Z)
        with blas_limit(1):  # many small matrices
            return estimate(
                found.Z, mean, noise, count, method=method,
                bernoulli=game.value.binary, orders=orders, rng=rng,
            )  # fmt: skip

    def _result(
        self,
        game: Game,
        run: Run,
        entropy: int,
        trace: list[tuple[int, int, Attribution]],
        stopped: str,
        log: list[str],
    ) -> AttributionResult:
        try:
            found = run.evaluated(only_asked=False)
            attribution = self._estimate(game, found, run, entropy)
        except IdentificationError as error:
            if stopped not in ("seconds", "cost"):
                raise
            raise IdentificationError(
                f"The budget of {stopped} ended after {run.calls} calls, too early for an "
                f"estimate: {error} The replies are in archive_; fit again with it."
            ) from error
        if not trace or trace[-1][0] != run.calls:
            trace.append((run.calls, len(found.Z), attribution))
        template, df = np.zeros((game.n, game.n)), 0
        if game.wordings > 1:
            df = game.wordings - 1
            each = [self._estimate(game, found, run, entropy, t) for t in range(game.wordings)]
            between = np.atleast_2d(np.cov(np.array([a.phi for a in each]).T))
            own = np.mean([a.cov_reply for a in each], axis=0)
            template = positive(between - own) / game.wordings
        seen = outcomes(run.archive)
        failed = seen[seen["outcome"].isin(["refused", "empty", "unparseable", "no_mass"])]
        if len(failed):
            shown = ", ".join(f"{c} {o}" for o, c in zip(failed["outcome"], failed["count"],
                                                         strict=True))  # fmt: skip
            warn(
                f"Of {len(run.archive)} replies {shown}; they count as not picking the target, or "
                "are scored as they are.", CausalRMWarning, log,
            )  # fmt: skip
        endpoint = endpoint_of(game, run)
        if endpoint.get("differing"):
            warn(
                f"The endpoint is not deterministic: {endpoint['differing']} of "
                f"{endpoint['repeated']} repeated calls gave another value (sd "
                f"{endpoint['sd']:.3g}). That is part of the standard errors.",
                CausalRMWarning, log,
            )  # fmt: skip
        size = found.Z.sum(axis=1)
        table = None
        if self.order > 1:
            table = interactions(found.Z, found.mean, found.noise, game.players, self.order)
        return AttributionResult(
            call=self._call({}),
            n_obs=len(run.archive),
            entropy=entropy,
            assumptions=assumptions(game, attribution, endpoint),
            diagnostics={"endpoint": endpoint, "stopped": stopped, "paid_calls": run.paid},
            warnings=tuple(log),
            names=tuple(c.name for c in game.players),
            groups=tuple(tuple(c.group) for c in game.players),
            roles=tuple(c.role for c in game.players),
            kind=self.kind,
            method=attribution.method,
            phi=attribution.phi,
            cov_sampling=attribution.cov_sampling,
            cov_reply=attribution.cov_reply,
            cov_template=template,
            df=attribution.df,
            template_df=df,
            value_none=float(found.mean[size == 0][0]),
            value_all=float(found.mean[size == game.n][0]),
            efficiency_gap=attribution.efficiency_gap,
            held_out=dict(attribution.held_out),
            n_coalitions=len(found.Z),
            outcomes=seen,
            variants=variants_frame(game, found, size),
            trace=trace_frame(trace, game),
            interactions=table,
            segments=game.segments,
        )
