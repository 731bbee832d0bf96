"""Probabilities of test and outcome by mpmath with 40 digits, at ordinary and extreme places.

    python tests/reference/risk/make_kernels.py     # needs mpmath; a minute

Writes kernels.csv beside this file: logs of the three probabilities and the mean risk.
"""

from __future__ import annotations

import csv
from pathlib import Path

import mpmath as mp
import numpy as np

mp.mp.dps = 40


def logistic(v):
    return 1 / (1 + mp.e ** (-v))


def exact(a, d, s, alpha, law):
    a, d, s, alpha = map(mp.mpf, (a, d, s, alpha))
    terms = (
        lambda r, e: logistic(-e),
        lambda r, e: logistic(e) * logistic(r),
        lambda r, e: logistic(e) * logistic(-r),
        lambda r, e: logistic(r),
    )
    if law == "uniform":
        cuts = [mp.mpf(i) * s / 8 for i in range(9)]

        def mean(f):
            return mp.quad(lambda z: f(a + z, alpha * (a + z) + d), cuts) / s
    else:
        # equally spaced: exponentially accurate, and wide enough for any tilt of the terms
        h = mp.mpf(1) / (10 * max(1, int(s * max(1, alpha))))
        n = int((14 + s * (1 + alpha)) / h)
        grid = [(i * h * s, mp.e ** (-((i * h) ** 2) / 2)) for i in range(-n, n + 1)]

        def mean(f):
            total = mp.fsum(w * f(a + z, alpha * (a + z) + d) for z, w in grid)
            return total * h / mp.sqrt(2 * mp.pi)

    return [float(mp.log(mean(f))) for f in terms]


def main() -> None:
    rng = np.random.default_rng(0)
    places = []
    for s in (1e-6, 0.01, 0.5, 2.0, 7.0, 15.0):
        for d in (0.0, 1e-3, 0.021, -0.5, 3.0, -19.0, 25.0):
            places.append((float(np.round(rng.normal(-1, 4), 3)), d, s, 1.0, "uniform"))
    places += [(a, d, 3.0, 1.0, "uniform") for a in (-80.0, -11.1, 11.9, 12.1, 60.0)
               for d in (-30.0, -2.0, 0.5, 3.2)]  # fmt: skip
    places += [(a, d, s, alpha, "uniform") for a, d in ((-2.0, 1.0), (1.5, -3.0))
               for s in (0.3, 4.0) for alpha in (0.0, 0.4, 2.5)]  # fmt: skip
    places += [(a, d, s, alpha, "normal") for a, d in ((-3.0, 2.0), (0.5, -1.0), (-12.0, 6.0))
               for s in (1e-3, 0.5, 2.0, 5.0) for alpha in (1.0, 2.0)]  # fmt: skip
    with open(Path(__file__).with_name("kernels.csv"), "w", newline="") as file:
        out = csv.writer(file)
        out.writerow("a,d,s,alpha,law,untested,positive,negative,risk".split(","))
        for place in places:
            out.writerow([*place, *(f"{v:.17g}" for v in exact(*place))])


if __name__ == "__main__":
    main()
