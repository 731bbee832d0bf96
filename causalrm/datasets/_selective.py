"""Simulated people of whom only the tested have an outcome that was looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve
from causalrm.datasets._simulated import Simulated


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectiveTruth:
    """What simulated selective labels depend on, and what nobody would see.

    Attributes
    ----------
    risk : dict of str to float
        Coefficients of risk, with ``Intercept`` first.
    testing : dict of str to float
        Coefficients of testing; 0 for columns that testing does not use beyond risk.
    sigma, alpha : float
        Scale of the unobservable, and the weight of risk in testing.
    unobservable : str
        ``"uniform"`` on (0, sigma) or ``"normal"`` with standard deviation sigma.
    prevalence : float
        Share of outcomes that are 1 among all people simulated, tested or not.
    outcome : ndarray of shape (n,)
        Of everybody, tested or not.
    hidden : ndarray of shape (n,)
        The unobservable.
    entropy : int
        Given as ``rng`` it repeats the simulation.
    """

    risk: dict[str, float]
    testing: dict[str, float]
    sigma: float
    alpha: float
    unobservable: str
    prevalence: float
    outcome: np.ndarray
    hidden: np.ndarray
    entropy: int


def make_selective_labels(
    n: int = 5000,
    *,
    features: int = 4,
    expertise: int = 2,
    sigma: float | None = None,
    alpha: float = 1.0,
    risk: list[float] | None = None,
    testing: list[float] | None = None,
    unobservable: str = "uniform",
    rng: RNG = None,
) -> Simulated[SelectiveTruth]:
    r"""Simulate tests that go to those who seem at risk, and outcomes of the tested only.

    Risk is :math:`r = b_0 + x'b + Z`, the outcome is 1 with probability
    :math:`1 / (1 + e^{-r})`, and a test is made with log odds :math:`\alpha r + d_0 + x'd`, so
    that whoever tests sees Z and the analyst does not. What is not given is drawn as in the
    experiment of the paper: :math:`b_0 \sim N(-2, .1)`, :math:`d_0 \sim N(2, .1)`, slopes from
    :math:`N(0, 1)`, :math:`\sigma \sim N(2, .1)` (second arguments are standard deviations), with
    d non-zero on the first columns only. There the intercept counts as one of the columns, so that
    its five columns are ``features=4`` here, and its first two ``expertise=2``.

    Parameters
    ----------
    n : int
        Number of people.
    features : int
        Number of columns x1, x2, ..., each standardised in the sample.
    expertise : int
        Number of non-zero coefficients of testing, the intercept included.
    sigma : float, optional
    alpha : float
        Weight of risk in testing.
    risk, testing : list of float, optional
        Coefficients with the intercept first; `testing` is filled up with zeros.
    unobservable : {"uniform", "normal"}
        Z ~ U(0, sigma) or Z ~ N(0, sigma^2).
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` with the columns ``x1, x2, ..., tested,
        outcome``, where the outcome of the untested is missing, and a `SelectiveTruth`.

    Raises
    ------
    DataError
        For arguments outside their range.

    References
    ----------
    .. [1] Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk
       prediction when outcome data is missing. ICLR. arXiv:2312.03878

    Examples
    --------
    >>> from causalrm.datasets import make_selective_labels
    >>> data, truth = make_selective_labels(1000, rng=0)
    >>> data.groupby("tested")["outcome"].count().to_dict()
    {0: 0, 1: 689}
    >>> round(truth.prevalence, 3), round(float(data["outcome"].mean()), 3)
    (0.323, 0.353)
    """
    import pandas as pd

    if n < 2 or features < 0 or not 1 <= expertise <= features + 1:
        raise DataError(
            "Expected n of at least 2, features of at least 0 and expertise from 1 to "
            f"features + 1, but saw n={n!r}, features={features!r}, expertise={expertise!r}."
        )
    if unobservable not in ("uniform", "normal"):
        raise DataError(f'Expected "uniform" or "normal", but saw {unobservable!r}. Correct it.')
    generator, entropy = resolve(rng)
    # everything is drawn, given or not, so that one seed gives one set of features
    drawn = generator.normal(size=2 * (features + 1) + 1)
    b = np.concatenate([[-2.0 + 0.1 * drawn[0]], drawn[1 : features + 1]])
    d = np.concatenate([[2.0 + 0.1 * drawn[features + 1]], drawn[features + 2 : -1]])
    d[expertise:] = 0.0
    if sigma is None:
        sigma = 2.0 + 0.1 * float(drawn[-1])
    if not sigma >= 0:
        raise DataError(f"Expected sigma of at least 0, but saw {sigma!r}. Give such a number.")
    b, d = _given("risk", risk, b), _given("testing", testing, d)
    x = generator.normal(size=(n, features))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    if unobservable == "uniform":
        z = sigma * generator.random(n)
    else:
        z = sigma * generator.normal(size=n)
    r = b[0] + x @ b[1:] + z
    outcome = generator.random(n) < _logistic(r)
    tested = generator.random(n) < _logistic(alpha * r + d[0] + x @ d[1:])
    names = [f"x{j + 1}" for j in range(features)]
    data = pd.DataFrame(x, columns=names).assign(
        tested=tested.astype(int), outcome=np.where(tested, outcome, np.nan)
    )
    terms = ["Intercept", *names]
    truth = SelectiveTruth(
        risk=dict(zip(terms, b.tolist(), strict=True)),
        testing=dict(zip(terms, d.tolist(), strict=True)),
        sigma=float(sigma), alpha=float(alpha), unobservable=unobservable,
        prevalence=float(outcome.mean()), outcome=outcome.astype(float), hidden=z, entropy=entropy,
    )  # fmt: skip
    return Simulated(data, truth)


def _logistic(v: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -v)))


def _given(name: str, given: list[float] | None, drawn: np.ndarray) -> np.ndarray:
    """Coefficients as given, filled up with zeros; or as drawn."""
    if given is None:
        return drawn
    values = np.asarray(given, dtype=float)
    if values.ndim != 1 or not 1 <= len(values) <= len(drawn):
        raise DataError(
            f"Expected 1 to {len(drawn)} coefficients in {name}, the intercept first, but saw "
            f"an array of shape {values.shape}. Give one for each column."
        )
    return np.pad(values, (0, len(drawn) - len(values)))
