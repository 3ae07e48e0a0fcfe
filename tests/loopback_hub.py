"""A Hub in memory on a loopback address: the part of its protocol that huggingface_hub uses to publish and to load."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml


# Larger files go to the object store, as the Hub demands of all that are not short texts.
LARGEST_REGULAR = 100_000
METADATA = {
    "license": ("apache-2.0", "creativeml-openrail-m", "cc-by-nc-sa-4.0"),
    "language": ("en",),
    "library_name": ("diffusers",),
    "pipeline_tag": ("text-to-image", "text-to-audio", "image-to-image"),
}
SPACE_METADATA = {"license": ("apache-2.0",), "sdk": ("gradio",), "app_file": ("app.py",)}


class HubRepo:
    """Commits by their hash, each a dict of contents by path; branches and tags by name."""

    def __init__(self, private: bool = False, gated: bool = False):
        self.private, self.gated = private, gated
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.commit({".gitattributes": b""})

    def commit(self, files: dict[str, bytes]) -> str:
        names = [(path, hashlib.sha1(content).hexdigest()) for path, content in sorted(files.items())]
        sha = hashlib.sha1(json.dumps([len(self.commits), names]).encode()).hexdigest()
        self.commits[sha] = files
        self.refs["main"] = sha
        return sha

    def sha(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


class LoopbackHub(ThreadingHTTPServer):
    """
    Serves from its making on until `shutdown`.

    `tokens` are the names of users by their tokens. `objects` are large files by their hash, `received` the hashes in
    the order in which they came. The next commit to a repo of `broken` is cut off in the middle. A file of `busy`, by
    its path, is answered by its status such as 503.
    """

    daemon_threads = True

    def __init__(self, tokens: dict[str, str]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = tokens
        self.repos: dict[str, HubRepo] = {}
        self.objects: dict[str, bytes] = {}
        self.received: list[str] = []
        self.broken: set[str] = set()
        self.busy: dict[str, int] = {}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def put(self, name: str, folder: Path, card: str | None = None, gated: bool = False) -> None:
        """Makes a repo of the files of a folder."""
        files = {
            file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }
        self.repos[name] = HubRepo(gated=gated)
        self.repos[name].commit(files if card is None else {**files, "README.md": card.encode()})


def oid_of(content: bytes) -> str:
    if len(content) > LARGEST_REGULAR:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub

    def answer(self, content: object = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message, **headers)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    @property
    def user(self) -> str | None:
        return self.server.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def serve(self) -> None:
        if "Authorization" in self.headers and self.user is None:
            return self.refuse(401, message="Invalid credentials in Authorization header")
        path = self.path.split("?")[0]
        for pattern, method in ROUTES:
            command, _, route = pattern.partition(" ")
            match = re.fullmatch(route, path)
            if match and self.command in command.split("|"):
                return self.checked(method, **match.groupdict())
        self.refuse(404)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def checked(self, method: Callable, repo: str | None = None, **parts: str) -> None:
        """Calls what serves a route, unless its repo is missing or hidden, or nobody is signed in who has to be."""
        if self.command == "POST" and self.user is None and method is not _Handler.validate:
            return self.refuse(401, message="Invalid username or password.")
        if repo is None:
            return method(self, **parts)
        found = self.server.repos.get(repo)
        if found is None or (found.private and self.user != repo.split("/")[0]):
            return self.refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if self.command == "POST" and self.user != repo.split("/")[0]:
            return self.refuse(403, message="You don't have the rights to write to this repo")
        method(self, repo, found, **parts)

    def whoami(self) -> None:
        if self.user is None:
            return self.refuse(401, message="Invalid username or password.")
        self.answer({"name": self.user, "type": "user", "orgs": []})

    def create(self) -> None:
        asked = json.loads(self.body())
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != self.user:
            return self.refuse(403, message="You don't have the rights to create a model under this namespace")
        if asked.get("type") == "space" and asked.get("sdk") != "gradio":
            return self.refuse(400, message="A Space needs an SDK")
        status = 409 if name in self.server.repos else 200
        self.server.repos.setdefault(name, HubRepo(private=asked.get("visibility") == "private"))
        self.answer({"url": f"{self.server.address}/{name}"}, status)

    def validate(self) -> None:
        asked = json.loads(self.body())
        metadata = yaml.safe_load(asked["content"].split("---")[1])
        required = SPACE_METADATA if asked["repoType"] == "space" else METADATA
        errors = [name for name, allowed in required.items() if metadata.get(name) not in allowed]
        for model in metadata.get("base_model", []):
            errors += [] if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else ["base_model"]
        if metadata.get("base_model_relation") not in (None, "adapter", "finetune", "merge", "quantized"):
            errors.append("base_model_relation")
        self.answer({"errors": [{"message": name} for name in errors], "warnings": []}, 400 if errors else 200)

    def info(self, name: str, repo: HubRepo, revision: str = "main") -> None:
        sha = repo.sha(revision)
        if sha is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        self.answer({"id": name, "sha": sha, "private": repo.private, "gated": repo.gated, "siblings": siblings})

    def tree(self, name: str, repo: HubRepo, revision: str, folder: str | None = None) -> None:
        files = {} if repo.sha(revision) is None else repo.commits[repo.sha(revision)]
        entries = []
        for path, content in files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": oid_of(content)}
            if len(content) > LARGEST_REGULAR:
                entry["lfs"] = {"oid": oid_of(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        if folder is not None or not files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        self.answer(entries)

    def preupload(self, name: str, repo: HubRepo, revision: str) -> None:
        answers = []
        for file in json.loads(self.body())["files"]:
            mode = "lfs" if file["size"] > LARGEST_REGULAR else "regular"
            there = repo.files.get(file["path"])
            oid = None if there is None else oid_of(there)
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer({"files": answers})

    def batch(self, name: str, repo: HubRepo) -> None:
        objects = json.loads(self.body())["objects"]
        for each in objects:
            if each["oid"] not in self.server.objects:
                each["actions"] = {"upload": {"href": f"{self.server.address}/objects/{each['oid']}"}}
        self.answer({"transfer": "basic", "objects": objects})

    def receive(self, oid: str) -> None:
        self.server.objects[oid] = self.body()
        self.server.received.append(oid)
        self.answer()

    def commit(self, name: str, repo: HubRepo, revision: str) -> None:
        if name in self.server.broken:
            self.server.broken.remove(name)
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            return
        files = dict(repo.files)
        for line in self.body().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files)
        self.answer({"commitUrl": f"{self.server.address}/{name}/commit/{sha}", "commitOid": sha})

    def tag(self, name: str, repo: HubRepo, revision: str) -> None:
        tag = json.loads(self.body())["tag"]
        status = 409 if tag in repo.refs else 200
        repo.refs.setdefault(tag, repo.sha(revision))
        self.answer({}, status)

    def resolve(self, name: str, repo: HubRepo, revision: str, path: str) -> None:
        sha = repo.sha(revision)
        if path in self.server.busy:
            return self.refuse(self.server.busy[path], message="Come back later")
        if repo.gated:
            return self.refuse(403, "GatedRepo", "Access to this model is restricted.")
        if sha is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        if path not in repo.commits[sha]:
            return self.refuse(404, "EntryNotFound", "Entry not found", X_Repo_Commit=sha)
        content = repo.commits[sha][path]
        self.answer(content, X_Repo_Commit=sha, ETag=f'"{oid_of(content)}"')

    def log_message(self, *args: object) -> None:
        pass


REPO = r"(?P<repo>[^/]+/[^/]+)"
KIND = "(models|spaces)"
ROUTES = (
    ("GET /api/whoami-v2", _Handler.whoami),
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (f"POST /api/{KIND}/{REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (f"POST /api/{KIND}/{REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (f"POST /api/{KIND}/{REPO}/tag/(?P<revision>[^/]+)", _Handler.tag),
    (f"POST /(spaces/)?{REPO}.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT /objects/(?P<oid>[^/]+)", _Handler.receive),
    (f"GET /api/{KIND}/{REPO}", _Handler.info),
    (f"GET /api/{KIND}/{REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    (f"GET /api/{KIND}/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    (f"GET|HEAD /(spaces/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
)
