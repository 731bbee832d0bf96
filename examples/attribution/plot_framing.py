"""
A framing effect, decomposed
============================

Two descriptions of the same outcome, one in gains and one in losses. The frame should not matter;
in people it does. The model here is **simulated**: it reacts to "saved" and to one courtesy. The
attribution says how much of its choice is due to the frame, to facts and to filler.
"""

import math

import causalrm as crm
from causalrm.attribution import bias_pairs
from causalrm.llm import FunctionModel


def simulated(prompt):
    """Simulated: prefers the sure plan in gains, more so where the number is stated."""
    u = (
        -0.4
        + 1.3 * ("saved" in prompt) * (1.0 + 0.5 * ("300" in prompt))
        - 0.2 * ("lost" in prompt)
    )
    u += 0.3 * ("carefully" in prompt)
    a = next(line for line in prompt.split("\n") if line.startswith("A. "))
    p = 1 / (1 + math.exp(-u))
    p = p if "plan one" in a else 1 - p
    return {"A": p, "B": 1 - p}


pair = bias_pairs()["framing"]
print(pair.template.render([True] * len(pair.template)))

# %%
# Replies are drawn, ten to each coalition and order of the options.

model = FunctionModel(simulated, name="simulated")
value = crm.ChoiceValue(model, pair.options, pair.target, mode="sample", replies=10)
fit = crm.PromptShapley(budget=crm.Budget(calls=3200), order=2).fit(pair.template, value)
fit.summary()

# %%
fit.plot()

# %%
# The prompt itself, shaded by value; bold where the interval excludes zero.

fit.plot.text()

# %%
# The frame works more where the number is stated: an interaction.

fit.plot.network(index="SII")

# %%
# Frame and filler are marked neutral, since they carry no fact. Their share of what moves the
# choice:

print(fit.result_.token_noise().share)

# %%
# A placebo: the filler in other words. No effect is expected, and a test says whether one is there.
# "carefully" is lost in the paraphrase of the greeting, and this model reacts to it.

placebo = crm.PromptShapley("exact", crm.Budget(calls=1600)).fit(pair.template.placebo(), value)
print(placebo.result_.joint_test())
placebo.to_frame()[["term", "estimate", "std_error", "p_value"]].round(3)

# %%
# What absence means is a choice, too. Two policies beside one another:

policies = {"as marked": crm.Mask("..."), "dropped": crm.Drop()}
table = crm.PromptShapley("exact", crm.Budget(calls=1600)).sensitivity(
    pair.template, value, policies
)
table[["group", "term", "estimate", "std_error", "difference", "difference_se"]].round(3)
