"""Simulated people in the codes of the American Community Survey, with their true risks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from causalrm.core.errors import DataError, check_choice
from causalrm.core.random import RNG, resolve
from causalrm.datasets._simulated import Simulated

type Array = NDArray[np.float64]

# Of each task: the columns shown, the target with what makes it positive, and who is asked
# about as limits low <= value < high.
_BODY = "DEAR DEYE DREM"
ACS_FEATURES = {
    "ACSIncome": "AGEP COW SCHL MAR OCCP POBP RELP WKHP SEX RAC1P",
    "ACSPublicCoverage": "AGEP SCHL MAR SEX DIS ESP CIT MIG MIL ANC NATIVITY "
    f"{_BODY} PINCP ESR ST FER RAC1P",
    "ACSMobility": "AGEP SCHL MAR SEX DIS ESP CIT MIL ANC NATIVITY RELP "
    f"{_BODY} RAC1P GCL COW ESR WKHP JWMNP PINCP",
    "ACSEmployment": f"AGEP SCHL MAR RELP DIS ESP CIT MIG MIL ANC NATIVITY {_BODY} SEX RAC1P",
    "ACSTravelTime": "AGEP SCHL MAR SEX DIS ESP MIG RELP RAC1P PUMA ST CIT OCCP JWTR POWPUMA "
    "POVPIP",
}
ACS_TARGETS: dict[str, tuple[str, str, int]] = {
    "ACSIncome": ("PINCP", ">", 50_000),
    "ACSPublicCoverage": ("PUBCOV", "==", 1),
    "ACSMobility": ("MIG", "!=", 1),
    "ACSEmployment": ("ESR", "==", 1),
    "ACSTravelTime": ("JWMNP", ">", 20),
}
ACS_POPULATIONS: dict[str, dict[str, tuple[float, float]]] = {
    "ACSIncome": {"AGEP": (17, np.inf), "WKHP": (1, np.inf)},  # and an income above $100
    "ACSPublicCoverage": {"AGEP": (0, 65), "PINCP": (-np.inf, 30_001)},
    "ACSMobility": {"AGEP": (19, 35)},
    "ACSEmployment": {"AGEP": (16, np.inf)},
    "ACSTravelTime": {"AGEP": (17, np.inf), "ESR": (1, 2)},
}
# Logit of the true risk: coefficients of the terms below.
_RISKS: dict[str, dict[str, float]] = {
    "ACSIncome": {
        "Intercept": -0.35, "age": 0.35, "age squared": -0.15, "schooling": 0.75, "hours": 0.55,
        "female": -0.7, "married": 0.5, "management": 0.9, "black": -0.3,
    },
    "ACSPublicCoverage": {
        "Intercept": -1.7, "disability": 1.6, "income": -0.5, "not working": 0.6,
        "schooling": -0.35, "black": 0.4, "married": -0.3, "age": 0.15,
    },
    "ACSMobility": {
        "Intercept": -2.7, "age": -0.7, "never married": 0.25, "schooling": 0.15,
        "not a relative": 0.7, "income": 0.1, "not working": -0.2,
    },
    "ACSEmployment": {
        "Intercept": 1.9, "age": 0.15, "age squared": -0.32, "schooling": 0.4, "female": -0.35,
        "disability": -1.3, "black": -0.15,
    },
    "ACSTravelTime": {
        "Intercept": -0.3, "public transport": 1.9, "on foot": -2.0, "female": -0.2,
        "management": 0.25, "age": 0.03, "black": 0.3,
    },
}  # fmt: skip
_STATES = [s for s in range(1, 57) if s not in (3, 7, 14, 43, 52)]
_COUNTRIES = {303: 25, 210: 6, 233: 5, 207: 6, 247: 4, 312: 4, 217: 3, 327: 4, 329: 3, 110: 2}
_OCCUPATIONS = {
    20: 4, 120: 3, 440: 3, 710: 3, 800: 3, 1021: 4, 1360: 3, 1650: 1, 2001: 2, 2100: 1, 2310: 5,
    2600: 1, 2850: 1, 3255: 5, 3603: 3, 3870: 2, 4020: 5, 4220: 4, 4610: 4, 4720: 6, 4760: 4,
    5120: 3, 5740: 6, 6050: 1, 6260: 5, 6800: 1, 7200: 4, 7750: 5, 9130: 7, 9620: 4, 9800: 1,
}  # fmt: skip


@dataclass(frozen=True)
class AcsLikeTruth:
    """What generated ACS-like rows.

    Attributes
    ----------
    task : str
    risk : ndarray, shape (n,)
        The true probability of the positive outcome, given the columns of the row.
    outcome : ndarray of int, shape (n,)
        1 where the target is positive.
    coefficients : dict
        Of the logit of `risk`, by term.
    entropy : int
        Given as `rng`, it repeats the draws.
    """

    task: str
    risk: Array = field(repr=False)
    outcome: NDArray[np.int64] = field(repr=False)
    coefficients: dict[str, float]
    entropy: int


def make_acs_like(
    n: int = 1000, *, task: str = "ACSIncome", rng: RNG = None
) -> Simulated[AcsLikeTruth]:
    """Simulate rows in the codes of the American Community Survey (ACS), with true risks.

    For offline use of the tasks of :func:`causalrm.calibration.acs_task`. The people are
    simulated: codes, missing values and the plainest dependencies (schooling and age, work and
    income) are like those of the survey of 2018, no number is an estimate of anything. The
    outcome is drawn from a logistic model in the columns shown, so that the risk that a
    perfect score would give each row is known.

    Parameters
    ----------
    n : int
    task : {"ACSIncome", "ACSPublicCoverage", "ACSMobility", "ACSEmployment", "ACSTravelTime"}
        Decides the columns, the target and the population.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` of n rows with the columns of the
        task, the target and the person weight ``PWGTP``; and an `AcsLikeTruth`. Codes that do
        not apply to a person are missing, as in the survey.

    Raises
    ------
    DataError
        For an unknown task or an n below 1.

    References
    ----------
    Ding, Hardt, Miller, Schmidt (2021). Retiring Adult: new datasets for fair machine
    learning. arXiv:2108.04884 (the tasks).

    Examples
    --------
    >>> data, truth = make_acs_like(500, rng=0)
    >>> list(data.columns)
    ['AGEP', 'COW', 'SCHL', 'MAR', 'OCCP', 'POBP', 'RELP', 'WKHP', 'SEX', 'RAC1P', 'PINCP', 'PWGTP']
    >>> bool(((data["PINCP"] > 50_000) == truth.outcome).all())
    True
    """
    import pandas as pd

    check_choice("task", task, tuple(ACS_FEATURES))
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise DataError(f"n must be a positive int; got {n!r}.")
    generator, entropy = resolve(rng)
    parts: list[dict[str, Array]] = []
    seen = 0
    while seen < n:
        people = _people(generator, 2 * n + 100)
        kept = np.ones(len(people["AGEP"]), dtype=bool)
        for name, (low, high) in ACS_POPULATIONS[task].items():
            kept &= (people[name] >= low) & (people[name] < high)
        parts.append({name: values[kept] for name, values in people.items()})
        seen += int(kept.sum())
    columns = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    terms = _terms(columns)
    coefficients = _RISKS[task]
    risk = expit(sum((b * terms[term] for term, b in coefficients.items()), np.zeros(n)))
    outcome = (generator.random(n) < risk).astype(np.int64)
    target = ACS_TARGETS[task][0]
    columns[target] = _target(generator, task, outcome)
    names = [*ACS_FEATURES[task].split(), target, "PWGTP"]
    data = pd.DataFrame({name: columns[name] for name in names})
    whole = {name: int for name in names if not data[name].isna().any()}
    return Simulated(
        data.astype(whole), AcsLikeTruth(task, risk, outcome, dict(coefficients), entropy)
    )


def _people(generator: np.random.Generator, n: int) -> dict[str, Array]:
    """Draw people of all ages; NaN where a question does not apply."""

    def pick(weights: Mapping[int, float]) -> Array:
        p = np.array(list(weights.values()), dtype=float)
        return generator.choice(np.array(list(weights), dtype=float), size=n, p=p / p.sum())

    def chance(p: Any) -> NDArray[np.bool_]:
        return np.asarray(generator.random(n) < p)

    def code(yes: NDArray[np.bool_], applies: Any = True) -> Array:
        """1 for yes, 2 for no, missing for those to whom it does not apply."""
        return np.where(applies, np.where(yes, 1.0, 2.0), np.nan)

    decade = pick(dict(enumerate([12, 13, 14, 13, 12, 13, 12, 7, 4])))
    age = 10 * decade + generator.integers(0, 10, n)
    woman, adult, working_age = chance(0.51), age >= 18, age >= 16
    schooling = pick({1: 1, 12: 2, 14: 5, 16: 24, 17: 4, 18: 6, 19: 15, 20: 9, 21: 19, 22: 9,
                      23: 2, 24: 2})  # fmt: skip
    schooling = np.where(age < 22, np.minimum(schooling, 19), schooling)
    schooling = np.where(adult, schooling, np.clip(age - 2, 2, 15))
    schooling[age < 3] = np.nan
    marital = np.where(chance(0.75 - 0.2 * (age > 50)), 1.0, pick({2: 2, 3: 8, 4: 1}))
    marital[chance(expit((30 - age) / 5)) | (age < 15)] = 5
    married = marital == 1
    relation = np.where(married, pick({0: 50, 1: 46, 2: 2, 8: 2}), pick({0: 60, 2: 20, 12: 8,
                        13: 8, 10: 4}))  # fmt: skip
    relation = np.where(adult, relation, pick({2: 90, 7: 7, 10: 3}))
    citizen = pick({1: 86, 2: 0.5, 3: 1, 4: 6.5, 5: 6})
    state = pick(dict.fromkeys(_STATES, 1.0) | {6: 6.0, 48: 5.0, 12: 4.0, 36: 4.0})
    at_home = np.where(chance(0.6), state, pick(dict.fromkeys(_STATES, 1.0)))
    birthplace = np.where(citizen == 1, at_home, np.where(citizen == 2, 72.0, pick(_COUNTRIES)))
    hearing, seeing = chance(expit(0.06 * age - 6)), chance(expit(0.03 * age - 5))
    mind = chance(expit(0.01 * age - 3.3)) & (age >= 5)
    disabled = hearing | seeing | mind | chance(expit(0.05 * age - 5))
    score = 1.6 + 0.2 * (np.nan_to_num(schooling) - 18) / 3 - 1.3 * disabled
    employed = chance(expit(score - 0.3 * woman - 3.0 * (age > 66))) & working_age
    status = np.where(employed, pick({1: 970, 2: 25, 4: 5}), pick({3: 10, 6: 90}))
    worked = employed | (chance(0.3) & working_age)
    hours = np.where(worked, np.clip(np.round(generator.normal(39, 11, n)), 1, 99), np.nan)
    income = np.exp(
        9.2 + 0.2 * np.nan_to_num(schooling) * adult / 3 + 0.02 * np.nan_to_num(hours)
        - 0.15 * woman + generator.normal(0, 0.7, n)
    )  # fmt: skip
    income = np.where(worked | chance(0.6), np.round(income, -1), 0.0)
    commutes = status == 1
    area = 100.0 * generator.integers(1, 60, n)
    out: dict[str, Any] = {
        "AGEP": age, "SEX": np.where(woman, 2.0, 1.0), "SCHL": schooling, "MAR": marital,
        "RAC1P": pick({1: 720, 2: 127, 3: 7, 4: 1, 5: 2, 6: 57, 7: 2, 8: 50, 9: 34}),
        "RELP": relation, "CIT": citizen, "NATIVITY": np.where(citizen > 3, 2.0, 1.0),
        "ST": state, "POBP": birthplace, "DEAR": code(hearing), "DEYE": code(seeing),
        "DREM": code(mind, age >= 5), "DIS": code(disabled), "PUMA": area,
        "ESP": np.where(adult | (relation != 2), np.nan,
                        pick({1: 40, 2: 15, 3: 5, 4: 3, 5: 6, 6: 2, 7: 21, 8: 8})),
        "MIG": np.where(age < 1, np.nan, pick({1: 860, 3: 135, 2: 5})),
        "MIL": np.where(age < 17, np.nan, pick({4: 92, 2: 6, 3: 1.5, 1: 0.5})),
        "ANC": pick({1: 50, 2: 30, 3: 2, 4: 18}),
        "FER": code(chance(0.06), woman & (age >= 15) & (age <= 50)),
        "GCL": code(chance(0.04), age >= 30), "ESR": np.where(working_age, status, np.nan),
        "COW": np.where(worked, pick({1: 67, 2: 8, 3: 7, 4: 4.5, 5: 3, 6: 6.5, 7: 3.7, 8: 0.3}),
                        np.nan),
        "OCCP": np.where(worked, pick(_OCCUPATIONS), np.nan), "WKHP": hours,
        "JWTR": np.where(commutes, pick({1: 880, 2: 40, 4: 25, 5: 10, 7: 3, 8: 2, 9: 8, 10: 32}),
                         np.nan),
        "JWMNP": np.where(commutes, np.clip(np.round(generator.lognormal(3, 0.7, n)), 1, 150),
                          np.nan),
        "POWPUMA": np.where(commutes, np.where(chance(0.7), area, 100.0), np.nan),
        "PINCP": np.where(age >= 15, income, np.nan),
        "POVPIP": np.clip(np.round(income / 130), 0, 501),
        "PWGTP": np.maximum(1.0, np.round(generator.gamma(2.0, 50.0, n))),
    }  # fmt: skip
    return out


def _terms(columns: Mapping[str, Array]) -> dict[str, Array]:
    """What the logits of the risks are linear in."""
    age, race = (columns["AGEP"] - 40) / 10, columns["RAC1P"]
    travel, occupation = columns["JWTR"], columns["OCCP"]
    terms = {
        "Intercept": np.ones_like(age),
        "age": age,
        "age squared": age**2,
        "schooling": (np.nan_to_num(columns["SCHL"], nan=1.0) - 18) / 3,
        "hours": (np.nan_to_num(columns["WKHP"], nan=40.0) - 40) / 10,
        "income": (np.nan_to_num(columns["PINCP"]) - 15_000) / 15_000,
        "female": columns["SEX"] == 2,
        "married": columns["MAR"] == 1,
        "never married": columns["MAR"] == 5,
        "black": race == 2,
        "disability": columns["DIS"] == 1,
        "not working": np.isin(columns["ESR"], (3, 6)),
        "not a relative": columns["RELP"] >= 11,
        "management": occupation < 1000,
        "public transport": (travel >= 2) & (travel <= 6),
        "on foot": np.isin(travel, (9, 10)),
    }
    return {name: np.asarray(values, dtype=float) for name, values in terms.items()}


def _target(generator: np.random.Generator, task: str, outcome: NDArray[np.int64]) -> Array:
    """Draw the target's value, given whether it is positive."""
    n = len(outcome)
    yes: Any
    no: Any
    if task == "ACSIncome":
        above = 50_010 + np.round(generator.lognormal(10, 0.8, n), -1)
        yes, no = above, 110 + np.round(49_800 * generator.random(n) ** 0.7, -1)
    elif task == "ACSTravelTime":
        yes, no = (
            20.0 + np.minimum(generator.geometric(1 / 18, n), 130),
            generator.integers(1, 21, n),
        )
    else:
        codes = {"ACSPublicCoverage": ([1], [2]), "ACSMobility": ([3] * 19 + [2], [1]),
                 "ACSEmployment": ([1], [6] * 17 + [3, 3, 2])}[task]  # fmt: skip
        yes, no = (generator.choice(np.array(c, dtype=float), n) for c in codes)
    return np.asarray(np.where(outcome == 1, yes, no), dtype=float)
