"""Through a real HTTP service on this machine."""

from __future__ import annotations

import numpy as np
import pytest

import causalrm as crm
from causalrm.attribution import SimulatedChooser
from causalrm.llm import FunctionModel, LoopbackServer, OpenAICompatible, SimulatedLanguageModel

TEMPLATE = crm.PromptTemplate(
    "{hello} Which flight?",
    [
        crm.Component("hello", "Good day.", role="neutral"),
        crm.Component("price 1", "200", baseline=crm.Neutral("unknown")),
        crm.Component("price 2", "300", baseline=crm.Neutral("unknown")),
    ],
)
OPTIONS = ["price: {price 1}", "price: {price 2}"]
CHOOSER = SimulatedChooser({"price": -0.01}, centre={"price": 300}, position=0.3)


def client(server, **options):
    return OpenAICompatible(
        "simulated", base_url=server.base_url, api_key="none", progress=False,
        **({"concurrency": 4} | options),
    )  # fmt: skip


def test_a_service_gives_the_same_values_as_the_function_behind_it():
    direct = crm.PromptShapley().fit(TEMPLATE, crm.ChoiceValue(FunctionModel(CHOOSER), OPTIONS, 0))
    with LoopbackServer(FunctionModel(CHOOSER)) as server:
        fit = crm.PromptShapley().fit(TEMPLATE, crm.ChoiceValue(client(server), OPTIONS, 0))
    np.testing.assert_allclose(fit.result_.phi, direct.result_.phi, atol=1e-9)
    assert fit.result_.phi[0] == pytest.approx(0, abs=1e-9)


def test_nothing_is_paid_twice_with_a_cache(tmp_path):
    with LoopbackServer(FunctionModel(CHOOSER)) as server:
        model = client(server, cache=tmp_path / "replies.sqlite")
        value = crm.ChoiceValue(model, OPTIONS, 0)
        crm.PromptShapley().fit(TEMPLATE, value)
        paid = len(server.times)
        crm.PromptShapley().fit(TEMPLATE, value)
        assert len(server.times) == paid
        again = crm.PromptShapley().fit(TEMPLATE, value, archive=tmp_path / "a.jsonl")
    assert again.result_.n_obs == 8 * 2 + 4  # two orders; both ends a second time


def test_refusing_and_failing_services():
    with LoopbackServer(FunctionModel(CHOOSER), faults=["refusal", None]) as server:
        one = client(server, concurrency=1)
        value = crm.ChoiceValue(one, OPTIONS, 0, counterbalance=False)
        with pytest.warns(crm.CausalRMWarning, match="refused"):
            fit = crm.PromptShapley().fit(TEMPLATE, value)
    assert fit.result_.outcomes.set_index("outcome")["count"]["refused"] == 5
    with LoopbackServer(FunctionModel(CHOOSER), faults=["no_logprobs"]) as server:
        value = crm.ChoiceValue(client(server), OPTIONS, 0)
        with pytest.raises(crm.BackendError, match="mode='sample'"):
            crm.PromptShapley().fit(TEMPLATE, value)


def test_a_small_language_model():
    model = FunctionModel(SimulatedLanguageModel(), name="simulated")
    template = crm.PromptTemplate.from_text(
        "The patient smokes. The patient walks every day. Is the risk high?", "sentences"
    )
    with LoopbackServer(model) as server:
        value = crm.ChoiceValue(
            client(server), ["high", "low"], "high", question="Answer:", counterbalance=False
        )
        found = crm.PromptShapley().fit(template, value).result_
    assert found.names[0] == "1 The patient smokes."
    assert 0 < found.value_all < 1 and np.abs(found.phi).max() > 1e-4
    assert found.phi.sum() == pytest.approx(found.value_all - found.value_none)


def test_a_plan_before_and_a_budget_in_money():
    with LoopbackServer(FunctionModel(CHOOSER)) as server:
        value = crm.ChoiceValue(client(server), OPTIONS, 0, mode="sample", max_tokens=1)
        budget = crm.Budget(calls=64, cost=1.0, price=(1.0, 2.0))
        estimator = crm.PromptShapley(budget=budget)
        plan = estimator.plan(TEMPLATE, value)
        assert len(server.times) == 0 and 0 < plan.cost < 0.01
        fit = estimator.fit(TEMPLATE, value)
        assert len(plan.rows) == fit.result_.n_obs == 64
        slow = crm.PromptShapley(budget=crm.Budget(calls=4000, seconds=2.0))
        short = slow.fit(TEMPLATE, value).result_
        early = crm.PromptShapley(budget=crm.Budget(calls=4000, seconds=1e-9))
        with pytest.raises(crm.IdentificationError, match="seconds ended after"):
            early.fit(TEMPLATE, value)
    assert short.diagnostics["stopped"] == "seconds" and 0 < short.n_obs < 4000
