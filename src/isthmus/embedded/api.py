"""What an API server does with objects, without HTTP: create, update, patch, apply, delete, and what follows from them.

Owns the life of an object: identity and defaults at creation, conflicts and generations on change, finalizers, owners
and namespaces at the end, and the kinds that CustomResourceDefinitions add. `http.py` calls it for clients, the fleet's
controllers call it directly. Everything is synchronous: one call is one transaction.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import msgspec

from isthmus.embedded import builtin, decoding, errors, fields, patches, schema
from isthmus.embedded.errors import ApiError, Cause
from isthmus.embedded.resources import (
    BUILT_IN,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    Resource,
    custom_resource,
)
from isthmus.embedded.selectors import Selector
from isthmus.embedded.store import Store, Stored, TooLarge
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what generateName draws from, so that no words come out


class Write(msgspec.Struct, frozen=True):
    """How a change is made."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    validation: str = "Warn"
    """Unknown fields of custom resources: Strict refuses, Warn warns, Ignore drops in silence."""


class Written(msgspec.Struct, frozen=True):
    """The object after a change; *removed* when the change ended it."""

    object: Stored
    created: bool = False
    removed: bool = False
    warnings: tuple[str, ...] = ()


class Deletion(msgspec.Struct, frozen=True):
    """How an object is deleted, and what must hold for it."""

    uid: str = ""
    resource_version: str = ""
    propagation: str = "Background"
    dry_run: bool = False


UNNAMED = Write()
BACKGROUND = Deletion()


def utc_now() -> str:
    """The time as objects carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Arguments = ParamSpec("Arguments")


def _one_transaction(
    method: Callable[Concatenate[Api, Arguments], Written],
) -> Callable[Concatenate[Api, Arguments], Written]:
    """A change with all that follows from it, which a killed process leaves done or undone."""

    @wraps(method)
    def within(self: Api, /, *given: Arguments.args, **named: Arguments.kwargs) -> Written:
        with self.store.transaction():
            try:
                return method(self, *given, **named)
            except TooLarge as error:
                raise errors.larger_than_etcd() from error

    return within


class Api:
    """The objects and kinds of one server."""

    def __init__(
        self, store: Store, *, clock: Callable[[], str] = utc_now, service_range: str = "10.96.0.0/16"
    ) -> None:
        self.store = store
        self._now = clock
        self._addresses = builtin.Addresses(service_range)
        self._resources = {(resource.group, resource.plural): resource for resource in BUILT_IN}
        self._by_key = {resource.key: resource for resource in BUILT_IN}
        self._ending: set[str] = set()
        """Namespaces that go once they are empty."""
        for stored in store.list(CUSTOM_RESOURCE_DEFINITIONS.key):
            self._serve(self._read(CUSTOM_RESOURCE_DEFINITIONS, stored))
        for stored in store.list(NAMESPACES.key):
            if "deletionTimestamp" in self._read(NAMESPACES, stored)["metadata"]:
                self._ending.add(stored.name)
        for stored in store.list("services"):
            self._addresses.take(self._read(self._by_key["services"], stored))
        self._bootstrap()

    def _bootstrap(self) -> None:
        for name in SYSTEM_NAMESPACES:
            if self.store.get(NAMESPACES.key, "", name) is None:
                self.create(NAMESPACES, "v1", "", {"metadata": {"name": name}}, Write("kube-apiserver"))
        services = self._by_key["services"]
        if self.store.get("services", "default", "kubernetes") is None:
            ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
            metadata = {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}}
            spec = {"clusterIP": self._addresses.first, "ports": ports}
            self.create(services, "v1", "default", {"metadata": metadata, "spec": spec}, Write("kube-apiserver"))

    # --- kinds ---

    @property
    def resources(self) -> list[Resource]:
        """Every served kind, by group and plural."""
        return [self._resources[key] for key in sorted(self._resources)]

    def resource(self, group: str, plural: str) -> Resource | None:
        return self._resources.get((group, plural))

    def resource_of(self, kind: Kind) -> Resource:
        """The resource that serves *kind*. Raises ApiError 404."""
        resource = self._resources.get((kind.group, kind.plural))
        if resource is None or kind.version not in resource.versions:
            raise errors.no_such_path()
        return resource

    def find_kind(self, api_version: str, kind: str) -> tuple[Resource, str]:
        """Resource and version of a manifest's apiVersion and kind. Raises ApiError 404."""
        group, _, version = api_version.rpartition("/")
        for resource in self._resources.values():
            if resource.group == group and resource.kind == kind and version in resource.versions:
                return resource, version
        raise ApiError(404, "NotFound", f'no matches for kind "{kind}" in version "{api_version}"')

    def _serve(self, definition: Manifest) -> None:
        resource = custom_resource(definition)
        if resource.versions:
            self._resources[resource.group, resource.plural] = resource
            self._by_key[resource.key] = resource

    def _withdraw(self, definition: Manifest) -> None:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        resource = self._resources.get((group, plural))
        if resource is None or not resource.custom:
            return
        for stored in self.store.list(resource.key):
            self.store.remove(resource.key, stored)
        self.store.end_watches(resource.key)
        del self._resources[group, plural]
        del self._by_key[resource.key]

    # --- reading ---

    def _read(self, resource: Resource, stored: Stored) -> Manifest:
        return stored.manifest(resource.served_as(resource.storage_version))

    def find(self, resource: Resource, namespace: str, name: str) -> Stored:
        """The object. Raises ApiError 404."""
        stored = self.store.get(resource.key, namespace, name)
        if stored is None:
            raise errors.not_found(resource, name)
        return stored

    def select(self, resource: Resource, namespace: str, selector: Selector) -> list[Stored]:
        """The objects that *selector* matches, by namespace and name."""
        objects = self.store.list(resource.key, namespace)
        return objects if selector.empty else [stored for stored in objects if selector.matches(stored)]

    # --- creating ---

    @_one_transaction
    def create(
        self, resource: Resource, version: str, namespace: str, manifest: Manifest, write: Write = UNNAMED
    ) -> Written:
        """Create an object from *manifest*, which is not changed."""
        new = self._new_object(resource, version, namespace, manifest)
        if new["metadata"].get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        self._check_namespace(resource, new)
        return self._create(resource, version, new, write, None)

    def _new_object(self, resource: Resource, version: str, namespace: str, manifest: Manifest) -> Manifest:
        new = copy.deepcopy(manifest)
        metadata = new["metadata"] = _metadata(new)
        self._check_type(resource, version, new)
        generate = metadata.get("generateName")
        if not metadata.get("name") and generate:
            suffix = "".join(random.choices(NAME_ALPHABET, k=5))
            metadata["name"] = str(generate)[:58] + suffix
        self._place(resource, namespace, metadata)
        return new

    def _place(self, resource: Resource, namespace: str, metadata: Manifest) -> None:
        if not resource.namespaced:
            metadata.pop("namespace", None)
        elif metadata.get("namespace", namespace) not in ("", namespace):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        else:
            metadata["namespace"] = namespace

    def _check_type(self, resource: Resource, version: str, manifest: Manifest) -> None:
        wanted = resource.api_version(version)
        found = (manifest.get("apiVersion") or wanted, manifest.get("kind") or resource.kind)
        if found != (wanted, resource.kind):
            group, _, found_version = found[0].rpartition("/")
            text = f"{found_version or found[0]}, Kind={found[1]}"
            told = f"{group}/{text}" if group else f"/{text}"
            expected = f"{resource.group}/{version}, Kind={resource.kind}"
            raise errors.bad_request(
                f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
                f"the API version in the data ({told}) does not match the expected API version ({expected})"
            )
        manifest["apiVersion"], manifest["kind"] = found
        decoding.check_types(resource, version, manifest)

    def _check_namespace(self, resource: Resource, manifest: Manifest) -> None:
        if not resource.namespaced:
            return
        namespace = manifest["metadata"]["namespace"]
        stored = self.store.get(NAMESPACES.key, "", namespace)
        if stored is None:
            raise errors.not_found(NAMESPACES, namespace)
        if namespace in self._ending:
            name = manifest["metadata"].get("name", "")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("metadata.namespace", "NamespaceTerminating", f"namespace {namespace} is being terminated")
            raise errors.forbidden(resource, name, why, [cause])

    def _create(
        self, resource: Resource, version: str, new: Manifest, write: Write, owners: fields.Owners | None
    ) -> Written:
        metadata = new["metadata"]
        if metadata.get("name") and self.store.get(resource.key, metadata.get("namespace", ""), metadata["name"]):
            raise errors.already_exists(resource, metadata["name"])
        for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"):
            metadata.pop(name, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now = self._now()
        if resource.counts_generations:
            metadata["generation"] = 1
        if resource.custom:
            if version in resource.has_status:
                new.pop("status", None)
        else:
            builtin.initial_status(resource, new)
        warnings = self._complete(resource, version, new, None, write)
        if owners is None:
            manager = fields.Manager(write.manager, "Update", resource.api_version(version))
            owners = fields.after_update({}, None, new, resource.shape(version), manager, now)
        _write_owners(metadata, owners)
        if resource is CUSTOM_RESOURCE_DEFINITIONS:
            _establish(new, now)
        if write.dry_run:
            return Written(Stored.of(new, 0), created=True, warnings=warnings)
        stored = self.store.put(resource.key, new)
        self._written(resource, new)
        return Written(stored, created=True, warnings=warnings)

    def _complete(
        self, resource: Resource, version: str, new: Manifest, old: Manifest | None, write: Write
    ) -> tuple[str, ...]:
        """Prune, fill in defaults and validate; warnings come back."""
        name = new["metadata"].get("name", "")
        causes = list(builtin.metadata_faults(resource, new["metadata"]))
        warnings: tuple[str, ...] = ()
        if resource.custom:
            rules = resource.schemas[version]
            unknown = [f'unknown field "{path}"' for path in schema.prune(new, rules)]
            if unknown and write.validation == "Strict":
                raise errors.bad_request(
                    f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
                    f"strict decoding error: {', '.join(unknown)}"
                )
            if write.validation == "Warn":
                warnings = tuple(unknown)
            schema.normalize(new, rules)
            schema.fill_defaults(new, rules)
            causes += schema.validate(new, rules)
        else:
            if resource.key == "secrets" and (problem := builtin.decode_fault(new)):
                raise errors.bad_request(problem)
            if resource is CUSTOM_RESOURCE_DEFINITIONS and not isinstance(new.get("spec"), dict):
                new["spec"] = {}
            if old is not None:
                builtin.carry_over(resource, old, new)
            builtin.fill_defaults(resource, new, self._addresses)
            causes += builtin.faults(resource, new, old)
        if causes:
            raise errors.invalid(resource, name, causes)
        return warnings

    def _written(self, resource: Resource, manifest: Manifest) -> None:
        if resource is CUSTOM_RESOURCE_DEFINITIONS:
            self._serve(manifest)
        elif resource.key == "services":
            self._addresses.take(manifest)

    # --- changing ---

    @_one_transaction
    def update(
        self,
        resource: Resource,
        version: str,
        namespace: str,
        name: str,
        manifest: Manifest,
        write: Write = UNNAMED,
        *,
        subresource: str = "",
    ) -> Written:
        """Replace an object by *manifest*, which is not changed. Raises ApiError 409 when it is stale."""
        stored = self.find(resource, namespace, name)
        new = copy.deepcopy(manifest)
        metadata = new["metadata"] = _metadata(new)
        self._check_type(resource, version, new)
        self._place(resource, namespace, metadata)
        if metadata.get("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        metadata["name"] = name
        return self._update(resource, version, stored, new, write, subresource)

    @_one_transaction
    def patch(
        self,
        resource: Resource,
        version: str,
        namespace: str,
        name: str,
        change: Callable[[Manifest], Manifest],
        write: Write = UNNAMED,
        *,
        subresource: str = "",
    ) -> Written:
        """Change an object by a function of its manifest."""
        stored = self.find(resource, namespace, name)
        new = change(stored.manifest(resource.served_as(version)))
        metadata = new["metadata"] = _metadata(new)
        self._check_type(resource, version, new)
        if metadata.get("name") != name or metadata.get("namespace", "") != namespace:
            raise errors.bad_request("the name and namespace of an object cannot be patched")
        return self._update(resource, version, stored, new, write, subresource)

    def merge(
        self,
        resource: Resource,
        version: str,
        namespace: str,
        name: str,
        patch: Manifest,
        write: Write = UNNAMED,
        *,
        subresource: str = "",
    ) -> Written:
        """Change an object by a JSON merge patch."""
        return self.patch(
            resource,
            version,
            namespace,
            name,
            lambda live: patches.merge_patch(live, patch),
            write,
            subresource=subresource,
        )

    def _update(
        self,
        resource: Resource,
        version: str,
        stored: Stored,
        new: Manifest,
        write: Write,
        subresource: str,
        owners: fields.Owners | None = None,
    ) -> Written:
        old = stored.manifest(resource.served_as(version))
        self._check_current(resource, old["metadata"], new["metadata"])
        _keep_identity(old, new)
        _keep_apart(resource, version, subresource, old, new)
        self._check_finalizers(resource, old, new)
        warnings = self._complete(resource, version, new, old, write)
        given = new["metadata"].pop("managedFields", None)
        if owners is None:
            before = fields.read_owners(
                given if given and given != [{}] else old["metadata"].get("managedFields") or []
            )
            manager = fields.Manager(write.manager, "Update", resource.api_version(version), subresource)
            shape = resource.shape(version)
            owners = {} if given == [{}] else fields.after_update(before, old, new, shape, manager, self._now())
        _write_owners(new["metadata"], owners)
        if resource.counts_generations and _spec_changed(resource, version, old, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if new == old:
            return Written(stored, warnings=warnings)
        if write.dry_run:
            return Written(Stored.of(new, stored.revision), warnings=warnings)
        if resource is CUSTOM_RESOURCE_DEFINITIONS:
            _establish(new, self._now())
        return self._put(resource, stored, new, warnings)

    def _put(self, resource: Resource, stored: Stored, new: Manifest, warnings: tuple[str, ...] = ()) -> Written:
        metadata = new["metadata"]
        ends = "deletionTimestamp" in metadata and not metadata.get("finalizers")
        if ends and not (resource is NAMESPACES and new.get("spec", {}).get("finalizers")):
            if resource.key == "services":
                self._addresses.release(new)
            return Written(self._remove(resource, stored), removed=True, warnings=warnings)
        written = self.store.put(resource.key, new)
        self._written(resource, new)
        return Written(written, warnings=warnings)

    def _check_current(self, resource: Resource, old: Manifest, new: Manifest) -> None:
        if new.get("uid") and new["uid"] != old["uid"]:
            why = f"Precondition failed: UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
            raise errors.conflict(resource, old["name"], why)
        if new.get("resourceVersion") and new["resourceVersion"] != old["resourceVersion"]:
            raise errors.stale(resource, old["name"])

    def _check_finalizers(self, resource: Resource, old: Manifest, new: Manifest) -> None:
        if "deletionTimestamp" not in old["metadata"]:
            return
        added = sorted(set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ()))
        if added:
            shown = ", ".join(f'"{name}"' for name in added)
            text = (
                "Forbidden: no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{shown}}}"
            )
            raise errors.invalid(
                resource, old["metadata"]["name"], [Cause("metadata.finalizers", "FieldValueForbidden", text)]
            )

    # --- applying ---

    @_one_transaction
    def apply(
        self,
        resource: Resource,
        version: str,
        namespace: str,
        name: str,
        config: Manifest,
        write: Write,
        *,
        subresource: str = "",
    ) -> Written:
        """Server-side apply; creates the object if it is missing. Raises ApiError 409 when others own fields."""
        config = copy.deepcopy(config)
        metadata = config["metadata"] = _metadata(config)
        self._check_type(resource, version, config)
        if metadata.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        self._place(resource, namespace, metadata)
        if metadata.get("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        metadata["name"] = name
        manager = fields.Manager(write.manager, "Apply", resource.api_version(version), subresource)
        shape = resource.shape(version)
        stored = self.store.get(resource.key, namespace, name)
        if resource.custom:
            self._check_unknown(resource, version, config, write)
        elif resource.key == "secrets" and "stringData" in config:
            builtin.fill_defaults(resource, config, self._addresses)
        reset = _reset(resource, version, subresource)
        if stored is None:
            if subresource:
                raise errors.not_found(resource, name)
            if metadata.get("uid"):
                why = f"uid mismatch: the provided object specified uid {metadata['uid']}"
                raise errors.conflict(resource, name, f"{why}, and no existing object was found")
            metadata.pop("resourceVersion", None)
            self._check_namespace(resource, config)
            _, owners = fields.apply({}, {}, config, shape, manager, reset=reset, force=True, now=self._now())
            return self._create(resource, version, reset(config), write, owners)
        live = stored.manifest(resource.served_as(version))
        before = fields.read_owners(live["metadata"].get("managedFields") or [])
        merged, owners = fields.apply(
            before, live, config, shape, manager, reset=reset, force=write.force, now=self._now()
        )
        for key in ("uid", "resourceVersion"):
            if key in metadata:
                merged["metadata"][key] = metadata[key]
        return self._update(resource, version, stored, copy.deepcopy(merged), write, subresource, owners)

    def _check_unknown(self, resource: Resource, version: str, config: Manifest, write: Write) -> None:
        """Server-side apply refuses fields that the schema lacks, whatever the kind of validation."""
        unknown = schema.prune(config, resource.schemas[version])
        if unknown:
            raise ApiError(
                500,
                "",
                f"failed to create typed patch object ({config['metadata'].get('namespace', '')}/"
                f"{config['metadata']['name']}; {resource.api_version(version)}, Kind={resource.kind}): "
                + ", ".join(f".{path}: field not declared in schema" for path in unknown),
            )

    # --- deleting ---

    @_one_transaction
    def delete(self, resource: Resource, namespace: str, name: str, how: Deletion = BACKGROUND) -> Written:
        """Delete an object, or mark it as being deleted while finalizers hold it."""
        stored = self.find(resource, namespace, name)
        if how.uid and how.uid != stored.uid:
            why = (
                f"the UID in the precondition ({how.uid}) does not match the UID in record ({stored.uid}). "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(resource, name, why)
        if how.resource_version and how.resource_version != str(stored.revision):
            why = (
                f"the ResourceVersion in the precondition ({how.resource_version}) does not match "
                f"the ResourceVersion in record ({stored.revision}). The object might have been modified"
            )
            raise errors.conflict(resource, name, why)
        if resource is NAMESPACES and name in ("default", "kube-system", "kube-public"):
            raise errors.forbidden(resource, name, "this namespace may not be deleted")
        if how.dry_run:
            return Written(stored, removed=True)
        manifest = self._read(resource, stored)
        metadata = manifest["metadata"]
        if how.propagation == "Orphan":
            self._orphan(stored.uid)
        elif how.propagation == "Foreground" and self.store.dependents(stored.uid):
            metadata["finalizers"] = list(dict.fromkeys([*metadata.get("finalizers", ()), "foregroundDeletion"]))
        if resource is NAMESPACES:
            return self._end_namespace(stored, manifest)
        if not metadata.get("finalizers"):
            if resource.key == "services":
                self._addresses.release(manifest)
            return Written(self._remove(resource, stored), removed=True)
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = self._now()
            metadata["deletionGracePeriodSeconds"] = 0
            if resource.counts_generations:
                metadata["generation"] = metadata.get("generation", 0) + 1
            stored = self.store.put(resource.key, manifest)
        if "foregroundDeletion" in metadata["finalizers"]:
            self._delete_dependents(stored.uid)
            self._finish_foreground(resource, stored.namespace, stored.name)
        return Written(self.store.get(resource.key, namespace, name) or stored)

    def _finish_foreground(self, resource: Resource, namespace: str, name: str) -> None:
        stored = self.store.get(resource.key, namespace, name)
        if stored is None or self.store.dependents(stored.uid):
            return
        manifest = self._read(resource, stored)
        finalizers = manifest["metadata"].get("finalizers", [])
        if "foregroundDeletion" in finalizers and "deletionTimestamp" in manifest["metadata"]:
            manifest["metadata"]["finalizers"] = [name for name in finalizers if name != "foregroundDeletion"]
            self._put(resource, stored, manifest)

    def _remove(self, resource: Resource, stored: Stored) -> Stored:
        """Take an object away, and with it what depends on it."""
        last = self.store.remove(resource.key, stored)
        if resource is CUSTOM_RESOURCE_DEFINITIONS:
            self._withdraw(self._read(resource, last))
        elif resource is NAMESPACES:
            self._ending.discard(last.name)
        self._delete_dependents(stored.uid)
        for uid in stored.owners:
            owner = self.store.by_uid(uid)
            if owner is not None:
                self._finish_foreground(self._by_key[owner[0]], *owner[1])
        if stored.namespace in self._ending:
            self._finish_namespace(stored.namespace)
        return last

    def _delete_dependents(self, uid: str) -> None:
        """Background deletion of what *uid* owns, unless another owner lives."""
        for key, (namespace, name) in self.store.dependents(uid):
            dependent = self.store.get(key, namespace, name)
            resource = self._by_key.get(key)
            if dependent is None or resource is None:
                continue
            if any(owner != uid and self.store.by_uid(owner) for owner in dependent.owners):
                continue
            self.delete(resource, namespace, name)

    def _orphan(self, uid: str) -> None:
        for key, (namespace, name) in self.store.dependents(uid):
            resource = self._by_key[key]
            stored = self.find(resource, namespace, name)
            manifest = self._read(resource, stored)
            left = [owner for owner in manifest["metadata"]["ownerReferences"] if owner["uid"] != uid]
            if left:
                manifest["metadata"]["ownerReferences"] = left
            else:
                del manifest["metadata"]["ownerReferences"]
            self._put(resource, stored, manifest)

    def _end_namespace(self, stored: Stored, manifest: Manifest) -> Written:
        if "deletionTimestamp" not in manifest["metadata"]:
            manifest["metadata"]["deletionTimestamp"] = self._now()
            manifest["status"] = {**manifest.get("status", {}), "phase": "Terminating"}
            stored = self.store.put(NAMESPACES.key, manifest)
        self._ending.discard(stored.name)  # so that only the last removal looks whether the namespace is empty
        for key, content in list(self.store.everything_in(stored.name)):
            if self.store.get(key, content.namespace, content.name) is not None:
                self.delete(self._by_key[key], content.namespace, content.name)
        self._ending.add(stored.name)
        self._finish_namespace(stored.name)
        return Written(stored)

    def _finish_namespace(self, name: str) -> None:
        stored = self.store.get(NAMESPACES.key, "", name)
        if stored is not None and next(self.store.everything_in(name), None) is None:
            manifest = self._read(NAMESPACES, stored)
            manifest["spec"]["finalizers"] = []
            self._put(NAMESPACES, stored, manifest)


def _metadata(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise errors.bad_request("metadata is not an object")
    return metadata


def _write_owners(metadata: Manifest, owners: fields.Owners) -> None:
    if owners:
        metadata["managedFields"] = fields.write_owners(owners)
    else:
        metadata.pop("managedFields", None)


def _keep_identity(old: Manifest, new: Manifest) -> None:
    """Put back the metadata that the server alone writes."""
    metadata = new["metadata"]
    for name in (
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "generateName",
    ):
        if name in old["metadata"]:
            metadata[name] = old["metadata"][name]
        else:
            metadata.pop(name, None)
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    metadata.pop("selfLink", None)


def _keep_apart(resource: Resource, version: str, subresource: str, old: Manifest, new: Manifest) -> None:
    """Status changes through its subresource only, and nothing else does there."""
    if version not in resource.has_status:
        return
    if subresource == "status":
        given = new.get("metadata", {}).get("managedFields")
        for name in [name for name in new if name not in ("status", "apiVersion", "kind", "metadata")]:
            del new[name]
        new.update({name: copy.deepcopy(value) for name, value in old.items() if name not in ("status", "metadata")})
        if resource.custom:
            new["metadata"] = copy.deepcopy(old["metadata"])
            if given:
                new["metadata"]["managedFields"] = given
    elif "status" in old:
        new["status"] = copy.deepcopy(old["status"])
    else:
        new.pop("status", None)


def _reset(resource: Resource, version: str, subresource: str) -> Callable[[Manifest], Manifest]:
    """What an applied configuration loses because this way of writing does not change it."""
    if version not in resource.has_status:
        return lambda config: config
    if subresource == "status":
        return lambda config: {
            name: value for name, value in config.items() if name in ("apiVersion", "kind", "metadata", "status")
        }
    return lambda config: {name: value for name, value in config.items() if name != "status"}


def _spec_changed(resource: Resource, version: str, old: Manifest, new: Manifest) -> bool:
    """Whether metadata.generation grows: anything but metadata and, where it is a subresource, status."""
    apart = {"metadata", "status"} if version in resource.has_status else {"metadata"}
    return any(old.get(name) != new.get(name) for name in (old.keys() | new.keys()) - apart)


def _establish(definition: Manifest, now: str) -> None:
    """Write the status of a CustomResourceDefinition whose kind is served."""
    spec = definition["spec"]
    status = definition.get("status") or {}
    before = {condition["type"]: condition for condition in status.get("conditions") or ()}
    accepted = {
        "NamesAccepted": ("NoConflicts", "no conflicts found"),
        "Established": ("InitialNamesAccepted", "the initial names have been accepted"),
    }
    conditions = []
    for kind, (reason, message) in accepted.items():
        condition = {"lastTransitionTime": now, "message": message, "reason": reason, "status": "True", "type": kind}
        conditions.append(before.get(kind, condition))
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored = [*status.get("storedVersions", ()), storage]
    definition["status"] = {
        "acceptedNames": spec["names"],
        "conditions": conditions,
        "storedVersions": list(dict.fromkeys(stored)),
    }
