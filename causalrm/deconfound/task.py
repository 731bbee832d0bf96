"""One fit of a deconfounded reward: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from causalrm.core.blocks import Rows
from causalrm.core.design import Design
from causalrm.core.errors import DataError, IdentificationError
from causalrm.core.inference import by_cluster, delta_std_error
from causalrm.deconfound import stages
from causalrm.text import TfidfText, texts

UNIT = "(unit)"
_KEPT = 10_000_000  # numbers of a fold's features that are kept
_RIDGES = np.logspace(-2.5, 1.5, 13)


@dataclass
class Task:
    """Roles, options and rows of one fit."""

    method: str
    outcome: str
    text: str | tuple[str, ...]
    cluster: str | None
    weights: str | None
    absorb: tuple[str, ...]
    encoder: Any
    nuisance: Any
    n_folds: int
    rows: Rows = field(init=False)
    designs: dict[str, Design] = field(init=False)
    levels: dict[str, Any] = field(init=False)
    n_clusters: int | None = field(init=False, default=None)
    unit: str | None = field(init=False, default=None)
    fold_groups: int | None = field(init=False, default=None)  # of texts and clusters tied together

    @property
    def is_text(self) -> bool:
        """Whether there is one column of texts."""
        return isinstance(self.text, str)

    @property
    def in_blocks(self) -> bool:
        """Whether sums over rows are enough: feature columns and linear nuisances."""
        return not self.is_text and self.learner is None

    @property
    def ridge(self) -> float:
        """The penalty that was asked for."""
        return float(self.nuisance) if isinstance(self.nuisance, int | float) else 0.0

    @property
    def roles(self) -> dict[str, Any]:
        """What nuisances are fitted for."""
        return {
            "outcome": self.outcome, "confounders": self.designs["confounders"],
            "n_folds": self.n_folds, "weights": self.weights,
        }  # fmt: skip

    def place(
        self, rows: Rows, designs: dict[str, Design], levels: dict[str, Any],
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        """Take the rows, and find what must stay in one fold."""
        self.designs, self.levels, self.generator = designs, levels, generator
        if rows.n_obs < 2 * self.n_folds:
            raise DataError(
                f"Expected at least two rows per fold, but saw {rows.n_obs} rows for "
                f"{self.n_folds} folds. Give more rows, or lower folds."
            )
        if not self.in_blocks and not rows.in_memory:
            rows = Rows(rows.collect(), rows.n_obs)
        self.rows, self.unit = rows, self.cluster
        if self.cluster is not None:
            self.n_clusters = len(levels[self.cluster])
        if self.is_text:
            codes = rows.columns[self.text]  # type: ignore[index]
            self.distinct = texts(levels[str(self.text)] or (), f"column {self.text!r}")
            self.unit = self.text  # type: ignore[assignment]
            if self.cluster is not None:
                codes = _together(codes, rows.columns[self.cluster])
                self.rows = Rows({**rows.columns, UNIT: codes}, rows.n_obs)
                self.unit = UNIT
            sizes = np.bincount(codes)
            self.fold_groups, largest = int(np.count_nonzero(sizes)), int(sizes.max())
            if self.fold_groups < self.n_folds or largest > 0.5 * rows.n_obs:
                raise IdentificationError(
                    f"Expected folds that split neither clusters nor copies of one text, but "
                    f"{largest} of {rows.n_obs} rows hang together through column {self.text!r}"
                    f"{f' and clusters {self.cluster!r}' if self.cluster else ''}. Drop repeated "
                    "texts, or give a cluster that does not share texts."
                )

    @property
    def learner(self) -> Any:
        """The learner that was given; None for linear ones."""
        linear = self.nuisance is None or isinstance(self.nuisance, int | float)
        return None if linear else self.nuisance

    @property
    def grid(self) -> np.ndarray:
        """Penalties of linear regressions on texts."""
        return _RIDGES if self.nuisance is None else np.array([self.ridge])

    def encoded(self, learn: np.ndarray) -> tuple[Any, np.ndarray]:
        """Encoder fitted to the texts of some rows, and features (n, p) of all rows."""
        if not self.is_text:
            return None, np.column_stack([self.rows.columns[name] for name in self.text])
        codes = self.rows.columns[self.text]  # type: ignore[index]
        given = TfidfText() if self.encoder is None else self.encoder
        encoder = stages.seeded(given, self.generator)
        encoder.fit([self.distinct[i] for i in np.unique(codes[learn])])
        return encoder, dense(encoder.transform(self.distinct))[codes]

    def features_by_fold(self) -> Callable[[np.ndarray], np.ndarray]:
        """Features from the texts of some rows; of a moderate log they are kept for later use."""
        kept: dict[bytes, np.ndarray] = {}

        def features(learn: np.ndarray) -> np.ndarray:
            key = np.packbits(learn).tobytes()
            if key not in kept:
                x = self.encoded(learn)[1]
                if x.size > _KEPT:
                    return x
                kept[key] = x
            return kept[key]

        return features


def dense(x: Any) -> np.ndarray:
    """Features as a dense array."""
    return np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=float)


def _together(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Codes of what hangs together through equal codes in one or the other."""
    size = int(a.max()) + 1
    total = size + int(b.max()) + 1
    links = sparse.coo_array((np.ones(len(a)), (a, size + b)), shape=(total, total))
    found = sparse.csgraph.connected_components(links.tocsr(), directed=False)[1]
    return np.unique(found[a], return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class TextModel:
    """The final reward model where it is not a line in feature columns.

    Attributes
    ----------
    encoder : fitted encoder or None
    learner : fitted regressor or None
    coef, covariance : ndarray of shape (1 + p,), (1 + p, 1 + p)
        Of a line.
    draws : ndarray of shape (q, m) or None
        Confounders over which a regression on text and confounder is averaged.
    """

    encoder: Any = None
    learner: Any = None
    coef: np.ndarray = field(default_factory=lambda: np.empty(0))
    covariance: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    draws: np.ndarray | None = None

    def encode(self, levels: list[str]) -> np.ndarray:
        """Features of distinct texts, (n, p)."""
        return dense(self.encoder.transform(levels))

    def rewards(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards of features (p, n), and standard errors."""
        if self.learner is None:
            ones = np.concatenate([np.ones((1, x.shape[1])), x])
            return self.coef @ ones, delta_std_error(ones.T, self.covariance)
        none = np.full(x.shape[1], np.nan)
        if self.draws is not None:
            return stages.marginal(self.learner, x.T, self.draws), none
        return np.asarray(self.learner.predict(x.T), dtype=float), none

    def removed(self, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        """What the confounder adds to the prediction, against its average."""
        assert self.draws is not None
        return np.asarray(self.learner.predict(np.column_stack([x.T, c.T])) - self.rewards(x)[0])


@dataclass(frozen=True)
class Kept:
    """What the value of a choice needs of every row of the fit."""

    theta: np.ndarray
    c: np.ndarray
    psi: np.ndarray
    codes: np.ndarray | None
    by_cluster: np.ndarray | None = None  # influence of clusters on gamma, (G, q)
    covariance: np.ndarray | None = None

    def influence(self, direct: np.ndarray, p: np.ndarray, fine: np.ndarray) -> np.ndarray:
        """Influence of rows, or clusters, on a weighted sum of deconfounded outcomes.

        To the direct one of every row comes what passes through gamma and the confounders' mean.
        """
        c = self.c[:, fine]
        moved = c @ p
        own = direct + p.sum() * (self.theta @ c) / c.shape[1]
        if self.codes is None or self.by_cluster is None:
            return np.asarray(own - moved @ self.psi[:, fine])
        g = len(self.by_cluster)
        sums = by_cluster(self.codes[fine], own[None, :], g)[:, 0] - self.by_cluster @ moved
        return np.asarray(np.sqrt(g / (g - 1)) * sums)

    def extra(self, p: np.ndarray, fine: np.ndarray) -> float:
        """Variance through gamma where its influence by row is not known."""
        if self.covariance is None:
            return 0.0
        moved = self.c[:, fine] @ p
        return float(moved @ self.covariance @ moved)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Everything that a fit found, without the estimator's labels."""

    parameter: tuple[str, ...]
    term: tuple[str, ...]
    estimates: np.ndarray
    covariances: Mapping[str, np.ndarray]
    rewards: pd.DataFrame
    kept: Kept
    centre: np.ndarray
    sigma: float
    diagnostics: dict[str, Any]
    model: TextModel | None = None
    dropped: int = 0
    effects: Mapping[str, pd.Series] = field(default_factory=dict)
    ar_moments: Any = None
    cluster_sums: Any = None
    gammas: pd.DataFrame = field(default_factory=pd.DataFrame)
    overlap: pd.DataFrame = field(default_factory=pd.DataFrame)
