"""Rewards in other forms: against a reference, and by token."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalrm.core.errors import DataError


def log_sigmoid_centred(reward: Any, reference: Any) -> np.ndarray:
    """Log probability to be better than a reference, ``log s(reward - reference)``.

    It is bounded above, so that a sum over properties is dominated by those that are bad: the sum
    is the log probability that all are good, were they independent.

    Parameters
    ----------
    reward : array of shape (...)
    reference : float or array
        Reward of what counts as good enough, such as a quantile of the rewards for the prompt.

    Raises
    ------
    DataError
        When values are missing.

    References
    ----------
    Wang et al. (2024), Transforming and combining rewards for aligning large language models,
    arXiv 2402.00742.

    Examples
    --------
    >>> log_sigmoid_centred([0.0, 800.0, -800.0], 0.0).round(3)
    array([-6.93e-01, -0.00e+00, -8.00e+02])
    """
    with np.errstate(invalid="ignore"):
        behind = np.asarray(reference, dtype=float) - np.asarray(reward, dtype=float)
    if missing := int(np.isnan(behind).sum()):
        raise DataError(
            f"Expected rewards and references that are complete, but {missing} of {behind.size} "
            "differences are undefined. Drop these rows."
        )
    return np.asarray(-np.logaddexp(0.0, behind))


def process_rewards(logp: Any, logp_reference: Any, beta: float = 1.0) -> tuple[Any, Any]:
    r"""Process rewards that are implicit in an outcome reward model.

    With an outcome reward written as :math:`r = \beta \log (\pi / \pi_{ref})` of the whole answer,
    the same log ratio up to token t is :math:`q_t = \beta \log E_{ref}[e^{r/\beta} \mid
    \text{tokens to } t]`, and the reward of a step is its increment.

    Parameters
    ----------
    logp, logp_reference : array of shape (..., tokens)
        Log probability of each token under the model and the reference.
    beta : float, default 1
        Above 0.

    Returns
    -------
    q, step : ndarray of shape (..., tokens)

    References
    ----------
    Yuan et al. (2024), Free process rewards without process labels, arXiv 2412.01981.

    Examples
    --------
    >>> q, step = process_rewards([-1.0, -2.0], [-1.5, -1.0], beta=2.0)
    >>> q.tolist(), step.tolist()
    ([1.0, -1.0], [1.0, -2.0])
    """
    one, other = np.asarray(logp, dtype=float), np.asarray(logp_reference, dtype=float)
    if one.shape != other.shape or not beta > 0:
        raise DataError(
            f"Expected log probabilities of equal shape and beta above 0, but saw {one.shape}, "
            f"{other.shape} and {beta!r}. Check them."
        )
    step = beta * (one - other)
    return np.cumsum(step, axis=-1), step
