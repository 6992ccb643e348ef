"""A server that speaks as `vllm serve` does to TRL, with a transformers model behind it: sockets, no vLLM, no GPU.

Endpoints, fields and their order are those that vLLM 0.30's server answered to TRL 1.16's client. The weights, which
vLLM takes by NCCL from one GPU to another, come here over a second socket.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Client, Listener
from types import SimpleNamespace

import torch
import trl.generation.vllm_client as client_module
import trl.generation.vllm_generation as generation_module
from trl.generation.vllm_client import VLLMClient

import hf_mgan.training.generation as own_generation_module


HOST = "127.0.0.1"
SAMPLING = ("n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "logprobs")


def speak_without_vllm(monkeypatch):
    """Replace what TRL's client has of vLLM and of CUDA; everything else that runs is TRL's.

    - `is_vllm_available`, in TRL's two modules that ask it before the first request, and in ours.
    - Three names that TRL imports from vLLM, and the two flags that say of which version it is: the address of this
      machine, the trainer's end of the NCCL group, and the broadcast through it.
    - The device of `init_communicator`: TRL refuses any but CUDA.
    """
    for module in (client_module, generation_module, own_generation_module):
        monkeypatch.setattr(module, "is_vllm_available", lambda *_, **__: True)
    for name, value in {
        "_HAS_STATEFUL_TRAINER_ENGINE": True,
        "_HAS_RESET_PREFIX_CACHE_SUCCESS": True,
        "get_ip": lambda: HOST,
        "open_trainer_endpoint": connect,
        "packed_nccl_broadcast_producer": send_weights,
    }.items():
        monkeypatch.setattr(client_module, name, value, raising=False)
    init_communicator = VLLMClient.init_communicator
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: init_communicator(self, "cuda"))


def connect(init_info):
    """Return the trainer's end of the weight update group, with the two fields that TRL closes it by."""
    connection = Client((init_info["master_address"], init_info["master_port"]))
    return SimpleNamespace(connection=connection, group=SimpleNamespace(store=None, socket=None))


def send_weights(iterator, group, src, post_iter_func):
    for item in iterator:
        group.connection.send(post_iter_func(item).numpy())


class Server(ThreadingHTTPServer):
    """Serves one model until it is closed.

    Args:
        model (`PreTrainedModel`): Sampled from, and loaded with the weights that come.

    Attributes:
        events (`list[str]`): The requests that changed or used the model, in order.
        requests (`list[dict]`): The body of each request for completions.
        answers (`list[list[dict]]`): The choices of each answer.
        received (`list[dict]`): The weights of each update, by name.
    """

    daemon_threads = True

    def __init__(self, model):
        super().__init__((HOST, 0), Handler)
        self.model, self.listener = model.eval(), Listener((HOST, 0))
        self.events, self.requests, self.answers, self.received = [], [], [], []
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def settings(self):
        """The settings of a trainer that generates with this server."""
        address = {"vllm_server_host": HOST, "vllm_server_port": self.server_port}
        return {"use_vllm": True, "vllm_mode": "server", "vllm_group_port": self.listener.address[1], **address}

    def server_close(self):
        """Stop serving; `with` calls it."""
        self.shutdown()
        self.listener.close()
        super().server_close()

    def get(self, path):
        return {
            "/health": {},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/server_info": {
                "vllm_config": {
                    "weight_transfer_config": {"backend": "nccl"},
                    "model_config": {"logprobs_mode": "processed_logprobs"},
                }
            },
            "/get_world_size": {"world_size": 1},
        }[path]

    def post(self, path, body):
        if path == "/v1/completions":
            self.requests.append(body)
            self.answers.append([choice for ids in body["prompt"] for choice in self.complete(ids, body)])
            answer = {"choices": self.answers[-1]}
        elif path == "/init_weight_transfer_engine":
            self.connection, answer = self.listener.accept(), {}
        elif path == "/update_weights":
            answer = self.load(body["update_info"]["names"])
        else:
            assert path in ("/start_weight_update", "/finish_weight_update", "/reset_prefix_cache"), path
            answer = {"success": True}
        self.events.append(path.rsplit("/", 1)[-1])
        return answer

    def load(self, names):
        weights = {name: torch.from_numpy(self.connection.recv()) for name in names}
        assert not self.model.load_state_dict(weights, strict=False).unexpected_keys  # a tied head is not sent
        self.received.append(weights)
        return {}

    @torch.no_grad()
    def complete(self, prompt_ids, body):
        """Return vLLM's choices for one prompt: `n` samples with the log-probability of each token."""
        unknown = set(body) - {*SAMPLING, "model", "prompt", "return_token_ids", "return_tokens_as_token_ids"}
        assert unknown <= {"stop_token_ids", "seed"}, unknown
        own = self.model.generation_config.eos_token_id
        ends = {*(own if isinstance(own, list) else [own]), *body.get("stop_token_ids", ())} - {None}
        output = self.model.generate(
            torch.tensor([prompt_ids]),
            attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
            do_sample=True,
            num_return_sequences=body["n"],
            max_new_tokens=body["max_tokens"],
            eos_token_id=sorted(ends),
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
            **{name: body[name] for name in ("temperature", "top_p", "top_k", "repetition_penalty")},
        )
        logps = torch.stack(output.scores, 1).log_softmax(-1)
        choices = []
        for row, ids in zip(logps, output.sequences[:, len(prompt_ids) :].tolist(), strict=True):
            ids = ids[: next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))]
            tokens = [f"token_id:{token}" for token in ids]
            values = [row[place, token].item() for place, token in enumerate(ids)]
            each = [{token: value} for token, value in zip(tokens, values, strict=True)]
            logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": each}
            choices.append({"prompt_token_ids": prompt_ids, "token_ids": ids, "logprobs": logprobs})
        return choices


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # TRL's client keeps its connections

    def do_GET(self):
        self.answer(self.server.get(self.path.split("?")[0]))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            answer, status = self.server.post(self.path, json.loads(body or "{}")), 200
        except Exception as error:  # told to the client, which would take a lost connection for one to try again
            answer, status = {"error": repr(error)}, 400
        self.answer(answer, status)

    def answer(self, content, status=200):
        content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
