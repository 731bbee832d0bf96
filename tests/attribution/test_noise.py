from __future__ import annotations

import numpy as np
import pytest

import causalrm as crm
from causalrm.attribution import token_noise

NEUTRAL = np.array([False, False, False, True, True])


def simulate(phi, sigma, reps, seed):
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(sigma)
    return [phi + root @ rng.standard_normal(len(phi)) for _ in range(reps)]


@pytest.mark.parametrize("neutral", [0.0, 0.1, 0.3])
def test_the_corrected_share_is_unbiased_and_its_interval_covers(neutral):
    phi = np.array([0.5, -0.4, 0.3, neutral, -neutral])
    truth = 2 * neutral**2 / np.sum(phi**2)
    sigma = 0.1**2 * (0.7 * np.eye(5) + 0.3)
    draws = simulate(phi, sigma, 300, 1)
    found = [token_noise(x, sigma, NEUTRAL, draws=50) for x in draws]
    share = np.array([f.share.estimate for f in found])
    covered = np.mean([f.share.conf_low <= truth <= f.share.conf_high for f in found])
    assert 0.92 <= covered
    assert share.mean() == pytest.approx(truth, abs=0.03)
    raw = np.mean([f.uncorrected for f in found])
    null = np.mean([f.uncorrected_null for f in found])
    if not neutral:
        assert raw == pytest.approx(null, rel=0.1) and raw > 0.08
    else:
        assert raw > null


def test_certain_values_give_a_narrow_interval():
    phi = np.array([0.3, 0.2, 0.1, 0.1, 0.0])
    found = token_noise(phi, np.zeros((5, 5)), NEUTRAL)
    assert found.share.estimate == pytest.approx(0.01 / 0.15)
    assert found.share.conf_high - found.share.conf_low < 0.002
    assert found.ratio == pytest.approx((0.01 / 2) / (0.14 / 3))


def test_permuted_marks():
    phi = np.array([1.0, 0.9, 0.8, 0.01, 0.0])
    found = token_noise(phi, 1e-6 * np.eye(5), NEUTRAL)
    assert found.marks_p_value == pytest.approx(0.1, abs=0.03)  # one way in ten
    other = token_noise(phi, 1e-6 * np.eye(5), ~NEUTRAL)
    assert other.marks_p_value == pytest.approx(1.0)
    assert found.to_frame()["term"].tolist()[0] == "share"


def test_both_roles_are_needed():
    with pytest.raises(crm.DataError, match="mark some"):
        token_noise(np.ones(2), np.eye(2), [True, True])


def test_placebo_on_a_chooser_without_and_with_token_noise():
    from causalrm.llm import FunctionModel

    parts = [
        crm.Component("fact", "It is cheap."),
        crm.Component("hello", "Hello.", role="neutral", paraphrases=["Hi."]),
        crm.Component("bye", "Thanks.", role="neutral", paraphrases=["Thank you."]),
    ]
    template = crm.PromptTemplate("{hello} {fact} Buy? {bye}", parts)
    p_values = []
    for effect in (0.0, 0.5):

        def simulated(prompt, effect=effect):
            p = 0.4 + effect * ("Hello" in prompt)
            return {"A": p, "B": 1 - p}

        value = crm.ChoiceValue(
            FunctionModel(simulated), ["yes", "no"], mode="sample", replies=30,
            counterbalance=False,
        )  # fmt: skip
        budget = crm.Budget(calls=120)
        fit = crm.PromptShapley("exact", budget).fit(template.placebo(), value)
        p_values.append(fit.result_.joint_test("neutral").p_value)
    assert p_values[0] > 0.01 and p_values[1] < 1e-4
