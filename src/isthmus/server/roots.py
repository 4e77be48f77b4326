"""The roots of virtual meshes: making, reading and replacing them, and the keys that sign.

A root's key is in one Secret of the management cluster and in this process, and goes nowhere else. What is rolled out
is noted before anything follows from it (`notes`), so that whoever starts again goes on where it stopped, also while a
Secret is missing or spoilt.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from isthmus.api.common import CommonCertOptions, ObjectRef
from isthmus.api.virtual_mesh import RotationStrategy, SharedTrust, VirtualMesh
from isthmus.kube import AlreadyExists, Changed, KubeClient, KubeError, Removed, Replaced, WatchEvent
from isthmus.model.kinds import SECRET
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.pki import PemInvalid, SigningRoot, make_trust_root, new_rsa_key, read_signing_root
from isthmus.program.crew import Crew
from isthmus.program.watching import follow
from isthmus.server.notes import TRUST, Notes
from isthmus.server.plane import Plane
from isthmus.translate.trust.facts import ROOT_ORGANIZATION, RootFacts, vault_facts, with_defaults
from isthmus.translate.trust.rotation import Root, Rotation, advance

Manifest = dict[str, Any]

ROOT_TYPE = "certificates.mesh.gloo.solo.io/generated_signing_cert"
PATH = "spec.mtlsConfig.shared.rootCertificateAuthority"
ISTIO_SECRET = "cacerts"  # Istio's own; where it is managed as well, agents write it

log = structlog.get_logger("isthmus.trust")


class Wanted(msgspec.Struct, frozen=True):
    """The Secret that a VirtualMesh asks for. *generated* None: the user provides it."""

    secret: ObjectRef
    trust: SharedTrust
    generated: CommonCertOptions | None = None


def wanted_root(virtual_mesh: VirtualMesh, namespace: str) -> Wanted | Problem | None:
    """The root that *virtual_mesh* asks for, None if it leaves certificates alone or says nothing that can be done."""
    config = virtual_mesh.spec.mtls_config
    shared = config.shared if config is not None else None
    authority = shared.root_certificate_authority if shared is not None else None
    if shared is None or authority is None:
        return None
    if authority.secret is not None:
        if not (authority.secret.name and authority.secret.namespace):
            return None  # the engine says so
        if authority.secret.name == ISTIO_SECRET:
            message = f"the root may not be in a Secret called {ISTIO_SECRET}, which Istio reads: copy it to another"
            return Problem(f"{PATH}.secret", "ReservedName", message)
        return Wanted(authority.secret, shared)
    meta = virtual_mesh.metadata
    secret = ObjectRef(name=f"{meta.name}.{meta.namespace}", namespace=namespace)
    return Wanted(secret, shared, with_defaults(authority.generated, ROOT_ORGANIZATION))


def note_key(virtual_mesh: Ref) -> str:
    """The key of a virtual mesh's entry in the notes; names have no underscore, so it is unique."""
    return f"{virtual_mesh.namespace}_{virtual_mesh.name}"


def read_rotations(noted: Mapping[str, str]) -> dict[Ref, Rotation]:
    """What the notes hold; an entry that is none is left out and said to the log."""
    found: dict[Ref, Rotation] = {}
    for key, text in noted.items():
        namespace, _, name = key.partition("_")
        try:
            found[Ref("", namespace, name)] = msgspec.json.decode(text, type=Rotation)
        except msgspec.MsgspecError as error:
            log.error("note of a root cannot be read", virtual_mesh=key, error=str(error))
    return found


class _Secret:
    """One watched Secret. *data* None: it does not exist."""

    def __init__(self) -> None:
        self.read = False
        self.refusal = ""
        self.data: dict[str, bytes] | None = None
        self.root: SigningRoot | PemInvalid | None = None
        self.watch: asyncio.Task[None] | None = None


class Roots:
    """The roots of all virtual meshes. *now* is the clock."""

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        notes: Notes,
        plane: Plane,
        noted: Mapping[str, str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._notes = notes
        self._plane = plane
        self._now = now
        self._rotations = read_rotations(noted)
        self._virtual_meshes: dict[Ref, VirtualMesh] = {}
        self._secrets: dict[tuple[str, str], _Secret] = {}
        self._given: dict[Ref, tuple[RootFacts | None, Problem | None]] = {}
        self._crew: Crew[Ref] = Crew(self._act, 1)
        self._tasks: asyncio.TaskGroup | None = None
        self.changed: Callable[[Ref], None] = lambda virtual_mesh: None
        """Told of a virtual mesh for which something else may sign now."""
        for virtual_mesh, rotation in self._rotations.items():
            self._give(virtual_mesh, rotation.facts, None)

    def take(self, ref: Ref, virtual_mesh: VirtualMesh | None) -> None:
        """Take a VirtualMesh as its user wrote it, None when it is gone."""
        if virtual_mesh is None:
            self._virtual_meshes.pop(ref, None)
        else:
            self._virtual_meshes[ref] = virtual_mesh
        self.look_again((ref,))

    def look_again(self, virtual_meshes: Iterable[Ref]) -> None:
        """See whether there is something to do for *virtual_meshes*."""
        self._crew.add((ref, 0) for ref in virtual_meshes)

    def signer(self, virtual_mesh: Ref) -> tuple[SigningRoot, bytes] | None:
        """What signs for *virtual_mesh* now, and the roots that are trusted (PEM). None while nothing can sign."""
        rotation = self._rotations.get(virtual_mesh)
        if rotation is None or virtual_mesh not in self._virtual_meshes:
            return None
        root = self._root_in(rotation.signer.secret)
        if not isinstance(root, SigningRoot) or root.fingerprint != rotation.signer.fingerprint:
            return None
        return (root, rotation.bundle.encode()) if self._now() < root.not_after else None

    async def run(self) -> None:
        """Work until cancelled. To be started when all policies are read."""
        for ref in self._rotations:
            self.look_again((ref,))
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for secret in self._secrets:
                self._watch(secret)
            await self._crew.run()

    # --- Secrets ----------------------------------------------------------------------------------------------------

    def _watch(self, secret: tuple[str, str]) -> None:
        found = self._secrets.setdefault(secret, _Secret())
        if self._tasks is not None and found.watch is None:
            found.watch = self._tasks.create_task(self._follow(*secret), name=f"watch Secret {secret[1]}")

    async def _follow(self, namespace: str, name: str) -> None:
        found = self._secrets[namespace, name]

        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._take_secret(found, items[0] if items else None)
                case Changed(item):
                    self._take_secret(found, item)
                case Removed():
                    self._take_secret(found, None)
            self._wake(ObjectRef(name=name, namespace=namespace))

        def refused(error: KubeError) -> None:
            if found.refusal != str(error):
                found.refusal = str(error)
                self._wake(ObjectRef(name=name, namespace=namespace))

        await follow(self._kube, SECRET, take, namespace=namespace, fields=f"metadata.name={name}", refused=refused)

    def _take_secret(self, found: _Secret, manifest: Manifest | None) -> None:
        found.read, found.refusal, found.root = True, "", None
        if manifest is None:
            found.data = None
            return
        found.data = {}
        for key, value in (manifest.get("data") or {}).items():
            try:
                found.data[key] = b64decode(value)
            except NotBase64:
                continue  # counts as missing, and is named as such

    def _wake(self, secret: ObjectRef) -> None:
        self.look_again(ref for ref in self._known() if secret in self._needed(ref))

    def _known(self) -> set[Ref]:
        return {*self._virtual_meshes, *self._rotations}

    def _needed(self, ref: Ref) -> set[ObjectRef]:
        """The Secrets that count for a virtual mesh."""
        virtual_mesh, rotation = self._virtual_meshes.get(ref), self._rotations.get(ref)
        if virtual_mesh is None:
            return set()
        wanted = wanted_root(virtual_mesh, self._namespace)
        needed = {wanted.secret} if isinstance(wanted, Wanted) else set()
        if rotation is not None and virtual_mesh.spec.mtls_config is not None:
            needed |= {root.secret for root in (rotation.deployed, rotation.successor) if root is not None}
        return needed

    def _sync_watches(self) -> None:
        needed = {(secret.namespace, secret.name) for ref in self._virtual_meshes for secret in self._needed(ref)}
        for secret in needed - self._secrets.keys():
            self._watch(secret)
        for secret in self._secrets.keys() - needed:
            gone = self._secrets.pop(secret)
            if gone.watch is not None:
                gone.watch.cancel()

    def _root_in(self, secret: ObjectRef) -> SigningRoot | PemInvalid | None:
        """What the Secret holds, None if that is not known or it does not exist."""
        found = self._secrets.get((secret.namespace, secret.name))
        return found.root if found is not None else None

    async def _read(self, secret: ObjectRef) -> SigningRoot | PemInvalid | None:
        """As `_root_in`, after looking into a Secret that has changed."""
        found = self._secrets.get((secret.namespace, secret.name))
        if found is None or found.data is None:
            return None
        data = found.data
        if found.root is None or isinstance(found.root, PemInvalid):  # a root that is not valid yet may have become so
            try:
                root: SigningRoot | PemInvalid = await asyncio.to_thread(read_signing_root, data, self._now())
            except PemInvalid as error:
                root = error
            if found.data is data:
                found.root = root
        elif self._now() >= found.root.not_after:
            found.root = PemInvalid(f"expired on {found.root.not_after:%Y-%m-%d %H:%M} UTC")
        return found.root

    # --- decisions --------------------------------------------------------------------------------------------------

    async def _act(self, ref: Ref) -> bool:
        self._sync_watches()
        if ref not in self._virtual_meshes and ref in self._rotations and self._plane.missing():
            return False  # it may be there and not be readable
        try:
            await self._settle(ref)
        except KubeError as error:
            log.warning("root cannot be taken care of", virtual_mesh=ref.key, error=str(error))
            return False
        finally:
            self._sync_watches()
        return True

    async def _settle(self, ref: Ref) -> None:
        virtual_mesh = self._virtual_meshes.get(ref)
        elsewhere = vault_facts(ref, virtual_mesh) if virtual_mesh is not None else None
        if virtual_mesh is None or virtual_mesh.spec.mtls_config is None or elsewhere is not None:
            self._give(ref, elsewhere, None)
            if self._rotations.pop(ref, None) is not None:
                await self._notes.write(TRUST, {note_key(ref): None})
                log.info("no root signs any more", virtual_mesh=ref.key)
            return
        wanted, problem = await self._wanted(ref, virtual_mesh)
        if wanted is not None and problem is None:
            await self._advance(ref, wanted, virtual_mesh)
        rotation = self._rotations.get(ref)
        if rotation is not None:
            signing = await self._read(rotation.signer.secret)
            if problem is None:
                problem = self._no_signer(rotation, signing)
        # What was elsewhere counts until a root is there to take its place.
        before, _ = self._given.get(ref, (None, None))
        self._give(ref, rotation.facts if rotation is not None else before, problem)
        self.changed(ref)

    async def _wanted(self, ref: Ref, virtual_mesh: VirtualMesh) -> tuple[Root | None, Problem | None]:
        wanted = wanted_root(virtual_mesh, self._namespace)
        if not isinstance(wanted, Wanted):
            return None, wanted
        name = f"{wanted.secret.namespace}/{wanted.secret.name}"
        path = PATH if wanted.generated is not None else f"{PATH}.secret"
        found = self._secrets.get((wanted.secret.namespace, wanted.secret.name))
        if found is not None and found.refusal and not found.read:
            return None, Problem(path, "Unreadable", f"Secret {name} cannot be read: {found.refusal}")
        if found is None or not found.read:
            return None, None
        rotation = self._rotations.get(ref)
        if found.data is None:
            if wanted.generated is None:
                message = f"Could not find provided ca signing secret ({wanted.secret.ref.key})."
                return None, Problem(path, "NotFound", message)
            if rotation is not None and any(root.secret == wanted.secret for root in rotation.trusted):
                message = (
                    f"Secret {name}, which holds the key of the root that is rolled out, is gone: restore it, or name "
                    "another root; a new one is not made, since no mesh would trust it"
                )
                return None, Problem(path, "NotFound", message)
            await self._make(ref, wanted, wanted.generated)
            return None, None
        root = await self._read(wanted.secret)
        if not isinstance(root, SigningRoot):
            what = "Provided CA" if wanted.generated is None else "Root CA"
            return None, Problem(path, "InvalidRoot", f"{what} ({wanted.secret.ref.key}) is invalid: {root}")
        wish = Root(wanted.secret, root.fingerprint, root.root.decode(), wanted.trust)
        if (
            rotation is not None
            and rotation.successor is None
            and wish.secret == rotation.deployed.secret
            and wish.fingerprint != rotation.deployed.fingerprint
            and not _at_once(virtual_mesh)
        ):
            message = (
                f"Secret {name} holds another root than the one that is rolled out, whose key is gone with that: put "
                "back what it held and name a Secret of its own for the new root, so that it can be replaced without a "
                "lost request; or set rotationStrategy to NONE"
            )
            return None, Problem(path, "SecretChanged", message)
        return wish, None

    async def _advance(self, ref: Ref, wanted: Root, virtual_mesh: VirtualMesh) -> None:
        """Go on as far as there is something to do; note each step before anything follows from it."""
        config = virtual_mesh.spec.mtls_config
        method = config.rotation_verification_method if config is not None else None
        manual = method is not None and method.manual is not None
        while True:
            rotation = self._rotations.get(ref)
            settled = rotation is not None and not manual and await self._settled(ref, rotation)
            now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
            step = advance(rotation, wanted, settled=settled, at_once=_at_once(virtual_mesh), now=now)
            if step == rotation:
                return
            await self._notes.write(TRUST, {note_key(ref): msgspec.json.encode(step).decode()})
            self._rotations[ref] = step
            log.info(
                "trust changes",
                virtual_mesh=ref.key,
                state=step.state.value,
                signer=step.signer.fingerprint[:12],
                trusted=[root.fingerprint[:12] for root in step.trusted],
            )

    async def _settled(self, ref: Ref, rotation: Rotation) -> bool:
        async with self._plane.lock:
            return self._plane.engine.settled(ref, rotation.facts)

    def _no_signer(self, rotation: Rotation, found: SigningRoot | PemInvalid | None) -> Problem | None:
        """Why nothing can be signed, though a root is rolled out."""
        secret = rotation.signer.secret
        state = self._secrets.get((secret.namespace, secret.name))
        if state is None or not state.read:
            return None
        if isinstance(found, SigningRoot) and found.fingerprint == rotation.signer.fingerprint:
            return None
        why = str(found) if isinstance(found, PemInvalid) else "it holds another root" if found else "it does not exist"
        message = f"Secret {secret.namespace}/{secret.name}, whose key signs now, cannot be used: {why}"
        return Problem(PATH, "NoSigner", message)

    async def _make(self, ref: Ref, wanted: Wanted, options: CommonCertOptions) -> None:
        """Make a root in its Secret, which must not exist."""
        key = await asyncio.to_thread(new_rsa_key, options.rsa_key_size_bytes)
        data = make_trust_root(
            key,
            organization=options.org_name,
            serial=secrets.randbits(127) + 1,
            now=self._now(),
            life=timedelta(days=options.ttl_days),
        )
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": wanted.secret.name, "namespace": wanted.secret.namespace},
            "type": ROOT_TYPE,
            "data": {name: b64encode(value).decode() for name, value in data.items()},
        }
        try:
            await self._kube.create(SECRET, manifest)
        except AlreadyExists:
            return  # the watch tells what it holds
        log.info("root made", virtual_mesh=ref.key, secret=wanted.secret.name)

    def _give(self, ref: Ref, facts: RootFacts | None, problem: Problem | None) -> None:
        given = (facts, problem)
        if self._given.get(ref, (None, None)) == given:
            return
        self._given[ref] = given
        self._plane.set_root(ref, facts, problem)


def _at_once(virtual_mesh: VirtualMesh) -> bool:
    config = virtual_mesh.spec.mtls_config
    return config is not None and config.rotation_strategy is RotationStrategy.NONE
