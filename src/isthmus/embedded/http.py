"""The HTTP face of one server: paths, media types, watches.

Requests are taken apart here, `api.py` decides, and answers are written in the form that was asked for (JSON, Table,
metadata alone).
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from isthmus.embedded import discovery, errors, openapi, patches, protobuf, tables
from isthmus.embedded.api import Api, Deletion, Write, Written
from isthmus.embedded.errors import ApiError
from isthmus.embedded.resources import Resource
from isthmus.embedded.selectors import Selector, parse_selector
from isthmus.embedded.store import Compacted, Event, Stored, Watch

Manifest = dict[str, Any]

MAX_BODY_BYTES = 3 * 2**20  # the real server's limit
KEPT_LISTS = 64  # lists of which a client may still fetch further pages; the oldest answers 410
WATCH_SECONDS = 1800  # how long a watch lives when the client does not say; the real server takes 30 to 60 minutes
FIELD_MANAGER_BYTES = 128

_HEALTH = ("/healthz", "/livez", "/readyz")
_VERSIONED = frozenset(
    {
        "CustomResourceDefinition",
        "Lease",
        "PodDisruptionBudget",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    }
)
_RETURNS_DELETED = frozenset({"pods", "services", "serviceaccounts", "namespaces"})
_PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


class Target(msgspec.Struct, frozen=True):
    """What a path names."""

    resource: Resource
    version: str
    namespace: str
    name: str = ""
    subresource: str = ""


class Form(msgspec.Struct, frozen=True):
    """The form of an answer: ``json``, ``table`` or ``partial``."""

    name: str = "json"
    include: str = "Metadata"


class Http:
    """An ASGI application that serves one `Api`. *authenticate* tells the user of a bearer token, or None."""

    def __init__(
        self,
        api: Api,
        *,
        address: Callable[[], str],
        authenticate: Callable[[str], str | None],
        bookmark_seconds: float = 10.0,
    ) -> None:
        self._api = api
        self._address = address
        self._authenticate = authenticate
        self._bookmark_seconds = bookmark_seconds
        self._lists: OrderedDict[str, list[Stored]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ApiError as error:
            response = _status(error)
        except ClientDisconnect:
            return  # in the middle of its request: nobody waits for an answer
        except Exception:
            await _status(ApiError(500, "InternalError", "Internal error occurred"))(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        if path in _HEALTH or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return Response("ok", media_type="text/plain")
        user = self._user(request)
        parts = [part for part in path.split("/") if part]
        if request.method == "GET":
            general = self._general(request, parts)
            if general is not None:
                return general
        if parts[:2] == ["apis", "authorization.k8s.io"] or parts[:2] == ["apis", "authentication.k8s.io"]:
            return await self._review(request, parts, user)
        target = self._target(parts)
        if target is None:
            return Response("404 page not found\n", 404, media_type="text/plain")
        if target.subresource not in ("", "status"):
            return await self._subresource(request, target)
        if not target.name:
            return await self._collection(request, target)
        return await self._object(request, target)

    def _user(self, request: Request) -> str:
        user = request.scope.get("state", {}).get("user")
        if user:
            return str(user)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        named = self._authenticate(token.strip()) if scheme.lower() == "bearer" else None
        if named is None:
            raise errors.unauthorized()
        return named

    # --- discovery ---

    def _general(self, request: Request, parts: list[str]) -> Response | None:
        resources = self._api.resources
        match parts:
            case []:
                groups = discovery.groups(resources)
                paths = ["/api", "/api/v1", "/apis", *(f"/apis/{group}" for group in groups if group)]
                return _json({"paths": [*paths, *_HEALTH, "/openapi/v3", "/version"]})
            case ["version"]:
                return _json(discovery.VERSION)
            case ["api"] | ["apis"]:
                return self._groups(request, resources, core=parts == ["api"])
            case ["api", "v1"]:
                return _json(discovery.resource_list(resources, "", "v1"))
            case ["apis", group]:
                versions = discovery.groups(resources).get(group)
                about = {"kind": "APIGroup", "apiVersion": "v1"}
                return None if versions is None else _json(about | discovery.group(group, versions))
            case ["apis", group, version]:
                known = version in discovery.groups(resources).get(group, ())
                return _json(discovery.resource_list(resources, group, version)) if known else None
            case ["openapi", "v3"]:
                return _json(openapi.root(discovery.groups(resources)))
            case ["openapi", "v3", "api", version]:
                return _json(openapi.document(resources, "", version))
            case ["openapi", "v3", "apis", group, version]:
                return _json(openapi.document(resources, group, version))
        return None

    def _groups(self, request: Request, resources: list[Resource], *, core: bool) -> Response:
        for wanted in request.headers.get("accept", "").split(","):
            words = dict(word.strip().partition("=")[::2] for word in wanted.split(";")[1:])
            if words.get("as") == "APIGroupDiscoveryList" and words.get("v") in ("v2", "v2beta1"):
                kind = f"g=apidiscovery.k8s.io;v={words['v']};as=APIGroupDiscoveryList"
                api_version = f"apidiscovery.k8s.io/{words['v']}"
                body = discovery.aggregated(resources, core=core, api_version=api_version)
                return Response(orjson.dumps(body), media_type=f"application/json;{kind}")
        if core:
            return _json(discovery.api_versions(self._address()))
        return _json(discovery.group_list(resources))

    def _target(self, parts: list[str]) -> Target | None:
        match parts:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                return None
        namespace = ""
        if len(rest) >= 3 and rest[0] == "namespaces" and (group or rest[2] not in ("status", "finalize")):
            namespace, rest = rest[1], rest[2:]
        if not rest or len(rest) > 3:
            return None
        resource = self._api.resource(group, rest[0])
        if resource is None or version not in resource.versions:
            if version in discovery.groups(self._api.resources).get(group, ()):
                raise errors.no_such_path()
            return None
        if bool(namespace) is not resource.namespaced and (namespace or len(rest) > 1):
            raise errors.no_such_path()
        name, subresource = [*rest, "", ""][1:3]
        if subresource and subresource not in discovery.subresources(resource, version):
            raise errors.no_such_path()
        return Target(resource, version, namespace, name, subresource)

    # --- collections ---

    async def _collection(self, request: Request, target: Target) -> Response:
        if request.method == "GET":
            if request.query_params.get("watch") in ("true", "1", ""):
                return self._watch(request, target)
            return self._list(request, target)
        if request.method == "POST":
            if target.resource.namespaced and not target.namespace:
                raise errors.method_not_allowed()
            manifest = await _read_manifest(request, target.resource)
            write = _write_options(request)
            written = self._api.create(target.resource, target.version, target.namespace, manifest, write)
            return self._written(request, target, written)
        if request.method == "DELETE":
            return await self._delete_collection(request, target)
        raise errors.method_not_allowed()

    def _list(self, request: Request, target: Target) -> Response:
        query = request.query_params
        selector = _selector(target, query)
        form = _form(request)
        self._check_revision(query.get("resourceVersion", ""))
        limit = _number(query, "limit")
        token = query.get("continue", "")
        if token:
            key, revision, start = _read_token(token)
            objects = self._lists.get(key)
            if objects is None:
                raise errors.expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter, or use the continue token in this response to retrieve "
                    "the remainder of the results."
                )
            self._lists.move_to_end(key)
        else:
            objects = self._api.select(target.resource, target.namespace, selector)
            key, revision, start = "", self._api.store.revision, 0
        metadata: Manifest = {"resourceVersion": str(revision)}
        page = objects
        if limit and len(objects) - start > limit:
            key = key or self._keep(objects)
            metadata["continue"] = _write_token(key, revision, start + limit)
            if selector.empty:
                metadata["remainingItemCount"] = len(objects) - start - limit
            page = objects[start : start + limit]
        elif start:
            page = objects[start:]
        return self._listed(target, form, page, metadata)

    def _keep(self, objects: list[Stored]) -> str:
        key = format(random.getrandbits(64), "x")
        self._lists[key] = objects
        while len(self._lists) > KEPT_LISTS:
            self._lists.popitem(last=False)
        return key

    def _listed(self, target: Target, form: Form, page: list[Stored], metadata: Manifest) -> Response:
        resource = target.resource
        kind = resource.served_as(target.version)
        if form.name == "table":
            manifests = [stored.manifest(kind) for stored in page]
            body = tables.table(resource, target.version, manifests, metadata, include=form.include)
            return _json(body)
        if form.name == "partial":
            items = [tables.partial(stored.manifest(kind)) for stored in page]
            about = {"kind": "PartialObjectMetadataList", "apiVersion": tables.API_VERSION, "metadata": metadata}
            return _json(about | {"items": items})
        encoded = [stored.encoded(kind) if resource.custom else stored.bare() for stored in page]
        head = b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[' % (
            resource.list_kind.encode(),
            kind.api_version.encode(),
            orjson.dumps(metadata),
        )
        return Response(head + b",".join(encoded) + b"]}", media_type="application/json")

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        how = await _read_deletion(request)
        selected = self._api.select(target.resource, target.namespace, _selector(target, request.query_params))
        for stored in selected:
            if self._api.store.get(target.resource.key, stored.namespace, stored.name) is not None:
                self._api.delete(target.resource, stored.namespace, stored.name, how)
        return self._listed(target, Form(), selected, {"resourceVersion": str(self._api.store.revision)})

    def _check_revision(self, text: str) -> None:
        if not text:
            return
        if not text.isdigit():
            raise errors.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
        if int(text) > self._api.store.revision:
            raise errors.version_too_large(int(text), self._api.store.revision)

    # --- watching ---

    def _watch(self, request: Request, target: Target) -> Response:
        query = request.query_params
        selector = _selector(target, query)
        if target.name:
            selector = Selector(selector.labels, (*selector.fields, ("metadata.name", target.name, True)))
        since = query.get("resourceVersion", "")
        if since and not since.isdigit():
            raise errors.bad_request(f'Invalid value: "{since}": strconv.ParseUint: parsing "{since}": invalid syntax')
        initial = since in ("", "0") or query.get("sendInitialEvents") == "true"
        key = target.resource.key
        store = self._api.store
        first: list[Stored] = []
        if initial:
            first = self._api.select(target.resource, target.namespace, selector)
            watch = store.watch(key, target.namespace, None)
        else:
            try:
                watch = store.watch(key, target.namespace, int(since))
            except Compacted as gap:
                error = errors.expired(f"too old resource version: {since} ({gap.oldest})")
                return Response(b'{"type":"ERROR","object":%s}\n' % orjson.dumps(error.status()), media_type=_JSON)
        seconds = _number(query, "timeoutSeconds") or WATCH_SECONDS * random.uniform(1, 2)
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        stream = _Stream(target, _form(request), selector, bookmarks)
        opening = [stream.object_frame("ADDED", stored) for stored in first]
        if query.get("sendInitialEvents") == "true" and bookmarks:
            opening.append(stream.bookmark(store.revision, initial_end=True))
        return _WatchResponse(self, watch, stream, b"".join(opening), float(seconds))

    async def stream(self, watch: Watch, stream: _Stream, seconds: float, send: Callable[[bytes], Any]) -> None:
        """Send events until the watch ends or *seconds* are over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        next_bookmark = loop.time() + self._bookmark_seconds
        while not watch.ended or watch.events:
            revision = self._api.store.revision
            frames = [frame for event in watch.take() if (frame := stream.event_frame(event))]
            now = loop.time()
            if stream.bookmarks and (now >= next_bookmark or now >= end):
                frames.append(stream.bookmark(revision))
                next_bookmark = now + self._bookmark_seconds
            if frames:
                await send(b"".join(frames))
            if now >= end:
                return
            await watch.wait(min(end, next_bookmark if stream.bookmarks else end) - now)

    def unwatch(self, target: Target, watch: Watch) -> None:
        self._api.store.unwatch(target.resource.key, watch)

    # --- objects ---

    async def _object(self, request: Request, target: Target) -> Response:
        resource, version, namespace, name = target.resource, target.version, target.namespace, target.name
        if request.method == "GET":
            if request.query_params.get("watch") in ("true", "1"):
                return self._watch(request, target)
            self._check_revision(request.query_params.get("resourceVersion", ""))
            return self._one(target, _form(request), self._api.find(resource, namespace, name))
        if request.method == "PUT":
            manifest = await _read_manifest(request, resource)
            write = _write_options(request)
            if not (manifest.get("metadata") or {}).get("resourceVersion") and _needs_version(resource):
                self._api.find(resource, namespace, name)
                raise errors.unversioned(resource, name)
            written = self._api.update(
                resource, version, namespace, name, manifest, write, subresource=target.subresource
            )
            return self._written(request, target, written)
        if request.method == "PATCH":
            return self._written(request, target, await self._patch(request, target))
        if request.method == "DELETE" and not target.subresource:
            return self._deleted(request, target, await _read_deletion(request))
        raise errors.method_not_allowed()

    async def _patch(self, request: Request, target: Target) -> Written:
        resource, version, namespace, name = target.resource, target.version, target.namespace, target.name
        media = _media_type(request)
        if media not in _PATCH_TYPES or (resource.custom and media == _PATCH_TYPES[2]):
            raise errors.unsupported_media_type(
                media, [m for m in _PATCH_TYPES if m != _PATCH_TYPES[2] or not resource.custom]
            )
        patch = await _read_body(request)
        write = _write_options(request)
        if media == "application/apply-patch+yaml":
            if not isinstance(patch, dict):
                raise errors.bad_request("an applied configuration is an object")
            if not request.query_params.get("fieldManager"):
                raise ApiError(
                    422,
                    "Invalid",
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
                )
            return self._api.apply(resource, version, namespace, name, patch, write, subresource=target.subresource)
        if write.force:
            raise ApiError(
                422,
                "Invalid",
                'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
            )

        def change(live: Manifest) -> Manifest:
            if media == "application/json-patch+json":
                return patches.json_patch(live, patch)
            if not isinstance(patch, dict):
                raise errors.bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
            if media == "application/merge-patch+json":
                merged: Manifest = patches.merge_patch(live, patch)
            else:
                merged = patches.strategic_merge_patch(live, patch, resource.shape(version))
            return merged

        return self._api.patch(resource, version, namespace, name, change, write, subresource=target.subresource)

    def _deleted(self, request: Request, target: Target, how: Deletion) -> Response:
        resource = target.resource
        written = self._api.delete(resource, target.namespace, target.name, how)
        if not written.removed or resource.key in _RETURNS_DELETED:
            return self._one(target, _form(request), written.object)
        details: Manifest = {"name": target.name}
        if resource.group:
            details["group"] = resource.group
        details |= {"kind": resource.plural, "uid": written.object.uid}
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    def _one(self, target: Target, form: Form, stored: Stored, code: int = 200) -> Response:
        kind = target.resource.served_as(target.version)
        if form.name == "table":
            metadata = {"resourceVersion": str(stored.revision)}
            manifests = [stored.manifest(kind)]
            return _json(tables.table(target.resource, target.version, manifests, metadata, include=form.include), code)
        if form.name == "partial":
            return _json(tables.partial(stored.manifest(kind)), code)
        return Response(stored.encoded(kind), code, media_type="application/json")

    def _written(self, request: Request, target: Target, written: Written) -> Response:
        response = self._one(target, _form(request), written.object, 201 if written.created else 200)
        for warning in written.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.append("warning", f'299 - "{text}"')
        return response

    # --- subresources and reviews ---

    async def _subresource(self, request: Request, target: Target) -> Response:
        resource, namespace, name = target.resource, target.namespace, target.name
        if target.subresource == "eviction" and request.method == "POST":
            self._api.delete(resource, namespace, name)
            return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)
        if target.subresource == "finalize" and request.method == "PUT":
            manifest = await _read_manifest(request)
            written = self._api.update(resource, target.version, "", name, manifest, _write_options(request))
            return self._written(request, target, written)
        if target.subresource == "scale":
            return await self._scale(request, target)
        raise errors.method_not_allowed()

    async def _scale(self, request: Request, target: Target) -> Response:
        resource, namespace, name = target.resource, target.namespace, target.name
        stored = self._api.find(resource, namespace, name)
        if request.method in ("PUT", "PATCH"):
            body = await _read_body(request)
            replicas = body.get("spec", {}).get("replicas") if isinstance(body, dict) else None
            if not isinstance(replicas, int):
                raise errors.bad_request("spec.replicas is not a number")
            patch = {"spec": {"replicas": replicas}}
            write = _write_options(request)
            stored = self._api.merge(resource, target.version, namespace, name, patch, write).object
        elif request.method != "GET":
            raise errors.method_not_allowed()
        manifest = stored.manifest(resource.served_as(target.version))
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        selector = manifest["spec"].get("selector", {}).get("matchLabels", {})
        status = {
            "replicas": manifest.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        }
        return _json(
            {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": {key: manifest["metadata"][key] for key in kept},
                "spec": {"replicas": manifest["spec"].get("replicas", 0)},
                "status": status,
            }
        )

    async def _review(self, request: Request, parts: list[str], user: str) -> Response:
        """Who am I, may I: every authenticated user may do everything."""
        known = {(group, plural): kind for group, kind, plural in discovery.REVIEWS}
        kind = known.get((parts[1], parts[3])) if len(parts) == 4 and parts[2] == "v1" else None
        if kind is None:
            raise errors.no_such_path()
        if request.method != "POST":
            raise errors.method_not_allowed()
        review = await _read_manifest(request)
        if kind == "SelfSubjectReview":
            status: Manifest = {"userInfo": {"username": user, "groups": ["system:masters", "system:authenticated"]}}
        else:
            status = {"allowed": True}
        spec = {"spec": review["spec"]} if "spec" in review else {}
        about = {"kind": kind, "apiVersion": f"{parts[1]}/v1", "metadata": review.get("metadata") or {}}
        return _json({**about, **spec, "status": status}, 201)


_JSON = "application/json"


class _Stream:
    """How one watcher wants its events."""

    def __init__(self, target: Target, form: Form, selector: Selector, bookmarks: bool) -> None:
        self.target = target
        self.form = form
        self.selector = selector
        self.bookmarks = bookmarks
        self.kind = target.resource.served_as(target.version)

    def event_frame(self, event: Event) -> bytes:
        """The line for *event*, empty if the selector leaves it out. Encoded once for all watchers of a form."""
        if self.selector.empty:
            change = "DELETED" if event.deleted else "MODIFIED" if event.previous is not None else "ADDED"
        else:
            is_in = not event.deleted and self.selector.matches(event.object)
            was_in = event.previous is not None and self.selector.matches(event.previous)
            if not is_in and not was_in:
                return b""
            change = "DELETED" if not is_in else "MODIFIED" if was_in else "ADDED"
        key = (change, self.target.version, self.form)
        frame = event.frames.get(key)
        if frame is None:
            frame = event.frames[key] = self.object_frame(change, event.object)
        return frame

    def object_frame(self, change: str, stored: Stored) -> bytes:
        if self.form.name == "json":
            body = stored.encoded(self.kind)
        elif self.form.name == "partial":
            body = orjson.dumps(tables.partial(stored.manifest(self.kind)))
        else:
            metadata = {"resourceVersion": str(stored.revision)}
            manifests = [stored.manifest(self.kind)]
            target = self.target
            body = orjson.dumps(
                tables.table(target.resource, target.version, manifests, metadata, include=self.form.include)
            )
        return b'{"type":"%s","object":%s}\n' % (change.encode(), body)

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Manifest = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        about: Manifest = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": metadata}
        if self.form.name == "table":
            about = {"kind": "Table", "apiVersion": tables.API_VERSION, "metadata": metadata}
            about |= {"columnDefinitions": None, "rows": []}
        elif self.form.name == "partial":
            about |= {"kind": "PartialObjectMetadata", "apiVersion": tables.API_VERSION}
        return b'{"type":"BOOKMARK","object":%s}\n' % orjson.dumps(about)


class _WatchResponse(Response):
    """A stream of events that ends with its watch, its time or its client."""

    media_type = _JSON

    def __init__(self, http: Http, watch: Watch, stream: _Stream, opening: bytes, seconds: float) -> None:
        super().__init__(status_code=200)
        del self.headers["content-length"]
        self._http = http
        self._watch = watch
        self._stream = stream
        self._opening = opening
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_part(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async def end_when_client_leaves() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._watch.end()

        leaves = asyncio.create_task(end_when_client_leaves())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send_part(self._opening)
            await self._http.stream(self._watch, self._stream, self._seconds, send_part)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaves.cancel()
            self._http.unwatch(self._stream.target, self._watch)


# --- requests ---


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", _JSON).partition(";")[0].strip()


def _needs_version(resource: Resource) -> bool:
    """Whether an object of this kind is replaced with its resourceVersion only."""
    return resource.custom or resource.kind in _VERSIONED


async def _read_bytes(request: Request) -> bytes:
    if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
        raise errors.too_large()
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise errors.too_large()
    return body


async def _read_body(request: Request) -> Any:
    body = await _read_bytes(request)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "yaml" not in request.headers.get("content-type", ""):
            raise errors.bad_request(f"the body is not JSON: {error}") from error
    import yaml  # clients nearly always send JSON

    try:
        return yaml.load(body, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise errors.bad_request(f"error decoding YAML: {error}") from error


async def _read_manifest(request: Request, resource: Resource | None = None) -> Manifest:
    media = _media_type(request)
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode(await _read_bytes(request))
    if media not in (_JSON, "application/yaml"):
        raise errors.unsupported_media_type(media, (_JSON, "application/yaml", protobuf.MEDIA_TYPE))
    manifest = await _read_body(request)
    if not isinstance(manifest, dict):
        raise errors.bad_request("the body is not an object")
    missing = [name for name in ("kind", "apiVersion") if not manifest.get(name)]
    if resource is not None and resource.custom and missing:  # of built-in kinds the path says enough
        name = "Kind" if missing[0] == "kind" else "apiVersion"
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): Object '{name}' is missing in "
            f"'{orjson.dumps(manifest).decode()[:100]}'"
        )
    return manifest


async def _read_deletion(request: Request) -> Deletion:
    body = await _read_bytes(request)
    if body and _media_type(request) == protobuf.MEDIA_TYPE:
        body = orjson.dumps(protobuf.decode(body))
    try:
        options = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise errors.bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise errors.bad_request("the body is not a DeleteOptions object")
    query = request.query_params
    conditions = options.get("preconditions") or {}
    propagation = options.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
    if options.get("orphanDependents") is True:
        propagation = "Orphan"
    if propagation not in ("Background", "Foreground", "Orphan"):
        text = f'Unsupported value: "{propagation}": supported values: "Background", "Foreground", "Orphan", "nil"'
        raise ApiError(422, "Invalid", f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {text}')
    return Deletion(
        uid=conditions.get("uid") or "",
        resource_version=conditions.get("resourceVersion") or "",
        propagation=propagation,
        dry_run=_dry_run([*(options.get("dryRun") or ()), *query.getlist("dryRun")]),
    )


def _dry_run(values: list[str]) -> bool:
    if any(value not in ("All", "") for value in values):
        raise ApiError(
            422, "Invalid", f'dryRun: Unsupported value: {orjson.dumps(values).decode()}: supported values: "All"'
        )
    return "All" in values


def _write_options(request: Request) -> Write:
    query = request.query_params
    manager = query.get("fieldManager") or request.headers.get("user-agent", "unknown").partition("/")[0]
    return Write(
        manager=manager[:FIELD_MANAGER_BYTES] or "unknown",
        dry_run=_dry_run(query.getlist("dryRun")),
        force=query.get("force") in ("true", "1"),
        validation=query.get("fieldValidation") or "Warn",
    )


def _selector(target: Target, query: Mapping[str, str]) -> Selector:
    return parse_selector(target.resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not text.isdigit():
        raise errors.bad_request(f'{name}: strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _form(request: Request) -> Form:
    """The first form in the Accept header that is served; JSON where none is named. Raises ApiError 406."""
    accept = request.headers.get("accept", "")
    if not accept:
        return Form()
    for wanted in accept.split(","):
        media, *words = (word.strip() for word in wanted.split(";"))
        given = dict(word.partition("=")[::2] for word in words)
        if media not in (_JSON, "*/*", "application/*"):
            continue
        shown = given.get("as", "")
        if shown == "Table" and given.get("g") == "meta.k8s.io" and given.get("v") in ("v1", "v1beta1"):
            return Form("table", request.query_params.get("includeObject") or "Metadata")
        if shown.startswith("PartialObjectMetadata") and given.get("g") == "meta.k8s.io" and given.get("v") == "v1":
            return Form("partial")
        if not shown:
            return Form()
    raise ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
    )


def _write_token(key: str, revision: int, start: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([key, revision, start])).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, int, int]:
    try:
        key, revision, start = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return str(key), int(revision), int(start)
    except (binascii.Error, ValueError, TypeError) as error:
        raise errors.bad_request(f"continue key is not valid: {error}") from error


# --- answers ---


def _json(body: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(body), code, media_type=_JSON)


def _status(error: ApiError) -> Response:
    response = _json(error.status(), error.code)
    if "retryAfterSeconds" in error.details:
        response.headers["retry-after"] = str(error.details["retryAfterSeconds"])
    return response
