"""What the tests of augmentation share."""

from __future__ import annotations

import json
import re

import pytest


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch):
    """Keep a proxy or a key of the machine out of the tests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model_text():
    """Give a simulated model's reply to each kind of an oracle's prompts."""

    def reply(prompt: str) -> str:
        if n := re.search(r"Name exactly (\d+) attributes", prompt):
            n = int(n[1])
            named = [
                {"name": f"quality {k}", "description": "It is one.", "weight": 1 / n}
                for k in range(n)
            ]
            return json.dumps({"attributes": named})
        if n := re.search(r"Name exactly (\d+) concrete things", prompt):
            effects = ["raises", "lowers"]
            listed = [{"text": f"thing {k}", "effect": effects[k % 2]} for k in range(int(n[1]))]
            return json.dumps({"elements": listed})
        if move := re.search(r"so that its (.+) becomes clearly (\w+)", prompt):
            old = re.search(r"<answer>\n(.*)\n</answer>", prompt, re.S)[1]
            told = json.dumps({"answer": f"{old} [{move[1]} {move[2]}]"})
            return f"Sure!\n```json\n{told}\n```"
        if "two versions" in prompt:
            new = re.search(r"<version number=2>\n(.*)\n</version>", prompt, re.S)[1]
            better = "better" if new.endswith("better]") else "worse"
            told = {"change": "much", "direction": better, "others_changed": False}
            return json.dumps({**told, "comment": "Fine."})
        if "in other words" in prompt:
            old = re.search(r"<answer>\n(.*)\n</answer>", prompt, re.S)[1]
            return json.dumps({"answer": f"Said otherwise: {old}"})
        assert "Rewrite the draft" in prompt, prompt
        both = re.findall(r"<answer name=\w+>\n(.*?)\n</answer>", prompt, re.S)
        return json.dumps({"answer": f"{both[0]} in the manner of {both[1]}"})

    return reply
