from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import causalrm as crm
from tests.attribution.games import sigmoid

TEXT = "Fly now, it is <cheap>. Seats are few.\n\nWill you fly?"


@pytest.fixture(scope="module")
def result():
    template = crm.PromptTemplate.from_text(TEXT, "words", neutral=["Will"], baseline=crm.Mask())
    weights = {"cheap": 2.0, "few": -1.0, "Fly": 0.5}
    value = crm.ScoreValue(lambda text: sum(w * (k in text) for k, w in weights.items()))
    budget = crm.Budget(calls=160)
    return crm.PromptShapley("kernel", budget, order=2).fit(template, value).result_


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_bar_draws_the_largest_on_top(result):
    ax = result.plot()
    assert ax.get_yticklabels()[0].get_text() == "5 <cheap>."
    widths = [p.get_width() for p in ax.patches]
    np.testing.assert_allclose(np.abs(widths), sorted(np.abs(result.phi), reverse=True))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["informative", "neutral"]


def test_waterfall_ends_at_the_value_of_all(result):
    ax = result.plot.waterfall()
    steps = ax.patches
    assert steps[0].get_x() == pytest.approx(result.value_none)
    end = sum(p.get_width() for p in steps) + result.value_none
    assert end == pytest.approx(result.value_all + result.efficiency_gap)


def test_many_components_are_added_up():
    value, _ = sigmoid(40, np.random.default_rng(0))
    fit = crm.PromptShapley("kernel", crm.Budget(calls=200)).fit(
        [f"p{i}" for i in range(40)], value
    )
    assert len(fit.plot.bar().patches) == 25
    ax = fit.plot.waterfall()
    assert ax.get_yticklabels()[-2].get_text().startswith("15 others")
    crm.PromptShapley().fit(["a"], lambda Z: Z[:, 0] * 1.0).plot.text()


def test_heat_map_shows_the_whole_prompt(result):
    ax = result.plot.text()
    drawn = "".join(t.get_text() for t in ax.texts)
    assert drawn.replace(" ", "").startswith("Flynow,itis<cheap>.")
    page = result.to_html()
    assert "&lt;cheap&gt;." in page and "<cheap>" not in page and "95% interval" in page
    assert page.count("<br>") == 2


def test_network_and_convergence(result):
    ax = result.plot.network(most=5)
    assert len(ax.lines) == 5 and len(ax.texts) == 11
    ax = result.plot.convergence(most=3)
    assert len(ax.get_legend().get_texts()) == 3
    assert ax.get_xlabel() == "Calls"
    with pytest.raises(crm.IdentificationError, match="order=2"):
        crm.PromptShapley().fit(["a", "b"], lambda Z: Z[:, 0] * 1.0).plot.network()
