"""Coverage of the intervals of every estimator; writes results/coverage.csv beside this file.

    python tests/attribution/coverage.py 300        # games per setting

Each game is new, so that coverage is an average over games of one kind, players and replies.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from causalrm.attribution import design  # noqa: E402
from causalrm.attribution.estimators import estimate  # noqa: E402
from tests.attribution import games  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "coverage.csv"
SETTINGS = [
    (kind, n, per_player, method)
    for kind in ("sigmoid", "sigmoid, one reply", "sigmoid, 5 replies", "unanimity", "sparse")
    for n, per_player in ((8, 10), (14, 10), (14, 40))
    for method in ("auto", "odd_gp", "leverage", "permutation")
]


def covered(kind: str, n: int, per_player: int, method: str, seed: int) -> np.ndarray:
    """Whether each player's interval holds its value, in one new game."""
    rng = np.random.default_rng([seed, n, per_player])
    replies = {"sigmoid, one reply": 1, "sigmoid, 5 replies": 5}.get(kind, 0)
    value, phi = getattr(games, kind.split(",")[0])(n, rng)
    calls, orders = n * per_player // max(replies, 1), None
    if method == "permutation":
        orders = design.random_orders(n, max(4, calls // n), rng)
        Z = design.prefixes(orders)
        count = np.full(len(Z), max(replies, 1))
    else:
        Z, count = design.next_coalitions(n, calls, rng, noisy=bool(replies))
        count = count * max(replies, 1)
    mean = rng.binomial(count, value(Z)) / count if replies else value(Z)
    found = estimate(
        Z, mean, np.zeros(len(Z)), count, method=method, bernoulli=bool(replies), orders=orders,
        rng=rng,
    )  # fmt: skip
    # values that are exact to rounding have no interval to speak of
    q = stats.t.ppf(0.975, np.inf if found.df is None else found.df)
    return np.abs(found.phi - phi) <= q * found.std_error + 1e-9 * np.abs(phi).max()


def study(repeats: int, settings: list = SETTINGS) -> pd.DataFrame:
    """Share of intervals that cover, with its standard error over games."""
    rows = []
    for kind, n, per_player, method in settings:
        share = [covered(kind, n, per_player, method, seed).mean() for seed in range(repeats)]
        rows.append(
            {
                "game": kind,
                "players": n,
                "calls_per_player": per_player,
                "method": method,
                "games": repeats,
                "coverage": np.mean(share),
                "std_error": np.std(share, ddof=1) / np.sqrt(repeats),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    table = study(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
    RESULTS.parent.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False, float_format="%.4f")
    print(table.to_string())
