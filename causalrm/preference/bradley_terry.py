"""Strengths of items from paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from causalrm.core.design import Design, encode_new, formula_text
from causalrm.core.errors import (
    DataError,
    IdentificationError,
    IdentificationWarning,
    check_choice,
    warn,
)
from causalrm.core.parallel import blas_limit
from causalrm.core.result import Assumption
from causalrm.preference import _kernels as K
from causalrm.preference.base import VoteModel, check_penalty
from causalrm.preference.fitting import Setup, check_connected, covariances, newton
from causalrm.preference.result import BradleyTerryResult
from causalrm.preference.votes import Heaps, Roles, Votes, heap, locate_labels

_MODELS = {
    ("half", "logit"): K.HALF_LOGIT,
    ("half", "probit"): K.HALF_PROBIT,
    ("davidson", "logit"): K.DAVIDSON,
    ("rao_kupper", "logit"): K.RAO_KUPPER_LOGIT,
    ("rao_kupper", "probit"): K.RAO_KUPPER_PROBIT,
}
_TAU = {K.DAVIDSON: "nu", K.RAO_KUPPER_LOGIT: "theta", K.RAO_KUPPER_PROBIT: "tau"}
_SMALL = 500  # items up to which linear algebra is quicker on one thread


class BradleyTerry(VoteModel):
    r"""Bradley-Terry model of paired comparisons, and its relatives.

    Item a beats item b with probability :math:`F(\theta_a - \theta_b + \delta + x^\top\beta)`,
    F being logistic (Bradley-Terry) or normal (Thurstone's case V), :math:`\theta` the strengths,
    :math:`\delta` an advantage of the first place and x covariates of the comparison, such as a
    difference in length. The first item is the reference and has strength zero.

    Parameters
    ----------
    ties : {"half", "davidson", "rao_kupper"}, default "half"
        A tie is half a win for both; or it has a probability of its own, proportional to
        :math:`\nu\sqrt{\pi_a \pi_b}` with worths :math:`\pi = e^\theta` (Davidson), or what is left
        between thresholds, P(a wins) = :math:`F(\theta_a - \theta_b - \log\vartheta)` (Rao and
        Kupper; with a probit link Glenn and David, whose threshold is `tau`).
    link : {"logit", "probit"}, default "logit"
        Davidson's model has a logit link.
    covariates : str or list of str, optional
        Names of columns, or the right-hand side of a formula, of differences a minus b. Without
        an intercept, which is the position's.
    position : bool, default False
        Estimate the advantage of the item in column `a`, for data in which it was shown first (or
        played at home). Where the place varies otherwise, give a covariate of 1, 0 and -1.
    penalty : float, optional
        Ridge: half of it times the strengths' sum of squares around their mean is subtracted from
        the sum of the log-likelihoods. Estimates are then finite for every data set. Covariates,
        ties and position are not penalised.
    covariance : {"auto", "model", "robust", "cluster", "bootstrap"}, default "auto"
        "auto" takes "cluster" when `cluster` is given to `fit`, else "robust", the sandwich.
        `result_.with_covariance` changes it after the fit. "model", the inverse information, is
        too wide where ties count half and too narrow where votes depend on one another.
    n_boot : int, default 200
        Replicates of the bootstrap, where it is asked for: of clusters where there are some, else
        of votes, with exponential weights.
    rng : None, int, SeedSequence or Generator
        Of the bootstrap.

    Attributes
    ----------
    result_ : BradleyTerryResult

    References
    ----------
    Bradley, Terry (1952), doi 10.1093/biomet/39.3-4.324; Rao, Kupper (1967),
    doi 10.1080/01621459.1967.10482901; Davidson (1970), doi 10.1080/01621459.1970.10481082;
    Glenn, David (1960), doi 10.2307/2527957.

    Examples
    --------
    >>> import pandas as pd
    >>> import causalrm as crm
    >>> df = pd.DataFrame({"a": ["x", "x", "y", "x", "z", "y"], "b": ["y", "z", "z", "y", "x", "z"],
    ...                    "outcome": ["win", "win", "win", "loss", "win", "tie"],
    ...                    "n": [30, 40, 15, 22, 5, 8]})
    >>> fit = crm.BradleyTerry(ties="davidson")
    >>> fit = fit.fit(df, a="a", b="b", outcome="outcome", counts="n")
    >>> fit.result_.ranking()[["term", "rank", "rank_low", "rank_high"]]
      term  rank  rank_low  rank_high
    0    x     1         1          2
    1    y     2         1          2
    2    z     3         3          3
    """

    result_: BradleyTerryResult

    def __init__(
        self,
        ties: str = "half",
        link: str = "logit",
        covariates: str | Sequence[str] | None = None,
        position: bool = False,
        penalty: float | None = None,
        *,
        covariance: str = "auto",
        n_boot: int = 200,
        rng: Any = None,
    ):
        self.ties = ties
        self.link = link
        self.covariates = covariates
        self.position = position
        self.penalty = penalty
        self.covariance = covariance
        self.n_boot = n_boot
        self.rng = rng

    def _formula(self) -> str | None:
        return None if self.covariates is None else formula_text(self.covariates, "covariates")

    def _fit(self, votes: Votes, roles: Roles, log: list[str]) -> BradleyTerryResult:
        model = _MODELS[self.ties, self.link]
        heaps = heap(votes, self.position)
        setup = self._setup(model, votes, heaps, roles)
        k = len(votes.items)
        if (heaps.y == 0.5).all():
            warn(
                f"All {votes.n_votes} votes are ties: strengths are equal, with standard errors of "
                "zero, as votes that do not vary say nothing of how much they might.",
                IdentificationWarning,
                log,
            )
        parts = check_connected(heaps, votes.items, setup.ridge)
        with blas_limit(1) if k <= _SMALL else nullcontext():
            fitted, sums = newton(heaps, setup, k)
            boot = self.n_boot if self.covariance == "bootstrap" else 0
            matrices, entropy = covariances(votes, heaps, setup, fitted, sums, boot, self.rng)
        strength = fitted.strength[1:] - fitted.strength[0]
        first = setup.has_tau + int(self.position)
        parameters = ["strength"] * (k - 1) + list(setup.names[: setup.has_tau])
        parameters += ["position"] * int(self.position) + ["covariate"] * len(setup.names[first:])
        diagnostics = self._diagnostics(votes, heaps, fitted.iterations, parts)
        deviance = _deviance(heaps, setup, k, fitted.value)
        diagnostics |= deviance
        return BradleyTerryResult(
            call=self._call(vars(roles)),
            n_obs=votes.n_votes,
            entropy=entropy,
            assumptions=self._assumptions(roles, matrices, deviance, parts, k),
            diagnostics=diagnostics,
            warnings=tuple(log),
            parameter=tuple(parameters),
            term=(*map(str, votes.items[1:]), *setup.names),
            estimates=np.concatenate([strength, fitted.common]),
            covariances=matrices,
            covariance=self._used(votes),
            loglik=fitted.value,
            n_params=k - 1 + len(setup.names),
            df_resid=None if votes.cluster is None else float(votes.n_clusters - 1),
            items=votes.items,
            model=model,
            position=self.position,
            design=None if votes.design is None else votes.design.to_dict(),
            votes=_votes_by_item(votes, heaps),
        )

    # ------------------------------------------------------------ checks

    def _check_options(self) -> None:
        for name, known in (
            ("ties", ("half", "davidson", "rao_kupper")),
            ("link", ("logit", "probit")),
            ("covariance", ("auto", "model", "robust", "cluster", "bootstrap")),
            ("position", (True, False)),
        ):
            check_choice(name, getattr(self, name), known)
        if (self.ties, self.link) not in _MODELS:
            raise DataError(
                "Expected a logit link with Davidson's ties, but saw link='probit'. Choose "
                "ties='rao_kupper' for a probit model with ties."
            )
        check_penalty(self.penalty)
        if not (isinstance(self.n_boot, int | np.integer) and self.n_boot > 1):
            raise DataError(f"Expected n_boot above 1, but saw {self.n_boot!r}.")

    def _setup(self, model: int, votes: Votes, h: Heaps, roles: Roles) -> Setup:
        """Names of the common parameters, after looking at whether the votes can tell them."""
        names: list[str] = []
        if len(votes.items) < 2:
            raise IdentificationError(
                f"Expected at least two items in columns {roles.a!r} and {roles.b!r}, but saw "
                f"{len(votes.items)}. Add comparisons."
            )
        if model >= K.DAVIDSON:
            shares = int(np.count_nonzero(2 * h.y != np.floor(2 * h.y)))
            if shares:
                raise DataError(
                    f"Expected outcomes 0, 0.5 or 1 in column {roles.outcome!r} with ties="
                    f"{self.ties!r}, but {shares} are shares of a win. Use ties='half'."
                )
            ties = float(h.w[h.y == 0.5].sum())
            if ties == 0 or ties == float(h.w.sum()):
                what = "none" if ties == 0 else "nothing else"
                raise IdentificationError(
                    f"Expected ties and decisions in column {roles.outcome!r} with ties="
                    f"{self.ties!r}, but of ties there are {what}. Use ties='half'."
                )
            names.append(_TAU[model])
        if self.position:
            names.append("first")
        if votes.design is not None:
            names += votes.design.slope_terms
        return Setup(model, bool(self.position), float(self.penalty or 0.0), tuple(names))

    # ------------------------------------------------------------ what is reported

    def _diagnostics(
        self, votes: Votes, h: Heaps, iterations: int, parts: dict[str, int]
    ) -> dict[str, Any]:
        out: dict[str, Any] = {
            "iterations": iterations,
            "votes": votes.n_votes,
            "ties": float(h.w[h.y == 0.5].sum()),
            "pairs": len(h.first),
            **parts,
        }
        if votes.unused:
            out["rows_without_weight"] = votes.unused
        if votes.cluster is not None:
            out["clusters"] = votes.n_clusters
        return out

    def _assumptions(
        self,
        roles: Roles,
        matrices: dict[str, np.ndarray],
        deviance: dict[str, float],
        parts: dict[str, int],
        k: int,
    ) -> tuple[Assumption, ...]:
        """What must hold, and what the data say of it."""
        fit = "compare with a model that lets cycles be, such as GeneralPreference"
        status = "untested"
        if deviance and deviance["deviance_df"] > 0:
            p = float(special.chdtrc(deviance["deviance_df"], deviance["deviance"]))
            fit = (
                f"deviance {deviance['deviance']:.1f} on {deviance['deviance_df']:g} degrees of "
                f"freedom between pairs (p = {p:.3f} if votes are independent)"
            )
            status = "doubtful" if p < 0.01 else "untested"
        if roles.cluster is None:
            rows = Assumption(
                "independent votes", "votes are independent given the items",
                "none without cluster=; name the rater or the prompt, and compare",
            )  # fmt: skip
        else:
            size = np.diag(matrices["cluster"])[: k - 1] / np.diag(matrices["robust"])[: k - 1]
            rows = Assumption(
                "independent clusters", f"votes with different {roles.cluster} are independent",
                "clustered over naive standard errors of strengths, median: "
                f"{np.sqrt(np.median(size)):.2f}",
            )  # fmt: skip
        place = (
            "estimated as an advantage of the first place"
            if self.position
            else "none; fit with position=True where a is the item shown first"
        )
        if parts["strong_components"] == 1:
            connected = ("every item is reached from every other by wins", "supported")
        else:
            connected = (
                f"{parts['strong_components']} parts without wins both ways: differences between "
                "them rest on the penalty", "doubtful",
            )  # fmt: skip
        return (
            Assumption("one strength per item", "a single number per item explains all its "
                       "comparisons", fit, status),
            rows,
            Assumption("place", "which item is a and which is b does not matter beyond what is "
                       "modelled", place),
            Assumption("connected comparisons", "comparisons join all items both ways",
                       *connected),
        )  # fmt: skip

    # ------------------------------------------------------------ prediction

    def predict_proba(self, data: Any) -> pd.DataFrame:
        """Probabilities of the outcomes of new comparisons.

        Parameters
        ----------
        data : data frame
            With the columns of the two items and of the covariates.

        Returns
        -------
        pandas.DataFrame
            One row per row of `data`, with the columns "a" and "b" (that item wins) and, where ties
            are modelled, "tie" between them. With ties as half wins, "a" is the expected share of
            a win.
        """
        self._check_native()
        r = self.result_
        source, i, j = locate_labels(data, r.call["roles"], r.items)
        strength = r.strengths.to_numpy()
        z = strength[i] - strength[j]
        common = r.estimates[len(r.items) - 1 + int(r.has_ties) :]
        if r.position:
            z = z + common[0]
        if r.design is not None:
            design = Design.from_dict(r.design)
            _, rows = encode_new(data, [design])
            x = design.slopes(rows.columns, len(z))
            z = z + common[int(r.position) :] @ x
        kinds = [("a", 1.0)] + [("tie", 0.5)] * r.has_ties + [("b", 0.0)]
        columns = {name: r._probability(z, y)[0] for name, y in kinds}
        return pd.DataFrame(columns, index=source.index)


def _votes_by_item(votes: Votes, h: Heaps) -> pd.DataFrame:
    """Weighted numbers of comparisons, wins, ties and losses of each item."""
    k = len(votes.items)
    tie = h.y == 0.5
    won, lost = np.where(tie, 0.0, h.y) * h.w, np.where(tie, 0.0, 1.0 - h.y) * h.w

    def total(for_i: np.ndarray, for_j: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(h.i, for_i, k) + np.bincount(h.j, for_j, k))

    wins, losses, ties = total(won, lost), total(lost, won), total(tie * h.w, tie * h.w)
    columns = {"n": wins + ties + losses, "wins": wins, "ties": ties, "losses": losses}
    return pd.DataFrame({"item": list(votes.items), **columns})


def _deviance(h: Heaps, s: Setup, k: int, value: float) -> dict[str, float]:
    """Twice the gap in log-likelihood to free probabilities per pair; none with covariates.

    With ties as half wins the outcomes are no multinomial, and half votes count as such.
    """
    if len(h.x) > int(s.position):
        return {}
    cell = 2 * h.pair + (h.i > h.j)
    n = np.bincount(cell, h.w)
    if s.has_tau:
        free = float(special.xlogy(h.w, h.w / np.maximum(n[cell], 1e-300)).sum())
    else:
        won = np.bincount(cell, h.w * h.y)
        share = won / np.maximum(n, 1e-300)
        free = float((special.xlogy(won, share) + special.xlog1py(n - won, -share)).sum())
    df = (1.0 + s.has_tau) * np.count_nonzero(n) - (k - 1 + len(s.names))
    return {"deviance": 2 * (free - value), "deviance_df": float(df)}
