"""The roots of virtual meshes: making, reading and replacing them, and the keys that sign.

A root's key is in one Secret of the management cluster and in this process, and goes nowhere else. What is rolled out
is noted before anything follows from it (`notes`), so that whoever starts again goes on where it stopped, also while a
Secret is missing or spoilt. A note outlives its VirtualMesh for as long as a mesh runs with what it says: created
again, the VirtualMesh goes on from there.

The server makes Secrets and never changes one. A generated root whose life is nearly over is replaced by one in the
next numbered Secret: `vm.ns`, `vm.ns.1`, `vm.ns.2`.
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

from isthmus.api.certificate_verification import CertificateVerification, VerificationAction
from isthmus.api.common import CommonCertOptions, ObjectRef
from isthmus.api.virtual_mesh import RotationStrategy, VirtualMesh
from isthmus.kube import AlreadyExists, Changed, KubeClient, KubeError, Removed, Replaced, WatchEvent
from isthmus.model.kinds import SECRET
from isthmus.model.problem import Problem
from isthmus.model.ref import ObjectKey, Ref
from isthmus.pki import (
    CA_CERT,
    ROOT_CERT,
    PemInvalid,
    SigningRoot,
    certificate_fingerprint,
    expiry,
    make_trust_root,
    new_authority_key,
    read_signing_root,
    renewal_time,
)
from isthmus.program.crew import Crew
from isthmus.program.watching import follow
from isthmus.server.fleet import Fleet
from isthmus.server.notes import TRUST, Notes
from isthmus.server.plane import Plane
from isthmus.translate.trust.facts import RootFacts, vault_facts
from isthmus.translate.trust.rotation import Root, Rotation, Said, Word, advance
from isthmus.translate.trust.wanted import PATH, Wanted, number_in, numbered, wanted_root

Manifest = dict[str, Any]

ROOT_TYPE = "certificates.mesh.gloo.solo.io/generated_signing_cert"

WARN_BEFORE = timedelta(days=30)
"""How long before a root expires users are warned of it."""
MOST_GRACE = 0.5
"""Share of a root's life that is left, at most, when the next one is made: however options are set, a new root is not
about to be replaced itself."""
LOOK_SECONDS = 60.0
"""How often the clock is looked at, and whether meshes still run with what is not wanted any more."""

log = structlog.get_logger("isthmus.trust")


def renewal_due(not_before: datetime, not_after: datetime, ratio: float) -> datetime:
    """When a generated root is to be replaced: only the share *ratio* of its life is left."""
    return renewal_time(not_before, not_after, min(ratio, MOST_GRACE))


def note_key(virtual_mesh: Ref) -> str:
    """The key of a virtual mesh's entry in the notes; names have no underscore, so it is unique."""
    return f"{virtual_mesh.namespace}_{virtual_mesh.name}"


def read_rotations(noted: Mapping[str, str]) -> dict[Ref, Rotation]:
    """What the notes hold; an entry that is none is left out and said to the log."""
    found: dict[Ref, Rotation] = {}
    for key, text in noted.items():
        namespace, _, name = key.partition("_")
        try:
            rotation = msgspec.json.decode(text, type=Rotation)
            for root in (rotation.deployed, rotation.successor):
                if root is not None:
                    expiry(root.certificate.encode())
            found[Ref("", namespace, name)] = rotation
        except (msgspec.MsgspecError, PemInvalid) as error:
            log.error("note of a root cannot be read", virtual_mesh=key, error=str(error))
    return found


class _Secret:
    """One watched Secret. *data* None: it does not exist."""

    def __init__(self) -> None:
        self.read = False
        self.refusal = ""
        self.data: dict[str, bytes] | None = None
        self.root: SigningRoot | PemInvalid | None = None
        self.fingerprint = ""
        self.expires: datetime | None = None
        """When what it holds does, also if it cannot sign; for the certificate of `fingerprint`."""
        self.watch: asyncio.Task[None] | None = None


class Roots:
    """The roots of all virtual meshes. *now* is the clock."""

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        notes: Notes,
        plane: Plane,
        fleet: Fleet,
        noted: Mapping[str, str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._notes = notes
        self._plane = plane
        self._fleet = fleet
        self._now = now
        self._rotations = read_rotations(noted)
        self._virtual_meshes: dict[Ref, VirtualMesh] = {}
        self._verifications: dict[ObjectKey, CertificateVerification] = {}
        self._secrets: dict[tuple[str, str], _Secret] = {}
        self._given: dict[Ref, tuple[RootFacts | None, Problem | None]] = {}
        self._look_at: dict[Ref, datetime] = {}
        self._crew: Crew[Ref] = Crew(self._act, 1)
        self._tasks: asyncio.TaskGroup | None = None
        self.changed: Callable[[Ref], None] = lambda virtual_mesh: None
        """Told of a virtual mesh for which something else may sign now."""
        for virtual_mesh, rotation in self._rotations.items():
            self._give(virtual_mesh, self._facts(virtual_mesh, rotation), None)

    @property
    def rotations(self) -> Mapping[Ref, Rotation]:
        """What is rolled out for each virtual mesh."""
        return self._rotations

    def take(self, ref: Ref, virtual_mesh: VirtualMesh | None) -> None:
        """Take a VirtualMesh as its user wrote it, None when it is gone."""
        if virtual_mesh is None:
            self._virtual_meshes.pop(ref, None)
        else:
            self._virtual_meshes[ref] = virtual_mesh
        self.look_again((ref,))

    def hear(self, key: ObjectKey, verification: CertificateVerification | None) -> None:
        """Take what a person says of a rotation, None when it is said no more."""
        about = {found.about.ref for found in (self._verifications.get(key), verification) if found is not None}
        if verification is None:
            self._verifications.pop(key, None)
        else:
            self._verifications[key] = verification
        self.look_again(about & self._known())

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
            tasks.create_task(self._watch_the_clock(), name="root clock")
            await self._crew.run()

    async def _watch_the_clock(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._now()
            self.look_again([ref for ref in self._known() if self._look_at.get(ref, now) <= now])

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
        found.read, found.refusal, found.root, found.fingerprint, found.expires = True, "", None, "", None
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
        needed = set(self._candidates(ref, wanted)) if isinstance(wanted, Wanted) else set()
        if rotation is not None and virtual_mesh.spec.mtls_config is not None:
            needed |= {root.secret for root in (rotation.deployed, rotation.successor) if root is not None}
        return needed

    def _candidates(self, ref: Ref, wanted: Wanted) -> list[ObjectRef]:
        """The Secrets of which the last one is wanted; those before it hold roots whose life is nearly over.

        It begins with the one that the rotation has come to, so that those before it may be deleted.
        """
        if wanted.generated is None:
            return [wanted.secret]
        rotation = self._rotations.get(ref)
        used = (rotation.successor, rotation.deployed) if rotation is not None else ()
        numbers = (number_in(wanted.secret, root.secret) for root in used if root is not None)
        number = next((found for found in numbers if found is not None), 0)
        found = [numbered(wanted.secret, number)]
        ratio = wanted.generated.secret_rotation_grace_period_ratio
        while self._is_used_up(found[-1], ratio, rotation):
            number += 1
            found.append(numbered(wanted.secret, number))
        return found

    def _is_used_up(self, secret: ObjectRef, ratio: float, rotation: Rotation | None) -> bool:
        found = self._secrets.get((secret.namespace, secret.name))
        if found is None or found.expires is None:
            return False
        if isinstance(found.root, PemInvalid):
            return self._now() >= found.expires  # anything else that is wrong with it is for people to see to
        if found.root is None:
            return False
        if rotation is not None and rotation.successor is not None and rotation.successor.secret == secret:
            return False  # that rotation ends first
        return self._now() >= renewal_due(found.root.not_before, found.root.not_after, ratio)

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
                found.expires, found.fingerprint = _life_of(root, data)
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
            await self._forget(ref)
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
        self._give(ref, self._facts(ref, rotation) if rotation is not None else before, problem)
        self._look_at[ref] = self._next_look(ref, rotation, problem)
        self.changed(ref)

    async def _forget(self, ref: Ref) -> None:
        """Drop the note once no mesh runs with what it says."""
        rotation = self._rotations.get(ref)
        self._look_at.pop(ref, None)
        if rotation is None or self._plane.missing():
            return
        trusts = rotation.trusts
        for cluster in self._fleet.clusters.values():
            if any(status.observed_trust in trusts for status in cluster.certificates.values()):
                return
        await self._notes.write(TRUST, {note_key(ref): None})
        del self._rotations[ref]
        log.info("no root signs any more", virtual_mesh=ref.key)

    async def _wanted(self, ref: Ref, virtual_mesh: VirtualMesh) -> tuple[Root | None, Problem | None]:
        wanted = wanted_root(virtual_mesh, self._namespace)
        if not isinstance(wanted, Wanted):
            return None, wanted
        wanted = msgspec.structs.replace(wanted, secret=await self._newest(ref, wanted))
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
            in_use = rotation is not None and any(root.secret == wanted.secret for root in rotation.trusted)
            if in_use and not _at_once(virtual_mesh):
                message = (
                    f"Secret {name}, which holds the key of the root that is rolled out, is gone: restore it, or name "
                    "another root; a new one is not made, since no mesh would trust it, unless rotationStrategy is NONE"
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

    async def _newest(self, ref: Ref, wanted: Wanted) -> ObjectRef:
        """The Secret that is wanted, after looking into those that may have been replaced."""
        seen: list[ObjectRef] = []
        while (candidates := self._candidates(ref, wanted)) != seen:
            seen = candidates
            self._sync_watches()
            await self._read(seen[-1])
        return seen[-1]

    async def _advance(self, ref: Ref, wanted: Root, virtual_mesh: VirtualMesh) -> None:
        """Go on as far as there is something to do; note each step before anything follows from it."""
        config = virtual_mesh.spec.mtls_config
        method = config.rotation_verification_method if config is not None else None
        while True:
            rotation = self._rotations.get(ref)
            settled, said = await self._situation(ref, rotation)
            step = advance(
                rotation,
                wanted,
                settled=settled,
                # Nobody believes a certificate of a root that has expired: there is nothing to be careful with.
                at_once=_at_once(virtual_mesh)
                or (rotation is not None and self._now() >= self.expires(rotation.signer)),
                now=self._now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                manual=method is not None and method.manual is not None,
                said=said,
            )
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

    async def _situation(self, ref: Ref, rotation: Rotation | None) -> tuple[bool, Said]:
        """Whether every mesh runs with *rotation*, and what persons say and should know."""
        found = [verification for verification in self._verifications.values() if verification.about.ref == ref]
        words = tuple(
            Word(
                identity=verification.identity,
                name=f"{verification.metadata.namespace}/{verification.metadata.name}",
                step=verification.spec.step,
                back=verification.spec.action is VerificationAction.ROLLBACK,
            )
            for verification in sorted(found, key=lambda one: (one.metadata.creation_timestamp or "", one.key))
        )
        if rotation is None:
            return False, Said(words)
        async with self._plane.lock:
            settled = self._plane.engine.settled(ref, self._facts(ref, rotation))
            remark, doubts = self._plane.engine.presented(ref)
        return settled, Said(words, remark, doubts)

    # --- time -------------------------------------------------------------------------------------------------------

    def expires(self, root: Root) -> datetime:
        """When *root* expires, or the certificate that signs for it."""
        found = self._secrets.get((root.secret.namespace, root.secret.name))
        if found is not None and found.expires is not None and found.fingerprint == root.fingerprint:
            return found.expires
        return expiry(root.certificate.encode())

    def _facts(self, ref: Ref, rotation: Rotation) -> RootFacts:
        """What translation reads, with warnings of roots that expire soon."""
        warnings = []
        for root in rotation.trusted:
            end = self.expires(root)
            if self._now() >= end - WARN_BEFORE:
                name = f"{root.secret.namespace}/{root.secret.name}"
                verb = "expires" if self._now() < end else "has expired"
                advice = self._advice(ref, rotation, root)
                warnings.append(f"the root of Secret {name} {verb} on {end:%Y-%m-%d %H:%M} UTC: {advice}")
        return msgspec.structs.replace(rotation.facts, warnings=tuple(warnings))

    def _advice(self, ref: Ref, rotation: Rotation, root: Root) -> str:
        if rotation.successor is not None and root == rotation.deployed:
            return "it is being replaced"
        virtual_mesh = self._virtual_meshes.get(ref)
        wanted = wanted_root(virtual_mesh, self._namespace) if virtual_mesh is not None else None
        if isinstance(wanted, Wanted) and wanted.generated is not None:
            return "a new one is made before that, and replaces it"
        return f"name another one in {PATH} before that, since no certificate outlives its root"

    def _next_look(self, ref: Ref, rotation: Rotation | None, problem: Problem | None) -> datetime:
        """When something happens because of the time; at once where something is wrong that may have come right."""
        now = self._now()
        virtual_mesh = self._virtual_meshes.get(ref)
        wanted = wanted_root(virtual_mesh, self._namespace) if virtual_mesh is not None else None
        if rotation is None or problem is not None or not isinstance(wanted, Wanted):
            return now
        times = []
        for root in (rotation.deployed, rotation.successor or rotation.deployed):
            end = self.expires(root)
            times += [end - WARN_BEFORE, end]
            found = self._root_in(root.secret)
            if wanted.generated is not None and isinstance(found, SigningRoot):
                ratio = wanted.generated.secret_rotation_grace_period_ratio
                times.append(renewal_due(found.not_before, found.not_after, ratio))
        return min((time for time in times if time > now), default=now)

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
        key = await asyncio.to_thread(new_authority_key, options.rsa_key_size_bytes)
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


def _life_of(root: SigningRoot | PemInvalid, data: Mapping[str, bytes]) -> tuple[datetime | None, str]:
    """When what a Secret holds expires, and the fingerprint of it, also where it cannot sign any more."""
    if isinstance(root, SigningRoot):
        return root.not_after, root.fingerprint
    certificate = data.get(CA_CERT) or data.get(ROOT_CERT, b"")
    try:
        return expiry(certificate), certificate_fingerprint(certificate)
    except PemInvalid:
        return None, ""


def _at_once(virtual_mesh: VirtualMesh) -> bool:
    config = virtual_mesh.spec.mtls_config
    return config is not None and config.rotation_strategy is RotationStrategy.NONE
