"""A Hub on this machine: the part of its protocol that huggingface_hub speaks to push and load models, over a socket.

Repositories with their commits lie in memory. A commit takes effect as a whole or not at all. Requests are counted,
and any of them can be made to fail: the connection dropped before or after it takes effect, or an error in reply.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import yaml
from huggingface_hub.utils import validate_repo_id


TOKEN = "hf_of_someone"
USER = "someone"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png")
DROPPED, ANSWER_LOST = "dropped", "answer lost"
LICENSES = ("apache-2.0", "mit", "other")


@dataclass
class Commit:
    """One state of a repository: the content of each file by its path."""

    message: str
    files: dict[str, bytes]
    operations: list[dict]

    @property
    def oid(self):
        return hashlib.sha1(repr((self.message, sorted(self.files.items()))).encode()).hexdigest()


@dataclass
class Hub:
    """What the server holds, and which of its requests are to fail.

    Args:
        url: Its address.
        repos: Commits of each repository, from the first on; it is made with an empty one.
        objects: Large files by their SHA-256, uploaded and perhaps not committed.
        requests: What has been asked for, as "METHOD path", repository, file and hash left out.
        cut: The number of the request that fails, counted from 0; None for none.
        failure: A status, `DROPPED` or `ANSWER_LOST`.
        for_good: Whether what is asked again fails again.
    """

    url: str = ""
    repos: dict[str, list[Commit]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    cut: int | None = None
    failure: int | str | None = None
    for_good: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    failed: str | None = None

    def files(self, repo):
        return self.repos[repo][-1].files

    def commits(self, repo):
        """The commits of a push, the first one of an empty repository left out."""
        return self.repos[repo][1:]

    def fail(self, cut, failure, for_good=False):
        self.requests.clear()
        self.cut, self.failure, self.for_good, self.failed = cut, failure, for_good, None

    def heal(self):
        self.fail(None, None)

    def failure_of(self, request):
        """Count a request, and say how it fails, if it does."""
        with self.lock:
            self.requests.append(request)
            if self.cut is None:
                return None
            if self.failed is None and len(self.requests) - 1 == self.cut:
                self.failed = request
                return self.failure
            return self.failure if self.for_good and request == self.failed else None


def metadata_faults(content):
    """The faults that the Hub finds in the metadata of a card, in its own words."""
    match = re.match(r"^---\n(.*?)\n---\n", content, re.DOTALL)
    data = yaml.safe_load(match[1]) if match else {}
    faults = []

    def check(key, is_valid, advice):
        values = data.get(key)
        for value in values if isinstance(values, list) else [] if values is None else [values]:
            if not isinstance(value, str) or not is_valid(value):
                faults.append(f'"{key}" with value {json.dumps(value)} is not valid. {advice}')

    check("base_model", is_repo_id, "Use a model id from https://hf.co/models.")
    check("datasets", is_repo_id, "If possible, use a dataset id from https://hf.co/datasets.")
    check("tags", lambda tag: 0 < len(tag) <= 120, "Use a short tag.")
    check("license", lambda name: name in LICENSES, "Use a license of https://hf.co/docs/hub/repositories-licenses.")
    check("library_name", lambda name: re.fullmatch(r"[a-z0-9_-]+", name), "Use the name of a library.")
    check("pipeline_tag", lambda name: name in ("text-generation", "text-classification"), "Use a task.")
    check(
        "base_model_relation", lambda name: name in ("adapter", "finetune", "merge", "quantized"), "Use one of them."
    )
    for number, model in enumerate(data.get("model-index") or []):
        if not isinstance(model.get("name"), str) or not model["name"]:
            faults.append(f'"model-index[{number}].name" is required')
        for at, result in enumerate(model.get("results") or []):
            where = f"model-index[{number}].results[{at}]"
            dataset = result.get("dataset") or {}
            if not (result.get("task") or {}).get("type"):
                faults.append(f'"{where}.task.type" is required')
            if not isinstance(dataset.get("name"), str) or not dataset["name"]:
                faults.append(f'"{where}.dataset.name" is required')
            if not re.fullmatch(r"[\w./-]+", str(dataset.get("type"))):
                faults.append(f'"{where}.dataset.type" fails to match the required pattern')
            for metric in result.get("metrics") or [{}]:
                value = metric.get("value")
                if not isinstance(metric.get("type"), str) or value is None or value != value:
                    faults.append(f'"{where}.metrics" need a type and a value')
    return faults


def is_repo_id(name):
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return True


class Handler(BaseHTTPRequestHandler):
    """Answers one request; routes are methods called `_METHOD_name`."""

    protocol_version = "HTTP/1.1"
    wbufsize, disable_nagle_algorithm = -1, True  # an answer in one piece, at once
    hub: Hub
    routes = (
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/whoami-v2", "who"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/objects/(?P<sha>[0-9a-f]+)", "upload"),
        ("POST", r"/verify", "verify"),
        ("HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def log_message(self, *_):
        pass

    def _answer(self):
        is_chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if is_chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        names = {pattern: name for method, pattern, name in self.routes if method == self.command}
        match = next((found for pattern in names if (found := re.fullmatch(pattern, url.path))), None)
        if match is None:
            return self._reply(501, {"error": f"This server has no {self.command} {url.path}."})
        name = names[match.re.pattern]
        failure = self.hub.failure_of(f"{self.command} {name}")
        if failure == DROPPED:
            self.close_connection = True
            return self.connection.close()
        if isinstance(failure, int):
            told = {401: "Invalid username or password.", 429: "Too many requests."}.get(failure, "Internal error.")
            headers = {"Retry-After": "0"} if failure == 429 else {}
            return self._reply(failure, {"error": told}, headers)
        writes = self.command in ("POST", "PUT") and name != "upload"
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply(401, {"error": "Invalid username or password."})
        given = {key: unquote(value) if value else value for key, value in match.groupdict().items()}
        if "repo" in given and given["repo"] not in self.hub.repos:
            return self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        with self.hub.lock:
            status, content, headers = getattr(self, f"_{name}")(body, parse_qs(url.query), **given)
        if failure == ANSWER_LOST:
            self.close_connection = True
            return self.connection.close()
        return self._reply(status, content, headers)

    do_GET = do_POST = do_PUT = do_HEAD = _answer  # the names that http.server calls

    def _chunks(self):
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, status, content, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _create(self, body, query):
        asked = json.loads(body)
        repo = f"{asked.get('organization') or USER}/{asked['name']}"
        url = f"{self.hub.url}/{repo}"
        if repo in self.hub.repos:
            return 409, {"error": "You already created this model repo", "url": url}, {}
        self.hub.repos[repo] = [Commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"}, [])]
        return 200, {"url": url}, {}

    def _who(self, body, query):
        return 200, {"name": USER, "type": "user"}, {}

    def _validate(self, body, query):
        faults = metadata_faults(json.loads(body)["content"])
        return (400 if faults else 200), {"errors": [{"message": fault} for fault in faults], "warnings": []}, {}

    def _preupload(self, body, query, repo, revision):
        files = []
        for file in json.loads(body)["files"]:
            is_large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
            files.append({"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False})
            if (content := self.hub.files(repo).get(file["path"])) is not None:
                files[-1]["oid"] = blob_id(content)
        return 200, {"files": files}, {}

    def _batch(self, body, query, repo):
        objects = []
        for one in json.loads(body)["objects"]:
            objects.append({"oid": one["oid"], "size": one["size"]})
            if one["oid"] not in self.hub.objects:
                objects[-1]["actions"] = {
                    "upload": {"href": f"{self.hub.url}/objects/{one['oid']}"},
                    "verify": {"href": f"{self.hub.url}/verify"},
                }
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _upload(self, body, query, sha):
        if hashlib.sha256(body).hexdigest() != sha:
            return 400, {"error": "The content is not that of its hash."}, {}
        self.hub.objects[sha] = body
        return 200, b"", {}

    def _verify(self, body, query):
        asked = json.loads(body)
        found = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
        return (200 if found else 404), {}, {}

    def _commit(self, body, query, repo, revision):
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(self.hub.files(repo))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return 400, {"error": f"The content of {value['path']} was not uploaded."}, {}
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif value["path"] in files:
                del files[value["path"]]
            else:
                return 404, {"error": "A file with this name doesn't exist"}, {"X-Error-Code": "EntryNotFound"}
        commit = Commit(lines[0]["value"]["summary"], files, lines[1:])
        self.hub.repos[repo].append(commit)
        url = f"{self.hub.url}/{repo}/commit/{commit.oid}"
        return 200, {"success": True, "commitOid": commit.oid, "commitUrl": url}, {}

    def _info(self, body, query, repo, revision="main"):
        commit = self._at(repo, revision)
        if commit is None:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        told = {"_id": "1", "id": repo, "modelId": repo, "sha": commit.oid, "siblings": siblings, "private": False}
        return 200, {**told, "tags": [], "downloads": 0, "likes": 0}, {}

    def _tree(self, body, query, repo, revision, path=None):
        commit = self._at(repo, revision)
        if commit is None:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        entries, folders = [], set()
        for name, content in sorted(commit.files.items()):
            if path and not name.startswith(f"{path}/"):
                continue
            inner = name[len(path) + 1 :] if path else name
            folder = inner.rpartition("/")[0]
            if folder and query.get("recursive", ["false"])[0].lower() != "true":
                folders.add(folder.split("/")[0])
                continue
            entries.append({"type": "file", "path": name, "size": len(content), "oid": blob_id(content)})
            if name.endswith(LFS_SUFFIXES):
                sha = hashlib.sha256(content).hexdigest()
                entries[-1]["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
        entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)]
        if path and not entries:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        return 200, entries, {}

    def _resolve(self, body, query, repo, revision, path):
        commit = self._at(repo, revision)
        if commit is None:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            return 404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"}
        content = commit.files[path]
        headers |= {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Content-Type": "application/octet-stream"}
        return 200, content, headers

    def _at(self, repo, revision):
        commits = self.hub.repos[repo]
        return commits[-1] if revision == "main" else next((one for one in commits if one.oid == revision), None)


def blob_id(content):
    """The hash that git has of a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def running_hub():
    """Run a Hub, with nothing on it."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfHub", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def connect(monkeypatch, hub, cache):
    """Let huggingface_hub speak to a Hub, without waiting between the tries of a request.

    Its address is read when huggingface_hub is imported, and so is whether it may use a network at all.
    """
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # which PEFT reads itself
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
