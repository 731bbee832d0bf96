"""What the fuzzer runs: every public function that takes a data frame, on a small frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import causalrm as crm
from causalrm import attribution, augment, calibration, deconfound, preference, survival


class Names(dict[str, str]):
    """Names of the columns in the disguised frame, by the plain names."""

    listed = False

    def __call__(self, *plain: str) -> list[str]:
        return [self[name] for name in plain]

    def formula(self, *plain: str) -> Any:
        """Name covariates in a formula, or in a list where the plan says so."""
        if self.listed:
            return self(*plain)
        return " + ".join(f"`{self[name]}`" for name in plain)


@dataclass(frozen=True)
class Target:
    """A public function with a frame.

    Parameters
    ----------
    name : str
        Public name, and what distinguishes the case after a comma.
    make : callable
        Without arguments: a plain frame of floats and texts.
    run : callable
        (data frame, names) -> what is compared: frames, arrays, results, numbers.
    levels : tuple of str
        Text columns whose values are levels.
    pandas_only : bool
        Whether it takes no other data frames.
    arrays : bool
        Whether it is given columns, so that it cannot know their names.
    undefined : bool
        Whether an estimate may be NaN, because what it estimates need not exist.
    booleans : bool
        Whether True and 1 mean the same to it.
    also : tuple of str
        Further public names that it runs.
    """

    name: str
    make: Callable[[], pd.DataFrame]
    run: Callable[[Any, Names], Any]
    levels: tuple[str, ...] = ()
    pandas_only: bool = False
    arrays: bool = False
    undefined: bool = False
    booleans: bool = True
    also: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Public names that the case runs."""
        return {self.name.partition(",")[0].rpartition(".")[2], *self.also}

    def __str__(self) -> str:
        return self.name


def _grid(x: np.ndarray) -> np.ndarray:
    """Round so that a small float type holds each number exactly."""
    return np.round(np.asarray(x, dtype=float) * 8) / 8


def _columns(data: Any, names: list[str]) -> Any:
    return data[names] if isinstance(data, pd.DataFrame) else data.select(names)


def times() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 120
    x = _grid(rng.normal(6, 2, n))
    g = rng.choice(["a", "b", "c"], n)
    t = 6 * rng.weibull(1.5, n) * np.exp(0.1 * (x - 6) + 0.4 * (g == "b"))
    censored = rng.uniform(2, 16, n)
    return pd.DataFrame(
        {
            "x": x, "g": g, "time": np.maximum(_grid(np.minimum(t, censored)), 0.125),
            "event": (t <= censored) * 1.0, "arm": rng.integers(2, size=n) * 1.0,
            "w": 1.0 + np.arange(n) % 3, "site": np.array([f"s{i % 40:02d}" for i in range(n)]),
        }
    )  # fmt: skip


def _survival(data: Any, n: Names) -> Any:
    model = crm.SurvivalRegression(phi=n.formula("x", "g"), gamma="1", kappa="weibull")
    fit = model.fit(data, time=n["time"], event=n["event"])
    return fit, fit.predict_survival(data, times=[2.0, 5.0])


def _weighted(data: Any, n: Names) -> Any:
    model = crm.SurvivalRegression(phi=n.formula("x"), gamma=n.formula("arm"))
    return model.fit(data, time=n["time"], event=n["event"], weights=n["w"], cluster=n["site"])


def _diagnosed(data: Any, n: Names) -> Any:
    model = crm.SurvivalRegression(phi=n.formula("x", "arm"), kappa="weibull")
    fit = model.fit(data, time=n["time"], event=n["event"])
    return (
        survival.brier_score(fit, data, times=[2.0, 5.0]),
        survival.calibration(fit, data, 4.0, groups=4),
        survival.concordance(fit, data),
        fit.predict_quantile(data, [0.5]), fit.residuals(data),
    )  # fmt: skip


def _contrast(method: str) -> Callable[[Any, Names], Any]:
    def run(data: Any, n: Names) -> Any:
        model = crm.SurvivalRegression(phi=n.formula("x", "arm"), kappa="weibull")
        fit = model.fit(data, time=n["time"], event=n["event"])
        return survival.standardized_contrast(
            fit, data, treatment=n["arm"], times=[3.0], rmst=5.0, method=method
        )

    return run


def _select(data: Any, n: Names) -> Any:
    return survival.select(
        data, n.formula("x", "g"), time=n["time"], event=n["event"],
        families=["weibull", "loglogistic"], structures=["aft"],
    )  # fmt: skip


def visits() -> pd.DataFrame:
    frame = times()
    lower = np.floor(frame["time"] / 3) * 3
    seen = frame["event"] == 1
    frame["lower"] = np.where(seen, lower, frame["time"])
    frame["upper"] = np.where(seen, lower + 3, np.inf)
    return frame[["x", "g", "lower", "upper"]]


def _intervals(data: Any, n: Names) -> Any:
    model = crm.SurvivalRegression(phi=n.formula("x", "g"), kappa="weibull")
    return model.fit(data, lower=n["lower"], upper=n["upper"])


def votes() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 150
    first = rng.integers(0, 4, n)
    second = (first + rng.integers(1, 4, n)) % 4
    names = np.array(["ant", "bee", "cat", "dog"])
    x = _grid(rng.normal(2, 1, n))
    won = rng.random(n) < 1 / (1 + np.exp(-0.3 * (first - second) - 0.2 * x))
    return pd.DataFrame(
        {
            "one": names[first], "other": names[second], "x": x, "won": won * 1.0,
            "z": _grid(rng.normal(size=n)),
            "w": 1.0 + np.arange(n) % 3, "judge": [f"j{i % 40:02d}" for i in range(n)],
        }
    )  # fmt: skip


def _bradley(data: Any, n: Names) -> Any:
    model = crm.BradleyTerry(covariates=n.formula("x"))
    fit = model.fit(data, a=n["one"], b=n["other"], outcome=n["won"], cluster=n["judge"])
    return fit, fit.predict_proba(data), fit.result_.ranks() if hasattr(fit.result_, "ranks") else 0


def _general(data: Any, n: Names) -> Any:
    model = crm.GeneralPreference(n_starts=2, draws=99)
    fit = model.fit(data, a=n["one"], b=n["other"], outcome=n["won"], weights=n["w"])
    return fit, fit.predict_proba(data)


def _thurstone(data: Any, n: Names) -> Any:
    fit = crm.Thurstone(penalty=6.0).fit(data, a=n["one"], b=n["other"], outcome=n["won"])
    return fit, fit.predict_proba(data)


def _controlled(data: Any, n: Names) -> Any:
    return preference.controlled_win_rate(
        data, outcome=n["won"], controls=n("x"), cluster=n["judge"], weights=n["w"]
    )


def _reward(data: Any, n: Names) -> Any:
    a = _columns(data, n("x", "z"))
    fit = crm.PreferenceRewardModel().fit(
        a, np.zeros((len(data), 2)), data[n["won"]], cluster=data[n["judge"]]
    )
    return fit, fit.reward(a)


def rewards() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 160
    fact, lottery = _grid(rng.normal(size=n)), _grid(rng.normal(size=n))
    hour = _grid(3 + 2 * fact + 2 * lottery + rng.normal(size=n))
    site = rng.choice(["a", "b", "c"], n)
    clicks = _grid(fact + 0.5 * hour + (site == "b") + rng.normal(size=n))
    shown = rng.random(n) < 1 / (1 + np.exp(-0.5 * (hour - 3)))
    return pd.DataFrame(
        {
            "fact": fact, "hour": hour, "site": site, "clicks": clicks, "lottery": lottery,
            "shown": shown * 1.0, "bought": (rng.random(n) < 1 / (1 + np.exp(-fact))) * 1.0,
            "author": [f"u{i % 40:02d}" for i in range(n)], "w": 1.0 + np.arange(n) % 3,
            "chance": np.where(shown, 0.625, 0.375),
        }
    )  # fmt: skip


def _deconfounded(method: str) -> Callable[[Any, Names], Any]:
    def run(data: Any, n: Names) -> Any:
        roles: dict[str, Any] = {"outcome": n["clicks"], "text": n("fact")}
        if method == "iv":
            roles |= {"confounders": n.formula("hour"), "instruments": n.formula("lottery")}
        else:
            roles |= {"confounders": n.formula("hour", "site"), "cluster": n["author"]}
        fit = crm.DeconfoundedReward(method, folds=2).fit(data, **roles)
        return fit, fit.transform(data), fit.predict_reward(data)

    return run


def _absorbed(data: Any, n: Names) -> Any:
    return deconfound.absorbed_regression(
        data, y=n["clicks"], x=n.formula("fact", "hour"), absorb=n("author", "site"),
        weights=n["w"],
    )  # fmt: skip


def _effect(method: str) -> Callable[[Any, Names], Any]:
    def run(data: Any, n: Names) -> Any:
        return deconfound.average_effect(
            data, outcome=n["clicks"], treatment=n["shown"], folds=2, rng=0, method=method,
            covariates=() if method == "difference" else n.formula("fact", "site"),
        )  # fmt: skip

    return run


def _fused(data: Any, n: Names) -> Any:
    half = len(data) // 2
    first = data.iloc[:half] if isinstance(data, pd.DataFrame) else data.slice(0, half)
    return deconfound.fuse(
        first, data,
        outcome=n["clicks"], treatment=n["shown"], covariates=n.formula("fact", "site"),
    )  # fmt: skip


def _heterogeneous(data: Any, n: Names) -> Any:
    return deconfound.heterogeneity(
        data, outcome=n["clicks"], treatment=n["shown"], modifiers=n.formula("fact"),
        covariates=n.formula("hour", "site"), folds=2,
    )  # fmt: skip


def _offset(data: Any, n: Names) -> Any:
    fit = deconfound.offset_reward(
        data, outcome=n["bought"], text=n("fact"), confounders=n.formula("hour", "site"),
        cluster=n["author"],
    )  # fmt: skip
    return fit, fit.predict_reward(data)


def _policy(method: str) -> Callable[[Any, Names], Any]:
    def run(data: Any, n: Names) -> Any:
        actions = data[n["site"]]
        level = next((v for v in np.asarray(actions, dtype=object) if isinstance(v, str)), "a")
        return deconfound.policy_value(
            data, action=n["site"], reward=n["clicks"], policy={level: 1.0}, method=method,
            covariates=n.formula("fact"), folds=2, cluster=n["author"],
        )  # fmt: skip

    return run


def selective() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 120
    x, g = _grid(rng.normal(2, 1, n)), rng.choice(["a", "b", "c"], n)
    risk = -1 + 0.6 * (x - 2) + 0.4 * (g == "b") + rng.uniform(0, 2, n)
    seen = rng.random(n) < 1 / (1 + np.exp(-0.5 - risk))
    sick = rng.random(n) < 1 / (1 + np.exp(-risk))
    z = _grid(rng.normal(size=n) + seen)
    wage = _grid(1 + 0.5 * x + rng.normal(size=n))
    return pd.DataFrame(
        {
            "x": x, "g": g, "seen": seen * 1.0, "sick": np.where(seen, sick, np.nan), "z": z,
            "wage": np.where(seen, wage, np.nan),
        }
    )  # fmt: skip


def _selective(data: Any, n: Names) -> Any:
    known = [crm.Prevalence(0.4, se=0.05), crm.Expertise(free=n("x"))]
    model = crm.SelectiveLabelsModel(n.formula("x", "g"), constraints=known, draws=128)
    fit = model.fit(data, tested=n["seen"], outcome=n["sick"])
    return fit, fit.predict_risk(data)


def _heckman(data: Any, n: Names) -> Any:
    model = crm.HeckmanModel(n.formula("x"), n.formula("x", "z"), draws=128)
    fit = model.fit(data, selected=n["seen"], outcome=n["wage"])
    return fit, fit.predict_outcome(data)


def choices() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    sets, k = 60, 3
    price, fast = _grid(rng.uniform(1, 9, (sets, k))), rng.integers(2, size=(sets, k)) * 1.0
    kind = rng.choice(["bus", "car"], (sets, k))
    utility = -0.3 * price + fast + (kind == "car") + rng.gumbel(size=(sets, k))
    chosen = utility == utility.max(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "occasion": np.repeat([f"o{i:02d}" for i in range(sets)], k), "price": price.ravel(),
            "fast": fast.ravel(), "kind": kind.ravel(), "chosen": chosen.ravel() * 1.0,
        }
    )  # fmt: skip


def _logit(data: Any, n: Names) -> Any:
    return attribution.conditional_logit(
        data, occasion=n["occasion"], chosen=n["chosen"], attributes=n("price", "fast", "kind"),
        cost=n["price"],
    )  # fmt: skip


def _experiment(data: Any, n: Names) -> Any:
    kinds = sorted({k for k in data[n["kind"]] if isinstance(k, str)})
    attributes = {n["price"]: [1, 5, 9], n["fast"]: [0, 1], n["kind"]: kinds}
    design = crm.ChoiceExperiment(attributes, n_sets=4, n_alternatives=3, rng=0)
    return design.fit(data.rename(columns={n["occasion"]: "occasion", n["chosen"]: "chosen"}))


def answers() -> pd.DataFrame:
    return crm.datasets.make_preferences(40, n_topics=8, rng=0)[0][["query", "chosen", "rejected"]]


_MADE: dict[str, pd.DataFrame] = {}


def _augmented() -> pd.DataFrame:
    if "pairs" not in _MADE:
        augmenter = crm.CausalAugmenter(augment.RuleOracle(), n_attributes=1)
        _MADE["pairs"] = augmenter.generate(answers())
    return _MADE["pairs"]


def _generated(data: Any, n: Names) -> Any:
    augmenter = crm.CausalAugmenter(augment.RuleOracle(), n_attributes=1)
    made = augmenter.generate(data, **{role: n[role] for role in ("query", "chosen", "rejected")})
    return made.drop(columns="parent")  # labels of rows


def _robust(data: Any, n: Names) -> Any:
    roles = {role: n[role] for role in ("query", "chosen", "rejected")}
    encoder = crm.text.HashedText(32, 16)
    model = crm.RobustRewardModel(encoder, drop_attributes=False).fit(data, _augmented(), **roles)
    return model, model.predict_proba(data)


def _filtered(data: Any, n: Names) -> Any:
    roles = {role: n[role] for role in ("query", "chosen", "rejected")}
    encoder = crm.text.HashedText(32, 16)
    return crm.ConfidenceFilter(encoder=encoder, cross_fit=2).fit(data, _augmented(), **roles)


def _styled(data: Any, n: Names) -> Any:
    roles = {role: n[role] for role in ("query", "chosen", "rejected")}

    def longer(pairs: pd.DataFrame) -> Any:
        return np.array([len(v) for v in pairs[n["chosen"]]]) - 80.0

    return augment.style_robustness(longer, data, **roles)


def flips() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    frame = pd.DataFrame(rng.choice([-1.0, 1.0], (120, 3)), columns=["right", "full", "long"])
    frame["flipped"] = rng.choice(["right", "full"], 120)
    own = np.where(frame["flipped"] == "right", 2 * frame["right"], frame["full"])
    frame["change"] = _grid(-2 * own + rng.normal(size=120))
    frame["query"] = [f"q{i % 40:02d}" for i in range(120)]
    return frame


def _attributes(method: str) -> Callable[[Any, Names], Any]:
    def run(data: Any, n: Names) -> Any:
        # The column that names attributes speaks of the columns by their names.
        values = list(data[n["flipped"]])
        values = [v.as_py() if hasattr(v, "as_py") else v for v in values]
        named = [n.get(v, v) if isinstance(v, str) else v for v in values]
        if isinstance(data, pd.DataFrame):
            data = data.assign(**{n["flipped"]: pd.Series(named, index=data.index, dtype=object)})
        return augment.attribute_effects(
            data, change=n["change"], attribute=n["flipped"], causal=n("right", "full"),
            spurious=n("long"), cluster=n["query"], method=method,
        )  # fmt: skip

    return run


def scores() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    n = 160
    p = np.clip(_grid(8 * rng.uniform(size=n)) / 8, 1 / 64, 63 / 64)
    return pd.DataFrame(
        {
            "y": (rng.random(n) < p) * 1.0, "p": p, "age": _grid(rng.uniform(2, 9, n)),
            "site": rng.choice(["a", "b", "c"], n),
            "scenario": [f"s{i % 40:02d}" for i in range(n)], "w": 1.0 + np.arange(n) % 3,
        }
    )  # fmt: skip


def _segments(data: Any, n: Names) -> Any:
    columns = _columns(data, n("age", "site"))
    return calibration.multicalibration_audit(
        data[n["y"]], data[n["p"]], columns, min_rows=20, n_boot=100, depth=1
    )


def _discrimination(data: Any, n: Names) -> Any:
    columns = _columns(data, n("age", "site"))
    return calibration.discrimination_audit(data[n["p"]], columns, data[n["scenario"]])


def _report(data: Any, n: Names) -> Any:
    return crm.calibration_report(
        data[n["y"]], data[n["p"]], weights=data[n["w"]], groups=data[n["site"]],
        cluster=data[n["scenario"]], n_boot=100,
    )  # fmt: skip


def _compared(data: Any, n: Names) -> Any:
    p = data[n["p"]]
    return calibration.compare(
        data[n["y"]], {"one": p, "other": np.asarray(p, dtype=float) ** 2}, n_boot=100
    )


def _task(data: Any, n: Names) -> Any:
    texts = {
        n["age"]: crm.ColumnText("age", number=".2f"),
        n["site"]: crm.ColumnText("site", template="{}"),
    }
    task = crm.RiskTask("Will it happen?", texts, target=n["y"])
    model = crm.llm.FunctionModel(
        lambda prompt: {"A": len(prompt) % 7 / 7, "B": 1 - len(prompt) % 7 / 7}
    )
    found = crm.RiskScorer(task, model).score(data)
    return found.to_frame(), task.outcome(data)


def persons() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    return pd.DataFrame(
        {
            "AGEP": rng.integers(10, 90, 60) * 1.0, "WKHP": rng.integers(0, 60, 60) * 1.0,
            "PINCP": rng.integers(0, 500, 60) * 100.0, "ESR": rng.integers(1, 6, 60) * 1.0,
        }
    )  # fmt: skip


def _population(data: Any, n: Names) -> Any:
    return calibration.acs_population(data.rename(columns={v: k for k, v in n.items()}))


def _accuracies(data: Any, n: Names) -> Any:
    gaps = data[n["clicks"]]
    others, w = _columns(data, n("fact", "hour")), data[n["w"]]
    return (
        augment.accuracy(gaps, by=data[n["site"]], cluster=data[n["author"]]),
        augment.length_matched_accuracy(gaps, w, data[n["chance"]], cluster=data[n["author"]]),
        augment.best_of_k(gaps, others, by=data[n["site"]]),
        augment.one_against_many(gaps, others),
        augment.best_of_n(others, _columns(data, n("hour", "clicks")), n=(1, 2)),
    )  # fmt: skip


TARGETS = [
    Target("SurvivalRegression", times, _survival, ("g", "site")),
    Target("SurvivalRegression, weights and clusters", times, _weighted, ("g", "site")),
    Target("SurvivalRegression, intervals", visits, _intervals, ("g",)),
    Target(
        "survival.brier_score, calibration, concordance",
        times,
        _diagnosed,
        ("g", "site"),
        also=("calibration", "concordance"),
    ),
    Target("survival.standardized_contrast", times, _contrast("gformula"), ("g", "site")),
    Target("survival.standardized_contrast, aipw", times, _contrast("aipw"), ("g", "site")),
    Target("survival.select", times, _select, ("g", "site")),
    Target("BradleyTerry", votes, _bradley, ("one", "other", "judge")),
    Target("GeneralPreference", votes, _general, ("one", "other", "judge")),
    Target("Thurstone", votes, _thurstone, ("one", "other", "judge")),
    Target("preference.controlled_win_rate", votes, _controlled, ("one", "other", "judge")),
    Target("PreferenceRewardModel", votes, _reward, ("one", "other", "judge"), arrays=True),
    Target("DeconfoundedReward, joint", rewards, _deconfounded("joint"), ("site", "author")),
    Target("DeconfoundedReward, plr", rewards, _deconfounded("plr"), ("site", "author")),
    Target("DeconfoundedReward, iv", rewards, _deconfounded("iv"), ("site", "author")),
    Target("deconfound.absorbed_regression", rewards, _absorbed, ("site", "author")),
    Target("deconfound.average_effect, aipw", rewards, _effect("aipw"), ("site", "author")),
    Target(
        "deconfound.average_effect, difference", rewards, _effect("difference"), ("site", "author")
    ),
    Target(
        "deconfound.average_effect, regression", rewards, _effect("regression"), ("site", "author")
    ),
    Target("deconfound.fuse", rewards, _fused, ("site", "author")),
    Target("deconfound.heterogeneity", rewards, _heterogeneous, ("site", "author")),
    Target("deconfound.offset_reward", rewards, _offset, ("site", "author")),
    Target("deconfound.policy_value", rewards, _policy("dr"), ("site", "author")),
    Target("deconfound.policy_value, snips", rewards, _policy("snips"), ("site", "author")),
    Target("SelectiveLabelsModel", selective, _selective, ("g",)),
    Target("HeckmanModel", selective, _heckman, ("g",)),
    Target("attribution.conditional_logit", choices, _logit, ("kind", "occasion")),
    Target(
        "ChoiceExperiment",
        choices,
        _experiment,
        ("kind", "occasion"),
        pandas_only=True,
        arrays=True,
    ),
    Target("CausalAugmenter", answers, _generated),
    Target("RobustRewardModel", answers, _robust),
    Target("ConfidenceFilter", answers, _filtered),
    Target("augment.style_robustness", answers, _styled, pandas_only=True),
    Target(
        "augment.attribute_effects",
        flips,
        _attributes("per_attribute"),
        ("query",),
        pandas_only=True,
    ),
    Target(
        "augment.attribute_effects, lasso",
        flips,
        _attributes("stacked_l1"),
        ("query",),
        pandas_only=True,
    ),
    Target(
        "augment.accuracy, and its relatives",
        rewards,
        _accuracies,
        ("site", "author"),
        pandas_only=True,
        arrays=True,
        also=("length_matched_accuracy", "best_of_k", "one_against_many", "best_of_n"),
    ),
    Target(
        "calibration.multicalibration_audit", scores, _segments, ("site", "scenario"), arrays=True
    ),
    Target(
        "calibration.discrimination_audit",
        scores,
        _discrimination,
        ("site", "scenario"),
        arrays=True,
    ),
    Target(
        "calibration_report", scores, _report, ("site", "scenario"), arrays=True, undefined=True
    ),
    Target(
        "calibration.compare", scores, _compared, ("site", "scenario"), arrays=True, undefined=True
    ),
    Target(
        "RiskTask, RiskScorer", scores, _task, ("scenario",), booleans=False, also=("RiskScorer",)
    ),
    Target("calibration.acs_population", persons, _population, pandas_only=True, arrays=True),
]
