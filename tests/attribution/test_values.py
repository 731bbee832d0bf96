from __future__ import annotations

import numpy as np
import pytest

import causalrm as crm
from causalrm.attribution._replies import chosen
from causalrm.llm import FunctionModel, Reply


def chooser(prompt):
    """Simulated: likes cheap, and whatever is shown first."""
    first, second = (line for line in prompt.split("\n") if line[:3] in ("A. ", "B. "))
    u = 0.5 + 1.0 * ("cheap" in first) - 1.0 * ("cheap" in second) + 0.3 * ("nice" in prompt)
    p = 1 / (1 + np.exp(-u))
    return {"A": 0.9 * p, "B": 0.9 * (1 - p)}


def made(**options):
    parts = [crm.Component("price", "cheap", baseline=crm.Neutral("some")),
             crm.Component("tone", "Be nice.", role="neutral")]  # fmt: skip
    return crm.PromptTemplate("{tone} Which seat?", parts, **options)


OPTIONS = ["the {price} seat", "the other seat"]


def exact(z, balanced=True):
    price, tone = z
    logits = [0.5 + price + 0.3 * tone, 0.5 - price + 0.3 * tone]
    p = 1 / (1 + np.exp(-np.array(logits)))
    return (p[0] + 1 - p[1]) / 2 if balanced else p[0]


def test_probabilities_are_those_of_the_model_and_orders_are_balanced():
    for balanced in (True, False):
        value = crm.ChoiceValue(
            FunctionModel(chooser), OPTIONS, OPTIONS[0], counterbalance=balanced
        )
        fit = crm.PromptShapley().fit(made(), value)
        table = {z: exact(z, balanced) for z in [(0, 0), (0, 1), (1, 0), (1, 1)]}
        price = (table[1, 0] - table[0, 0] + table[1, 1] - table[0, 1]) / 2
        assert fit.result_.phi[0] == pytest.approx(price)
        assert fit.result_.value_all == pytest.approx(table[1, 1])
    assert len(fit.result_.variants) == 1
    assert fit.archive_.to_frame()["mass"].round(9).eq(0.9).all()


def test_scale_and_target_are_read_off_the_same_replies():
    value = crm.ChoiceValue(FunctionModel(chooser), OPTIONS, 0)
    fit = crm.PromptShapley().fit(made(), value)
    silent = FunctionModel(lambda prompt: 1 / 0, name="chooser")
    other = crm.ChoiceValue(silent, OPTIONS, 1)
    again = crm.PromptShapley().reanalyse(made(), other, fit.archive_)
    np.testing.assert_allclose(again.result_.phi, -fit.result_.phi, atol=1e-12)
    logit = crm.ChoiceValue(silent, OPTIONS, 0, scale="logit")
    odds = crm.PromptShapley().reanalyse(made(), logit, fit.archive_).result_
    p = exact((1, 1))
    assert odds.value_all == pytest.approx(np.log(p / (1 - p)))


def test_order_as_a_player():
    value = crm.ChoiceValue(FunctionModel(chooser), OPTIONS, 0, counterbalance="player")
    found = crm.PromptShapley().fit(made(), value).result_
    assert found.names == ("price", "tone", "option order")
    assert found.phi[2] > 0.05  # the target is shown first


def test_counted_replies_are_near_the_probabilities_with_their_noise():
    exact_fit = crm.PromptShapley().fit(made(), crm.ChoiceValue(FunctionModel(chooser), OPTIONS, 0))

    def without_mass(prompt):
        p = chooser(prompt)
        return {k: v / 0.9 for k, v in p.items()}

    value = crm.ChoiceValue(FunctionModel(without_mass), OPTIONS, 0, mode="sample", replies=20)
    found = crm.PromptShapley(budget=crm.Budget(calls=480)).fit(made(), value).result_
    assert found.n_obs <= 480
    assert 0.005 < found.std_error[0] < 0.08 and not found.cov_template.any()
    assert (np.abs(found.phi - exact_fit.result_.phi) < 4 * found.std_error).all()
    logit = crm.ChoiceValue(
        FunctionModel(without_mass), OPTIONS, 0, mode="sample", replies=20, scale="logit"
    )
    odds = crm.PromptShapley(budget=crm.Budget(calls=480)).fit(made(), logit).result_
    p = exact((1, 1))
    assert odds.value_all == pytest.approx(np.log(p / (1 - p)), abs=0.8)


def test_refusals_and_unclear_replies_are_outcomes():
    def replies(prompt, replicate):
        if replicate % 4 == 0:
            return Reply(refusal="No.", finish_reason="stop")
        return {1: "A", 2: "I like both.", 3: ""}[replicate % 4]

    value = crm.ChoiceValue(
        FunctionModel(replies), ["x", "y"], "x", mode="sample", replies=8, counterbalance=False
    )
    template = crm.PromptTemplate("Which? {a}", [crm.Component("a", "Now.")])
    with pytest.warns(crm.CausalRMWarning, match="refused"):
        fit = crm.PromptShapley(budget=crm.Budget(calls=16)).fit(template, value)
    counts = fit.result_.outcomes.set_index("outcome")["count"]
    assert counts.to_dict() == {"refused": 4, "x": 4, "unparseable": 4, "empty": 4}
    assert fit.result_.value_all == pytest.approx(0.25, abs=0.08)
    assert "4 unparseable" in fit.result_.warnings[0]


def test_an_endpoint_that_is_not_deterministic_is_measured():
    rng = np.random.default_rng(1)

    def drifting(prompt):
        p = 0.5 + 0.2 * ("cheap" in prompt) + 0.01 * rng.standard_normal()
        return {"A": p, "B": 1 - p}

    value = crm.ChoiceValue(FunctionModel(drifting), OPTIONS, 0, counterbalance=False)
    with pytest.warns(crm.CausalRMWarning, match="not deterministic"):
        found = crm.PromptShapley().fit(made(), value).result_
    assert found.diagnostics["endpoint"]["differing"] == 2
    assert found.cov_reply[0, 0] > 0 and not found.cov_sampling.any()


def test_template_variance():
    def wording(prompt):
        p = 0.4 + 0.2 * ("cheap" in prompt) * (1 + 0.5 * ("Which" in prompt))
        return {"A": p, "B": 1 - p}

    texts = ["{tone} What seat?", "{tone} A seat?"]
    value = crm.ChoiceValue(FunctionModel(wording), OPTIONS, 0, counterbalance=False)
    found = crm.PromptShapley().fit(made(paraphrases=texts), value).result_
    effects = np.array([0.3, 0.2, 0.2])
    assert found.phi[0] == pytest.approx(effects.mean())
    part = found.uncertainty().iloc[0]
    assert part["se_template"] == pytest.approx(effects.std(ddof=1) / np.sqrt(3))
    assert part["std_error"] == pytest.approx(part["se_template"])
    low = found.to_frame()["conf_low"][0]  # t with two degrees of freedom
    assert low == pytest.approx(found.phi[0] - 4.302653 * part["se_template"], rel=1e-5)


def test_scores_of_prompts_and_of_replies():
    length = crm.ScoreValue(lambda text: float(len(text)))
    template = crm.PromptTemplate("x{a}{b}", [crm.Component("a", "12"), crm.Component("b", "345")])
    np.testing.assert_allclose(crm.PromptShapley().fit(template, length).result_.phi, [2, 3])
    upper = crm.ScoreValue(
        lambda text: float(text.count("X")), FunctionModel(str.upper), temperature=0
    )
    parts = [crm.Component("a", "xx"), crm.Component("b", "y")]
    found = crm.PromptShapley().fit(crm.PromptTemplate("q{a}{b}", parts), upper).result_
    np.testing.assert_allclose(found.phi, [2, 0], atol=1e-12)


def test_noisy_scores_and_resampled_baselines():
    rng = np.random.default_rng(2)
    noisy = crm.ScoreValue(
        lambda text: 1.0 * ("dry" in text) + rng.normal(0, 0.3),
        FunctionModel(lambda prompt: prompt),
        replies=8,
    )
    parts = [crm.Component("a", "dry"), crm.Component("b", "hot")]
    template = crm.PromptTemplate("q {a} {b}", parts)
    found = crm.PromptShapley().fit(template, noisy).result_
    assert found.std_error[0] == pytest.approx(0.3 / np.sqrt(np.mean(found.n_obs / 4)), rel=0.3)
    assert abs(found.phi[0] - 1) < 4 * found.std_error[0]
    drawn = template.with_baseline({"a": crm.Resample(["dry", "wet"])})
    plain = crm.ScoreValue(lambda text: 1.0 * ("dry" in text), replies=200)
    half = crm.PromptShapley().fit(drawn, plain).result_
    assert half.phi[0] == pytest.approx(0.5, abs=0.1) and half.std_error[0] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": ["a"]}, "2 to 26"),
        ({"options": ["a", "a"]}, "2 to 26"),
        ({"options": ["a", "b"], "target": "c"}, "target must be"),
        ({"options": ["a", "b"], "mode": "guess"}, "mode must"),
        ({"options": ["a", "b"], "scale": "odds"}, "scale must"),
        ({"options": ["a", "b"], "replies": 0}, "positive int"),
        ({"options": ["a", "b"], "counterbalance": "yes"}, "counterbalance"),
    ],
)
def test_bad_choice_values_are_refused(options, message):
    with pytest.raises(crm.DataError, match=message):
        crm.ChoiceValue(FunctionModel(chooser), **options)


def test_values_that_cannot_work_say_so():
    value = crm.ChoiceValue(FunctionModel(chooser), ["x", "y"], "x")
    with pytest.raises(crm.DataError, match="has no placeholder {price}"):
        crm.PromptShapley().fit(made(), value)
    with pytest.raises(crm.DataError, match="at least 2 replies"):
        crm.PromptShapley().fit(
            made().with_baseline(crm.Resample(["u", "v"])),
            crm.ChoiceValue(FunctionModel(chooser), OPTIONS, 0),
        )
    with pytest.raises(crm.DataError, match="temperature=0"):
        crm.ScoreValue(len, FunctionModel(str.upper))
    sampled = crm.ChoiceValue(
        FunctionModel(chooser), OPTIONS, 0, mode="sample", scale="logit", counterbalance=False
    )
    with pytest.raises(crm.DataError, match="badly biased"):
        crm.PromptShapley(budget=crm.Budget(calls=8)).fit(made(), sampled)
    with pytest.raises(crm.DataError, match="ChoiceValue or a ScoreValue"):
        crm.PromptShapley().fit(made(), lambda Z: Z[:, 0])
    empty = crm.PromptTemplate.from_text("One. Two.")
    with pytest.raises(crm.DataError, match="empty when all components are absent"):
        crm.PromptShapley().fit(empty, crm.ScoreValue(len))
    certain = FunctionModel(lambda prompt: {"A": 1.0, "B": 0.0})
    odds = crm.ChoiceValue(certain, OPTIONS, 0, scale="logit", counterbalance=False)
    with pytest.raises(crm.DataError, match="log-odds are infinite"):
        crm.PromptShapley().fit(made(), odds)


def test_calls_without_an_answer_stop_the_fit_and_the_rest_is_kept():
    failed = []

    def flaky(prompt):
        if "nice" in prompt and not failed:
            failed.append(1)
            raise TimeoutError
        return chooser(prompt)

    value = crm.ChoiceValue(FunctionModel(flaky, concurrency=4), OPTIONS, 0)
    estimator = crm.PromptShapley()
    with pytest.raises(crm.BackendError, match="fit again with the same archive"):
        estimator.fit(made(), value)
    kept = len(estimator.archive_)
    assert kept == 3
    fit = estimator.fit(made(), value, archive=estimator.archive_)
    assert fit.result_.diagnostics["paid_calls"] == len(fit.archive_) - kept


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("A", 0), (" b", None), ("B.", 1), ("(B)", 1), ("**B**", 1), ("B. the slow one", 1),
        ("The answer is A.", 0), ("Option B", 1), ("I take the quick one", 0),
        ("A or B", None), ("A good question", None), (None, None),
    ],
)  # fmt: skip
def test_replies_are_read(reply, expected):
    assert chosen(reply, ["A", "B"], ["the quick one", "the slow one"]) == expected


def test_one_component_has_the_whole_difference():
    template = crm.PromptTemplate("Go? {a}", [crm.Component("a", "now")])
    model = FunctionModel(lambda p: {"A": 0.7, "B": 0.3} if "now" in p else {"A": 0.4, "B": 0.6})
    for mode in ("logprob", "sample"):
        value = crm.ChoiceValue(model, ["x", "y"], 0, mode=mode, counterbalance=False)
        found = crm.PromptShapley(budget=crm.Budget(calls=200)).fit(template, value).result_
        assert found.phi[0] == pytest.approx(0.3, abs=4 * found.std_error[0] + 1e-12)
        assert (found.std_error[0] > 0) == (mode == "sample")


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda text: float("nan"), crm.DataError, "gave nan at 1 of 1 coalitions"),
        (lambda text: 1 / 0, crm.BackendError, "ZeroDivisionError"),
        (lambda text: "high", crm.BackendError, "could not convert"),
    ],
)
def test_scores_that_fail_are_reported_with_their_coalition(score, error, message):
    template = crm.PromptTemplate("Go? {a}", [crm.Component("a", "now")])
    with pytest.raises(error, match=message):
        crm.PromptShapley().fit(template, crm.ScoreValue(score))
