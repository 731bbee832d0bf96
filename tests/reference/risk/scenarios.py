"""Simulated data and priors on which independent samplers and the package must agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalrm.datasets import make_selective_labels

FEATURES = 4
PRIOR_SD = 3.0
BOTH = {"q": 2, "prevalence_se": 0.015}
SLOPES = [0.8, -0.6, 0.3, 0.0]

# rows, true parameters, number of free testing columns, se of the prevalence, unobservable
SCENARIOS: dict[str, dict[str, Any]] = {
    "unconstrained": {"rng": 1},
    "prevalence": {"rng": 2, "prevalence_se": 0.015},
    "expertise": {"rng": 3, "q": 2},
    "both": {"rng": 4, **BOTH},
    "rare": {"rng": 5, "n": 3000, "risk": [-5.2, *SLOPES], "testing": [2.0, 0.5]},
    "weak sigma": {"rng": 6, "sigma": 0.3},
    "strong sigma": {"rng": 7, "sigma": 6.0, "risk": [-4.0, *SLOPES], "testing": [1.0, 0.5]},
    "normal": {"rng": 8, "law": "normal", "sigma": 1.5},
    "normal, prevalence": {"rng": 9, "law": "normal", "sigma": 1.5, "prevalence_se": 0.015},
}


def arrays(name: str) -> dict[str, Any]:
    """Designs, tests, outcomes and constraints of a scenario."""
    options = dict(SCENARIOS[name])
    q = options.pop("q", FEATURES + 1)
    se = options.pop("prevalence_se", None)
    law = options.pop("law", "uniform")
    data, truth = make_selective_labels(**({"n": 1000} | options), unobservable=law)
    X = np.column_stack([np.ones(len(data)), data[[f"x{j + 1}" for j in range(FEATURES)]]])
    return {
        "X": X, "W": X[:, :q].copy(), "tested": data["tested"].to_numpy(bool),
        "y": data["outcome"].to_numpy(), "law": law, "se": se, "target": truth.prevalence,
    }  # fmt: skip
