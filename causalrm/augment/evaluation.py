"""How good a reward is: accuracy on pairs, and best of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln

from causalrm.augment.result import EstimatesResult, cluster_se, degrees
from causalrm.core.errors import DataError
from causalrm.core.inference import FEW, warn_of_few
from causalrm.core.result import Assumption

# --------------------------------------------------------------------------- accuracy


def accuracy(
    gaps: Any, *, by: Any = None, cluster: Any = None, compare: bool = True
) -> EstimatesResult:
    """Share of pairs in which the better answer has the higher reward, by category.

    A tie counts half.

    Parameters
    ----------
    gaps : array of shape (n,), or mapping of str to such arrays
        Reward of the better answer less that of the worse one; several models on the same pairs
        as a mapping or data frame.
    by : array of shape (n,), optional
        Category of each pair.
    cluster : array of shape (n,), optional
        Labels of clusters of dependent pairs, such as their queries. Every pair is its own by
        default.
    compare : bool
        With several models: add the paired difference of each to the first, by category.

    Returns
    -------
    EstimatesResult
        Groups "accuracy" and "difference"; the terms are "all" and the categories, after the name
        of the model where there are several; the column ``ties`` counts equal rewards.

    Examples
    --------
    >>> found = accuracy([0.3, -0.1, 0.0, 2.0], by=["chat", "chat", "code", "code"])
    >>> found.to_frame()[["term", "estimate", "ties"]].values.tolist()
    [['all', 0.625, 1], ['chat', 0.5, 0], ['code', 0.75, 1]]
    """
    models = gaps_of(gaps)
    n = len(next(iter(models.values())))
    codes, clusters, log = clusters_of(cluster, n)
    categories = _categories(by, n)
    rows: list[tuple[Any, ...]] = []
    for name, gap in models.items():
        right = 0.5 * (np.sign(gap) + 1.0)
        for label, mask in categories.items():
            term = label if len(models) == 1 else f"{name}: {label}"
            ties = int((gap[mask] == 0).sum())
            rows.append(("accuracy", term, *mean_row(right, mask, codes), ties, True))
    if compare and len(models) > 1:
        first, *others = models
        base = np.sign(models[first])
        for name in others:
            better = 0.5 * (np.sign(models[name]) - base)
            for label, mask in categories.items():
                term = f"{name} - {first}: {label}"
                rows.append(("difference", term, *mean_row(better, mask, codes), 0, False))
    return as_result("accuracy", rows, "ties", n, clusters, log)


def length_matched_accuracy(
    gaps: Any, length_better: Any, length_worse: Any, *, caliper: float = 0.1, cluster: Any = None
) -> EstimatesResult:
    """Accuracy among pairs of about equal length, and with the better answer longer or shorter.

    A reward that follows length is good where the better answer is longer, and bad where it is
    shorter; "balanced" is the mean of the two.

    Parameters
    ----------
    gaps : array of shape (n,), or mapping of str to such arrays
        Reward of the better answer less that of the worse one.
    length_better, length_worse : array of shape (n,)
        Lengths, above 0, in any unit.
    caliper : float, default 0.1
        Lengths whose logarithms differ by at most this are taken as equal.
    cluster : array of shape (n,), optional

    Returns
    -------
    EstimatesResult
        Group "accuracy"; terms "all", "matched", "better is longer", "better is shorter" and
        "balanced".

    Examples
    --------
    >>> found = length_matched_accuracy([1.0, -1.0, 1.0], [9, 4, 5], [3, 8, 5])
    >>> found.to_frame()[["term", "estimate"]].values.tolist()[1:4]
    [['matched', 1.0], ['better is longer', 1.0], ['better is shorter', 0.0]]
    """
    models = gaps_of(gaps)
    a, b = (np.asarray(v, dtype=float) for v in (length_better, length_worse))
    n = len(next(iter(models.values())))
    sound = [x.shape == (n,) and bool(((x > 0) & np.isfinite(x)).all()) for x in (a, b)]
    if not all(sound):
        raise DataError(f"Expected {n} finite lengths above 0 of each answer. Check the lengths.")
    if not caliper >= 0:
        raise DataError(f"Expected caliper to be at least 0, but saw {caliper!r}. Raise it.")
    log_ratio = np.log(a) - np.log(b)
    masks = {
        "all": np.ones(n, dtype=bool),
        "matched": np.abs(log_ratio) <= caliper,
        "better is longer": log_ratio > caliper,
        "better is shorter": log_ratio < -caliper,
    }
    codes, clusters, log = clusters_of(cluster, n)
    rows: list[tuple[Any, ...]] = []
    for name, gap in models.items():
        right = 0.5 * (np.sign(gap) + 1.0)
        prefix = "" if len(models) == 1 else f"{name}: "
        for label, mask in masks.items():
            if mask.any():
                ties = int((gap[mask] == 0).sum())
                rows.append(("accuracy", prefix + label, *mean_row(right, mask, codes), ties, True))
        longer, shorter = masks["better is longer"], masks["better is shorter"]
        if longer.any() and shorter.any():
            means = [right[m].mean() for m in (longer, shorter)]
            influence = sum(
                0.5 * m / m.sum() * (right - mean)
                for m, mean in zip((longer, shorter), means, strict=True)
            )
            error = cluster_se(influence, codes)
            count = int((longer | shorter).sum())
            ties = int((gap[longer | shorter] == 0).sum())
            value = float(np.mean(means))
            rows.append(("accuracy", prefix + "balanced", value, error, count, ties, True))
    return as_result("length_matched_accuracy", rows, "ties", n, clusters, log)


def gaps_of(gaps: Any) -> dict[str, np.ndarray]:
    """Gaps by model, checked: reward of the better answer less that of the worse one."""
    given = gaps if isinstance(gaps, Mapping | pd.DataFrame) else {"reward": gaps}
    out = {}
    for name, values in given.items():
        gap = np.asarray(values, dtype=float)
        if gap.ndim != 1 or not len(gap) or not np.isfinite(gap).all():
            bad = int((~np.isfinite(gap)).sum())
            raise DataError(
                f"Expected a gap per pair, all finite, but {name!r} has shape {gap.shape} and "
                f"{bad} that are not. Drop these pairs."
            )
        out[str(name)] = gap
    if len({len(gap) for gap in out.values()}) != 1:
        raise DataError("Expected gaps of all models on the same pairs. Give equal lengths.")
    return out


def _categories(by: Any, n: int) -> dict[str, np.ndarray]:
    out = {"all": np.ones(n, dtype=bool)}
    if by is not None:
        labels = np.asarray(by, dtype=object)
        if labels.shape != (n,):
            raise DataError(f"Expected {n} categories, but saw shape {labels.shape}. Check by.")
        if missing := int(pd.isna(labels).sum()):
            raise DataError(
                f"Expected a category for each of {n} rows, but {missing} are missing. Drop these "
                "rows, or give them a category of their own."
            )
        out |= {str(v): labels == v for v in sorted(set(labels.tolist()), key=str)}
    return out


def clusters_of(cluster: Any, n: int) -> tuple[np.ndarray, int, list[str]]:
    """Codes of clusters, every row its own by default; their number; and warnings."""
    log: list[str] = []
    if cluster is None:
        return np.arange(n), n, log
    codes, levels = pd.factorize(pd.Series(np.asarray(cluster, dtype=object)))
    if len(codes) != n or (codes < 0).any():
        raise DataError(f"Expected a cluster label for each of {n} rows. Check cluster.")
    warn_of_few(len(levels), log)
    return codes, len(levels), log


def mean_row(values: np.ndarray, mask: np.ndarray, codes: np.ndarray) -> tuple[float, float, int]:
    """Mean over some rows, its clustered standard error, and their number."""
    share = mask / mask.sum()
    value = float(share @ values)
    inside = np.unique(codes[mask], return_inverse=True)[1]
    return value, cluster_se((share * (values - value))[mask], inside), int(mask.sum())


def as_result(
    name: str, rows: list[tuple[Any, ...]], extra: str, n: int, clusters: int, log: list[str]
) -> EstimatesResult:
    """Rows of (group, term, estimate, std_error, n, the extra column, share) as a result."""
    columns = ["group", "term", "estimate", "std_error", "n", extra, "share"]
    return EstimatesResult(
        call={"estimator": name, "options": {}, "roles": {}},
        n_obs=n,
        assumptions=(
            Assumption(
                "Independent clusters",
                "Rows of different clusters are independent",
                f"{clusters} clusters",
                "untested" if clusters >= FEW else "doubtful",
            ),
        ),
        warnings=tuple(log),
        table=pd.DataFrame(rows, columns=columns),
        df_resid=degrees(clusters),
    )


# --------------------------------------------------------------------------- best of many


def best_of_n_kl(n: Any) -> Any:
    """Bound on the divergence of best-of-n sampling from the policy, ``log n - (n - 1) / n``.

    Parameters
    ----------
    n : int or array of int

    References
    ----------
    Beirami et al. (2024), Theoretical guarantees on the best-of-n alignment policy,
    arXiv 2401.01879 (that it is an upper bound).

    Examples
    --------
    >>> round(best_of_n_kl(4), 4)
    0.6363
    """
    n = np.asarray(n, dtype=float)
    if not (n >= 1).all():
        raise DataError("Expected n to be at least 1. Give such numbers.")
    out = np.log(n) - (n - 1.0) / n
    return float(out) if out.ndim == 0 else out


def best_of_n(
    reward: Any, truth: Any, n: Sequence[int] = (1, 2, 4, 8, 16), *, cluster: Any = None
) -> EstimatesResult:
    """Expected true value of the answer that a reward picks out of n.

    All subsets of n of the candidates of a prompt count, by their exact probabilities; among
    candidates of equal reward each is picked equally often.

    Parameters
    ----------
    reward, truth : array of shape (prompts, candidates)
        Reward by which is picked, and true value of what is picked.
    n : sequence of int
        Each from 1 to the number of candidates.
    cluster : array of shape (prompts,), optional

    Returns
    -------
    EstimatesResult
        Groups "picked by reward" and "picked by truth" (the best there is), terms "best of n"; the
        column ``kl`` bounds the divergence from the policy.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.tile([0.0, 1.0], (40, 1))
    >>> best_of_n(-truth, truth, n=(1, 2)).to_frame()["estimate"].round(6).tolist()
    [0.5, 0.0, 0.5, 1.0]
    """
    proxy, true = np.asarray(reward, dtype=float), np.asarray(truth, dtype=float)
    good = proxy.ndim == 2 and proxy.shape == true.shape and np.isfinite([proxy, true]).all()
    if not good:
        raise DataError(
            "Expected finite rewards and true values of shape (prompts, candidates), but saw "
            f"{proxy.shape} and {true.shape}. Check them."
        )
    prompts, candidates = proxy.shape
    if not all(1 <= k <= candidates for k in n):
        raise DataError(f"Expected n from 1 to {candidates} candidates, but saw {list(n)}.")
    codes, clusters, log = clusters_of(cluster, prompts)
    rows: list[tuple[Any, ...]] = []
    every = np.ones(prompts, dtype=bool)
    for group, by in (("picked by reward", proxy), ("picked by truth", true)):
        for k in n:
            value = (_pick_weights(by, int(k)) * true).sum(axis=1)
            mean = mean_row(value, every, codes)
            rows.append((group, f"best of {k}", *mean, best_of_n_kl(k), False))
    return as_result("best_of_n", rows, "kl", prompts, clusters, log)


def _pick_weights(reward: np.ndarray, n: int) -> np.ndarray:
    """Probability that each candidate is the best of n drawn without replacement."""
    below = (reward[:, None, :] < reward[:, :, None]).sum(axis=2)
    tied = (reward[:, None, :] == reward[:, :, None]).sum(axis=2)
    total = reward.shape[1]

    def subsets(m: np.ndarray) -> np.ndarray:
        """Share of the subsets of size n that lie within m candidates."""
        inside = m >= n
        m_ = np.where(inside, m, n).astype(float)
        log = gammaln(m_ + 1) - gammaln(m_ - n + 1) - gammaln(total + 1) + gammaln(total - n + 1)
        return np.where(inside, np.exp(log), 0.0)

    return np.asarray((subsets(below + tied) - subsets(below)) / tied)


def one_against_many(
    correct: Any, wrong: Any, *, by: Any = None, cluster: Any = None
) -> EstimatesResult:
    """How often a correct answer beats all wrong ones, and its mean reciprocal rank.

    Parameters
    ----------
    correct : array of shape (n,)
        Reward of the correct answer.
    wrong : array of shape (n, k)
        Rewards of the wrong ones; k is 9 in RewardMATH.
    by, cluster : array of shape (n,), optional
        As in `accuracy`.

    Returns
    -------
    EstimatesResult
        Groups "accuracy" and "reciprocal rank", each optimistic (a tie counts as won) and
        pessimistic (as lost); the column ``ties`` counts rows in which a wrong answer has the same
        reward and could decide.

    References
    ----------
    Kim et al. (2024), Evaluating robustness of reward models for mathematical reasoning
    (RewardMATH), arXiv 2410.01729.

    Examples
    --------
    >>> found = one_against_many([1.0, 2.0], [[0.0, 1.0], [3.0, 0.0]])
    >>> found.to_frame()[["term", "estimate"]].values.tolist()[:2]
    [['all, optimistic', 0.5], ['all, pessimistic', 0.0]]
    """
    right, others, n = _against(correct, wrong)
    above, tied = (others > right[:, None]).sum(axis=1), (others == right[:, None]).sum(axis=1)
    codes, clusters, log = clusters_of(cluster, n)
    rows: list[tuple[Any, ...]] = []
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "accuracy": lambda rank: (rank == 1).astype(float),
        "reciprocal rank": lambda rank: 1.0 / rank,
    }
    for group, measure in measures.items():
        for label, mask in _categories(by, n).items():
            ties = int((tied[mask] > 0).sum())
            for how, rank in (("optimistic", 1 + above), ("pessimistic", 1 + above + tied)):
                mean = mean_row(measure(rank), mask, codes)
                rows.append((group, f"{label}, {how}", *mean, ties, True))
    return as_result("one_against_many", rows, "ties", n, clusters, log)


def best_of_k(correct: Any, wrong: Any, *, by: Any = None, cluster: Any = None) -> EstimatesResult:
    """Accuracy of the top among k answers, a tie at the top sharing the credit.

    Parameters
    ----------
    correct : array of shape (n,)
    wrong : array of shape (n, k - 1)
        Rewards; k is 4 in RewardBench 2, where a random reward is right in 25 %.
    by, cluster : array of shape (n,), optional

    Returns
    -------
    EstimatesResult
        Group "accuracy": 1 divided by the number tied at the top where the correct answer is
        among them, else 0.

    References
    ----------
    Malik et al. (2025), RewardBench 2: advancing reward model evaluation, arXiv 2506.01937.

    Examples
    --------
    >>> best_of_k([1.0, 0.0], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).to_frame()["estimate"].tolist()
    [0.25]
    """
    right, others, n = _against(correct, wrong)
    tied = (others == right[:, None]).sum(axis=1)
    credit = np.where((others > right[:, None]).any(axis=1), 0.0, 1.0 / (1.0 + tied))
    codes, clusters, log = clusters_of(cluster, n)
    rows = [
        ("accuracy", label, *mean_row(credit, mask, codes), int((tied[mask] > 0).sum()), True)
        for label, mask in _categories(by, n).items()
    ]
    return as_result("best_of_k", rows, "ties", n, clusters, log)


def _against(correct: Any, wrong: Any) -> tuple[np.ndarray, np.ndarray, int]:
    right, others = np.asarray(correct, dtype=float), np.asarray(wrong, dtype=float)
    fine = right.ndim == 1 and others.ndim == 2 and len(right) == len(others) > 0
    if not fine or not np.isfinite(right).all() or not np.isfinite(others).all():
        raise DataError(
            "Expected finite rewards of shape (n,) and (n, k), but saw "
            f"{right.shape} and {others.shape}. Check them."
        )
    return right, others, len(right)
