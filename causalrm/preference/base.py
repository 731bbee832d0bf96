"""What estimators of items from votes share: reading, clusters, covariances."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

from causalrm.core.errors import DataError, check_choice
from causalrm.core.estimator import Estimator
from causalrm.core.inference import warn_of_few
from causalrm.core.result import LikelihoodResult
from causalrm.preference.votes import Roles, Votes, read


class VoteModel(Estimator):
    """An estimator whose data are votes between two items each."""

    covariance: str

    def fit(
        self,
        data: Any,
        *,
        a: str,
        b: str,
        outcome: str,
        weights: str | None = None,
        counts: str | None = None,
        cluster: str | None = None,
    ) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        data : data frame, path of parquet files, pyarrow data set, or Dask data frame
            One row per comparison, or per heap of equal ones with `counts`. Parquet files and Dask
            collections are read part by part; the codes of their votes are kept in memory.
        a, b : str
            Columns of the two items.
        outcome : str
            Column of 1 (a wins), 0 (b wins) and 0.5 (tie), or of the labels win, loss and tie. With
            ties as half wins any share of a win between 0 and 1 will do.
        weights : str, optional
            Column of sampling weights of at least 0; only their ratios matter. Rows of weight 0
            are left out.
        counts : str, optional
            Column of the number of votes that a row stands for.
        cluster : str, optional
            Column that labels votes that depend on one another: the rater, or the prompt.

        Returns
        -------
        self
            With `result_`.

        Raises
        ------
        DataError
            When a column is missing, incomplete or of the wrong kind, or an item meets itself.
        IdentificationError
            When the votes leave a parameter without a finite estimate, such as an item that only
            wins, or items that were never connected; the message names it and the remedy.
        ConvergenceError
            When the likelihood has no maximum.
        """
        self._check_options()
        roles = Roles(a, b, outcome, weights, counts, cluster)
        votes = read(data, roles, self._formula())
        log: list[str] = []
        if votes.cluster is None and self.covariance == "cluster":
            raise DataError(
                "Expected a cluster column for covariance='cluster', but fit was called without "
                "one. Give fit(..., cluster=...)."
            )
        if votes.cluster is not None:
            check_clusters(votes.n_clusters, log)
        self.result_ = self._fit(votes, roles, log)
        return self

    def _formula(self) -> str | None:
        return None

    def _check_options(self) -> None:
        kinds = ("auto", "model", "robust", "cluster")
        check_choice("covariance", self.covariance, kinds)

    @abstractmethod
    def _fit(self, votes: Votes, roles: Roles, log: list[str]) -> LikelihoodResult:
        """Fit to votes that were read and checked."""

    def _used(self, votes: Votes) -> str:
        """Kind of the covariance that the result shows."""
        if self.covariance != "auto":
            return self.covariance
        return "robust" if votes.cluster is None else "cluster"


def check_penalty(penalty: Any) -> None:
    """Refuse a penalty that is no number of at least 0."""
    try:
        bad = not 0.0 <= float(penalty or 0.0) < float("inf") or isinstance(penalty, str)
    except (TypeError, ValueError):
        bad = True
    if bad:
        raise DataError(f"Expected penalty to be a number of at least 0, but saw {penalty!r}.")


def check_clusters(n_clusters: int, log: list[str] | None) -> None:
    """Refuse a single cluster, and warn of few."""
    if n_clusters < 2:
        raise DataError("Expected at least two clusters, but saw one. Leave cluster out.")
    warn_of_few(n_clusters, log)
