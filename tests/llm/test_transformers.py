"""The transformers backend, on a two-layer model with random weights made here.

torch is not in the default environment: on Linux it brings gigabytes of CUDA libraries.
`make test-transformers` runs this file in an environment of its own.
"""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest

WHY = "torch and transformers live in an environment of their own (make test-transformers)"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

from causalrm.core.errors import BackendError, DataError  # noqa: E402
from causalrm.llm import LanguageModel, TransformersModel  # noqa: E402

MERGES = [("Ġ", "Y"), ("Y", "e"), ("Ye", "s"), ("ĠY", "e"), ("ĠYe", "s"), ("N", "o"), ("Ġ", "N"),
          ("ĠN", "o"), ("Ġ", "A"), ("Ġ", "B")]  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a byte-level tokenizer and a small Llama with random weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("random-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<s>", "</s>", *alphabet, *(a + b for a, b in MERGES)]
    bpe = models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=MERGES)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return TransformersModel(folder, device="cpu", progress=False)


@pytest.fixture(scope="module")
def after(folder):
    """Log-probabilities of the next token, computed apart from the backend."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def log_probabilities(text, *tokens):
        ids = tokenizer(text)["input_ids"] + list(tokens)
        with torch.inference_mode():
            logits = net(torch.tensor([ids])).logits[0, -1].double()
        return torch.log_softmax(logits, -1).numpy(), tokenizer

    return log_probabilities


def test_choices_are_scored_exactly(model, after):
    assert isinstance(model, LanguageModel)
    prompts = ["Is it so?", "Is fire cold? Answer:"]
    frame = model.choice_probabilities(prompts, ["Yes", "No"])
    for i, prompt in enumerate(prompts):
        logs, tokenizer = after(prompt)
        p = {
            key: sum(math.exp(logs[tokenizer.convert_tokens_to_ids(t)]) for t in (key, "Ġ" + key))
            for key in ("Yes", "No")
        }
        assert frame.mass[i] == pytest.approx(sum(p.values()), rel=1e-5)
        assert frame["probability[Yes]"][i] == pytest.approx(p["Yes"] / sum(p.values()), rel=1e-5)
    assert (frame["lower[Yes]"] == frame["probability[Yes]"]).all()
    assert (frame["upper[Yes]"] == frame["probability[Yes]"]).all()
    assert (frame.rest == 0).all()
    assert frame["probability[Yes]"].nunique() == 2


def test_choices_of_several_tokens(model, after):
    frame = model.choice_probabilities(["Which?"], ["red", "No"])
    _, tokenizer = after("Which?")
    total = 0.0
    for form in ("red", " red"):
        tokens = tokenizer(form, add_special_tokens=False)["input_ids"]
        assert len(tokens) > 1
        total += math.exp(
            sum(after("Which?", *tokens[:i])[0][token] for i, token in enumerate(tokens))
        )
    assert frame["probability[red]"][0] * frame.mass[0] == pytest.approx(total, rel=1e-4)


def test_replies_repeat_and_replicates_differ(model):
    draws = {"max_tokens": 6, "replicate": range(8)}
    one, two = (model.complete(["Once"] * 8, **draws) for _ in range(2))
    assert list(one.text) == list(two.text)
    assert one.text.nunique() > 1
    assert one.status.isin(["ok", "empty"]).all()
    other = model.complete(["Once"] * 8, seed=1, **draws)
    assert list(other.text) != list(one.text)


def test_log_probabilities_are_raw(model, after):
    frame = model.complete(
        ["Once"], max_tokens=3, temperature=0.7, top_p=0.9, logprobs=True, top_logprobs=5
    )
    logs, tokenizer = after("Once")
    place = frame.logprobs[0][0]
    best = np.sort(logs)[::-1][:5]
    assert [p for _, p in place["top"]] == pytest.approx(list(best), rel=1e-5)
    ids = [i for i in range(len(logs)) if tokenizer.decode([i]) == place["token"]]
    assert min(abs(logs[i] - place["logprob"]) for i in ids) < 1e-5
    assert frame.completion_tokens[0] == len(frame.logprobs[0])


def test_greedy_stop_and_messages(model):
    cold = model.complete(["Once"], temperature=0, max_tokens=8)
    assert cold.text[0] == model.complete(["Once"], temperature=0, max_tokens=8, seed=5).text[0]
    cut = cold.text[0][3]
    stopped = model.complete(["Once"], temperature=0, max_tokens=8, stop=cut)
    assert stopped.text[0] == cold.text[0][: cold.text[0].index(cut)]
    assert stopped.finish_reason[0] == "stop"
    chat = [[{"role": "user", "content": "Once"}]]
    same = ["user: Once\nassistant:"]
    columns = ["probability[Yes]", "mass"]
    by_chat = model.choice_probabilities(chat, ["Yes", "No"])[columns]
    assert by_chat.equals(model.choice_probabilities(same, ["Yes", "No"])[columns])


def test_failures_are_rows(model):
    frame = model.complete(["", "fine"], max_tokens=2)
    assert list(frame.status) in (["error", "ok"], ["error", "empty"])
    assert "no tokens" in frame.reason[0]
    frame = model.complete(["a"], best_of=3)
    assert "'best_of'" in frame.reason[0]


def test_cache_plan_and_pickle(folder, tmp_path):
    model = TransformersModel(folder, device="cpu", cache=tmp_path / "c.sqlite", progress=False)
    first = model.choice_probabilities(["a"], ["Yes", "No"])
    loaded = pickle.loads(pickle.dumps(model))
    assert "_loaded" not in vars(loaded)
    second = loaded.choice_probabilities(["a"], ["Yes", "No"])
    assert second.cached[0] and "_loaded" not in vars(loaded)
    assert second["probability[Yes]"][0] == first["probability[Yes]"][0]
    # The choices are part of what was computed.
    assert not loaded.choice_probabilities(["a"], ["Yes", "Maybe"]).cached[0]
    plan = loaded.plan(["a", "bc"], ["Yes", "No"])
    assert plan.calls == 1 and plan.prompt_tokens == 2


def test_folders_that_are_no_models(folder, tmp_path):
    with pytest.raises(DataError, match=r"config\.json"):
        TransformersModel(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    with pytest.raises(BackendError, match="cannot be loaded"):
        TransformersModel(tmp_path, progress=False).complete(["a"])
