"""One key, one request, and a `cacerts` that fits the answer, whatever happens on the way."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.agent.certificates import (
    HOLDER,
    ISSUED_AT,
    TAKE_OVER,
    Decision,
    Delete,
    MakeKey,
    Slot,
    Tell,
    fingerprint,
    spec_digest,
)
from isthmus.agent.ownership import ownership_labels
from isthmus.api.certificate_request import CertificateRequestState
from isthmus.api.common import CertificateRotationState, KeyAlgorithm, ObjectRef
from isthmus.api.issued_certificate import IssuedCertificateState as State
from isthmus.api.issued_certificate import WorkloadCertificates
from isthmus.pki import (
    CA_CERT,
    CA_KEY,
    CERT_CHAIN,
    ROOT_CERT,
    check_chain,
    inspect_intermediate_csr,
    key_fingerprint,
    renewal_time,
)
from isthmus.pki.certificates import load_certificates
from isthmus.pki.issued import read_issued
from isthmus.pki.keys import load_key
from tests.unit.agent.issuance import (
    HOST,
    ISTIO,
    NAME,
    NAMESPACE,
    OURS,
    START,
    TARGET_AT,
    Agent,
    Cluster,
    Pods,
    Signer,
    root,
    secret,
    spec,
)


@dataclass
class World:
    """A cluster with an agent, and its management plane."""

    cluster: Cluster = field(default_factory=Cluster)
    signer: Signer = field(default_factory=Signer)
    pods: Pods = field(default_factory=Pods)
    now: datetime = START
    wants: bool = True
    complete: bool = True

    def __post_init__(self) -> None:
        self.agent = Agent(self.cluster, self.pods)

    def restart(self) -> None:
        """Kill the agent and start it again: it knows nothing but what the cluster holds."""
        self.agent = Agent(self.cluster, self.pods)

    def answer(self) -> None:
        """Have the management plane look at what the cluster holds, and its answers reach the agent."""
        self.signer.look(self.cluster.request(), self.now)
        self.signer.tell(self.agent, wants=self.wants, complete=self.complete)

    def settle(self) -> State:
        """Let everybody work until nobody has anything to do."""
        for _ in range(20):
            before = self.cluster.version
            self.agent.settle(self.now)
            self.answer()
            self.agent.settle(self.now)
            if self.cluster.version == before:
                return self.cluster.status().state if self.cluster.get(Slot.CERTIFICATES) else State.PENDING
        raise AssertionError("agent and management plane do not come to rest")


@pytest.fixture
def world() -> World:
    found = World()
    found.cluster.want(spec())
    return found


def check(world: World) -> None:
    """What must hold once all is done: one key, one request for it, and a `cacerts` of both that is valid."""
    cluster = world.cluster
    assert len(cluster.objects[Slot.KEYS]) == len(cluster.objects[Slot.REQUESTS]) == 1
    request, data = cluster.request(), cluster.data()
    assert request is not None
    assert request.status is not None
    key = b64decode(cluster.private_key())
    csr = inspect_intermediate_csr(request.spec.certificate_signing_request)
    assert csr.fingerprint == key_fingerprint(key) == key_fingerprint(b64decode(data[CA_KEY]))
    assert read_issued(b64decode(data[CA_CERT])).fingerprint == csr.fingerprint
    assert b64decode(data[CA_CERT]) == request.status.signed_certificate
    assert b64decode(data[ROOT_CERT]) == request.status.signing_root_ca == root(world.signer.trust).certificate
    assert check_chain(b64decode(data[CERT_CHAIN]), b64decode(data[ROOT_CERT]), world.now) is None
    assert request.status.observed_generation == request.metadata.generation
    status = cluster.status()
    found = cluster.get(Slot.CERTIFICATES)
    assert found is not None
    assert status.observed_generation == found["metadata"]["generation"]
    assert (status.state, status.error) == (State.FINISHED, "")


# --- the way it goes --------------------------------------------------------------------------------------------------


def test_a_certificate_is_issued(world: World) -> None:
    """From nothing to FINISHED, with the states in between told."""
    told = []
    world.agent.see()
    while world.agent.step(world.now):
        if isinstance(world.agent.last.action, Tell):
            told.append(world.agent.last.action.status.state)
    assert told == [State.PENDING, State.REQUESTED]

    world.answer()
    while world.agent.step(world.now):
        pass

    check(world)
    found = world.cluster.get(Slot.TARGETS, TARGET_AT)
    assert found is not None
    assert found["type"] == "certificates.mesh.gloo.solo.io/issued_certificate"
    assert found["metadata"]["annotations"][HOLDER] == f"{NAMESPACE}/{NAME}"
    assert world.cluster.keys_made == 1
    status = world.cluster.status()
    assert status.applied_gloo_mesh_ca is not None
    assert (status.observed_trust, status.not_after) == ("one", "2026-05-31T12:00:00Z")


def test_a_key_is_of_the_kind_that_is_asked_for(world: World) -> None:
    """ECDSA from the start; a change to RSA takes a new key and a new certificate."""
    world.cluster.want(spec(algorithm=KeyAlgorithm.ECDSA, bits=0))
    assert world.settle() is State.FINISHED
    check(world)
    assert isinstance(load_key(b64decode(world.cluster.private_key())), ec.EllipticCurvePrivateKey)

    world.cluster.want(spec())
    assert world.settle() is State.FINISHED
    check(world)
    assert isinstance(load_key(b64decode(world.cluster.private_key())), rsa.RSAPrivateKey)


def test_the_request_names_the_mesh_and_its_identity(world: World) -> None:
    world.agent.settle(world.now)

    request = world.cluster.request()
    assert request is not None
    csr = inspect_intermediate_csr(request.spec.certificate_signing_request)
    assert (csr.hosts, csr.organizations, csr.units, csr.rsa_bits) == ((HOST,), ("Istio",), (NAME,), 2048)


def test_what_is_reported_holds_nothing_private(world: World) -> None:
    """The request and the certificate go up as they are on the cluster, without what only its API server needs."""
    world.settle()

    request, certificate = world.agent.machine.reports(NAME)
    assert request is not None
    assert certificate is not None
    assert request.metadata.labels == {}
    assert request.status is not None
    assert request.status.state is CertificateRequestState.FINISHED
    assert certificate.status is not None
    assert certificate.status.state is State.FINISHED
    assert b"PRIVATE" not in repr((request, certificate)).encode()


def test_no_key_is_shown_by_anything_that_is_printed(world: World) -> None:
    """Not even by a crash that prints what was to be done."""
    shown = []
    for _ in range(30):
        world.agent.see()
        if not world.agent.step(world.now):
            world.answer()
            if not world.agent.step(world.now):
                break
        shown.append(repr(world.agent.last))
    shown += [repr(seen) for seen in world.agent.machine.__dict__.values()]

    text, key = "".join(shown), b64decode(world.cluster.private_key()).decode()
    assert len(shown) > 5
    assert "PRIVATE KEY" not in text
    assert key.splitlines()[1] not in text


def test_finished_is_after_the_restarts(world: World) -> None:
    world.cluster.want(spec(directive=True))
    world.pods.done = False
    assert world.settle() is State.ISSUED
    assert world.agent.last.waiting == "istiod"

    world.pods.done = True
    assert world.settle() is State.FINISHED
    assert world.pods.asked[-1] == fingerprint({key: b64decode(value) for key, value in world.cluster.data().items()})


def test_without_restarts_the_pods_that_need_one_are_told(world: World) -> None:
    world.pods.old = tuple(f"default/pod-{number:02}" for number in range(60))
    assert world.settle() is State.ISSUED
    found = world.cluster.status().outdated_pods
    assert found is not None
    assert (found.count, found.names) == (60, world.pods.old[:50])

    world.pods.old = ()
    assert world.settle() is State.FINISHED
    assert world.cluster.status().outdated_pods is None


# --- from one root to another -----------------------------------------------------------------------------------------


def self_signed(name: str = "istio") -> dict[str, bytes]:
    """What istiod has made itself."""
    return {CA_CERT: root(name).certificate, CA_KEY: root(name).key}


def is_bridge(world: World, old: bytes) -> bool:
    """Whether those with the *old* root accept what `cacerts` presents, and those with the new one as well."""
    data = {key: b64decode(value) for key, value in world.cluster.data().items()}
    new = root(world.signer.trust).certificate
    assert check_chain(data[CERT_CHAIN], new, world.now) is None
    trusted = load_certificates(data[ROOT_CERT])
    assert load_certificates(new)[0] == trusted[0]
    accepted = check_chain(data[CERT_CHAIN], old, world.now) is None
    assert (load_certificates(old)[0] in trusted) is accepted
    return accepted


@pytest.mark.parametrize("directive", [True, False])
def test_the_first_certificate_is_accepted_by_those_with_the_old_root(world: World, directive: bool) -> None:
    """Until all pods have restarted, over kills and a new spec; then the old root goes."""
    old = root("istio").certificate
    world.cluster.self_signed = self_signed()
    world.cluster.want(spec(directive=directive))
    world.pods.done, world.pods.old = False, ("default/reviews",)
    assert world.settle() is State.ISSUED
    assert is_bridge(world, old)
    data = world.cluster.data()
    world.restart()
    assert world.settle() is State.ISSUED
    assert world.cluster.data() == data

    world.cluster.want(spec(directive=directive, days=31))
    world.now += timedelta(minutes=1)
    assert world.settle() is State.ISSUED
    assert world.cluster.data()[CA_CERT] != data[CA_CERT]
    assert is_bridge(world, old)
    written = note(world, ISSUED_AT)

    world.pods.done, world.pods.old = True, ()
    world.now += timedelta(minutes=1)
    assert world.settle() is State.FINISHED
    assert not is_bridge(world, old)
    check(world)
    assert (note(world, ISSUED_AT) == written) is not directive


def note(world: World, annotation: str) -> str:
    found = world.cluster.get(Slot.TARGETS, TARGET_AT)
    assert found is not None
    return str(found["metadata"]["annotations"][annotation])


def test_a_root_of_somebody_else_is_bridged_when_it_is_taken_over(world: World) -> None:
    theirs = {**self_signed("theirs"), ROOT_CERT: root("theirs").certificate, CERT_CHAIN: root("theirs").certificate}
    world.cluster.self_signed = self_signed("unused")
    world.cluster.put(Slot.TARGETS, secret(TARGET_AT, theirs, annotations={TAKE_OVER: "true"}))
    world.pods.old = ("default/reviews",)

    assert world.settle() is State.ISSUED
    assert is_bridge(world, root("theirs").certificate)
    assert not is_bridge(world, root("unused").certificate)


@pytest.mark.parametrize("wrong", ["no key", "another key", "no certificate", "no root"])
def test_where_no_bridge_can_be_made_the_certificate_is_written_all_the_same(world: World, wrong: str) -> None:
    theirs = self_signed()
    match wrong:
        case "no key":
            del theirs[CA_KEY]
        case "another key":
            theirs[CA_KEY] = root("another").key
        case "no certificate":
            theirs[CA_CERT] = b"no certificate"
        case "no root":
            theirs[ROOT_CERT] = root("another").certificate
    world.cluster.self_signed = theirs

    assert world.settle() is State.FINISHED
    check(world)


def test_a_bridge_stays_until_pods_were_seen(world: World) -> None:
    """Nobody has looked yet: that is not the same as nobody needs it."""
    before = root("before")
    world.cluster.self_signed = {CA_CERT: before.certificate, CA_KEY: before.key}
    world.pods.old = None

    assert world.settle() is State.ISSUED
    assert len(load_certificates(b64decode(world.cluster.data()[ROOT_CERT]))) == 2

    world.pods.old = ()
    assert world.settle() is State.FINISHED
    assert len(load_certificates(b64decode(world.cluster.data()[ROOT_CERT]))) == 1


def test_a_bridge_to_a_root_that_was_replaced_is_dropped(world: World) -> None:
    world.cluster.self_signed = self_signed()
    world.pods.old = ("default/reviews",)
    world.settle()
    world.signer.trust = "two"
    world.settle()
    assert not is_bridge(world, root("istio").certificate)

    world.pods.old = ()
    assert world.settle() is State.FINISHED
    check(world)


# --- what changes -----------------------------------------------------------------------------------------------------


def test_a_new_spec_asks_anew_with_a_new_key(world: World) -> None:
    world.settle()
    before, key = world.cluster.data(), world.cluster.private_key()
    world.cluster.want(spec(trust="two"))
    world.signer.trust = "two"

    assert world.settle() is State.FINISHED
    check(world)
    assert world.cluster.private_key() != key
    assert world.cluster.data()[CA_CERT] != before[CA_CERT]
    assert world.cluster.keys_made == 2


def test_switching_restarts_or_the_grace_period_issues_nothing(world: World) -> None:
    world.settle()
    before = world.cluster.data()
    world.cluster.want(spec(directive=True, ratio=0.5))

    assert world.settle() is State.FINISHED
    assert world.cluster.data() == before
    assert world.cluster.keys_made == 1
    check(world)


def test_an_answer_under_another_root_is_taken_with_the_same_key(world: World) -> None:
    """The Secret that holds the root was given another one, which no spec names."""
    world.settle()
    key = world.cluster.private_key()
    world.signer.trust = "two"

    assert world.settle() is State.FINISHED
    check(world)
    assert world.cluster.private_key() == key


def test_an_answer_that_is_withdrawn_changes_nothing(world: World) -> None:
    world.settle()
    before = world.cluster.version
    world.signer.answers.clear()
    world.signer.tell(world.agent)
    world.agent.settle(world.now)

    assert world.cluster.version == before


@pytest.mark.parametrize("change", ["uid", "generation", "spec"])
def test_an_answer_to_another_request_is_ignored(world: World, change: str) -> None:
    world.agent.settle(world.now)
    request = world.cluster.request()
    assert request is not None
    world.signer.look(request, world.now)
    answer = world.signer.answers[NAME]
    values = {"uid": "another", "generation": 7}
    if change == "spec":
        answer = msgspec.structs.replace(answer, spec=type(answer.spec)(certificate_signing_request=b"another"))
    else:
        metadata = msgspec.structs.replace(answer.metadata, **{change: values[change]})
        answer = msgspec.structs.replace(answer, metadata=metadata)
    world.signer.answers[NAME] = answer
    world.signer.tell(world.agent)
    world.agent.settle(world.now)

    assert world.cluster.status().state is State.REQUESTED
    assert world.cluster.data() == {}


def test_renewal_comes_at_the_grace_ratio(world: World) -> None:
    """A tenth of the life of 30 days before the end, with a new key; not earlier."""
    world.settle()
    before = world.cluster.data()
    issued = read_issued(b64decode(before[CA_CERT]))
    due = renewal_time(issued.not_before, issued.not_after, 0.10)
    assert world.agent.last.wake == due

    world.now = due - timedelta(seconds=1)
    world.settle()
    assert world.cluster.data() == before
    world.now = due
    world.settle()

    check(world)
    assert world.cluster.keys_made == 2
    assert read_issued(b64decode(world.cluster.data()[CA_CERT])).not_after > issued.not_after


def test_renewals_are_never_hurried(world: World) -> None:
    """A certificate that is due when it comes is used, and its key lives a while."""
    world.cluster.want(spec(ratio=0.999999))
    assert world.settle() is State.FINISHED
    check(world)
    assert world.cluster.keys_made == 1

    world.now += timedelta(minutes=11)
    world.settle()
    assert world.cluster.keys_made == 2


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_secret_of_somebody_else_is_kept_until_it_is_given_to_us(world: World) -> None:
    theirs = {CA_CERT: b"theirs", "ca-crl.pem": b"more"}
    world.cluster.put(Slot.TARGETS, secret(TARGET_AT, theirs))
    assert world.settle() is State.FAILED
    assert "istio-system/cacerts was made by somebody else" in world.cluster.status().error
    assert b64decode(world.cluster.data()[CA_CERT]) == b"theirs"
    assert world.cluster.keys_made == 0

    world.cluster.put(Slot.TARGETS, secret(TARGET_AT, theirs, annotations={TAKE_OVER: "true"}))
    assert world.settle() is State.FINISHED
    check(world)
    found = world.cluster.get(Slot.TARGETS, TARGET_AT)
    assert found is not None
    assert found["type"] == "Opaque"  # it can't be changed


def test_somebody_elses_secret_survives_that_the_virtual_mesh_is_left(world: World) -> None:
    world.cluster.put(Slot.TARGETS, secret(TARGET_AT, {CA_CERT: b"theirs"}))
    world.settle()
    leave(world)

    assert b64decode(world.cluster.data()[CA_CERT]) == b"theirs"


def test_two_meshes_of_one_namespace_do_not_fight(world: World) -> None:
    """The first has the Secret; the second says so."""
    world.settle()
    before = world.cluster.data()
    world.cluster.want(spec(), name="other")
    world.agent.settle(world.now, "other")

    assert world.cluster.status("other").state is State.FAILED
    assert NAME in world.cluster.status("other").error
    assert world.cluster.data() == before


def test_a_refusal_is_told_and_a_later_answer_taken(world: World) -> None:
    world.signer.refuse = "no IssuedCertificate of this name is wanted on cluster1"
    assert world.settle() is State.FAILED
    assert world.cluster.status().error == world.signer.refuse
    world.restart()
    assert world.settle() is State.FAILED

    world.signer.refuse = ""
    assert world.settle() is State.FINISHED
    check(world)
    assert world.cluster.keys_made == 1


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clocks_may_be_ten_minutes_apart(world: World, minutes: int) -> None:
    world.signer.skew = timedelta(minutes=minutes)

    assert world.settle() is State.FINISHED


def test_a_certificate_of_the_future_is_waited_for(world: World) -> None:
    world.signer.skew = timedelta(minutes=25)  # 10 more than what certificates are dated back
    assert world.settle() is State.REQUESTED
    assert world.agent.last.wake == world.now + timedelta(minutes=10)
    assert "clock" in world.agent.last.waiting
    assert world.cluster.data() == {}

    world.now += timedelta(minutes=10)
    assert world.settle() is State.FINISHED
    check(world)


def test_an_expired_answer_is_told_and_asked_for_again_without_hurry(world: World) -> None:
    """This cluster's clock is a year ahead."""
    world.signer.skew = timedelta(days=-400)
    assert world.settle() is State.FAILED
    assert "expired" in world.cluster.status().error
    assert world.cluster.keys_made == 1
    assert world.agent.last.wake == world.now + timedelta(minutes=10)

    world.signer.skew = timedelta(0)
    world.now += timedelta(minutes=10)
    assert world.settle() is State.FINISHED
    check(world)


def test_an_answer_that_does_not_fit_is_not_installed(world: World) -> None:
    """It names somebody else; or is for another key; or leads to another root; or is no CA; or is no certificate."""
    world.agent.settle(world.now)
    world.signer.look(world.cluster.request(), world.now)
    good = world.signer.answers[NAME]
    assert good.status is not None
    leaf_signer = Signer(trust="two")
    leaf_signer.look(world.cluster.request(), world.now, hosts=("spiffe://cluster2/ns/a/sa/b",))
    other_name = leaf_signer.answers[NAME].status
    assert other_name is not None
    bad = {
        "does not name": other_name,
        "among the certificates": msgspec.structs.replace(good.status, signing_root_ca=root("two").certificate),
        "for another key": msgspec.structs.replace(good.status, signed_certificate=root("one").certificate),
        "does not begin with": msgspec.structs.replace(good.status, cert_chain=root("one").certificate),
        "unreadable": msgspec.structs.replace(good.status, signed_certificate=b"no certificate"),
    }
    for text, status in bad.items():
        world.signer.answers[NAME] = msgspec.structs.replace(good, status=status)
        world.signer.tell(world.agent)
        world.agent.settle(world.now)
        assert world.cluster.status().state is State.FAILED, text
        assert text in world.cluster.status().error
        assert world.cluster.data() == {}

    world.signer.answers[NAME] = good
    world.signer.tell(world.agent)
    world.agent.settle(world.now)
    check(world)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (spec(hosts=()), "spec.hosts"),
        (spec(bits=256), "rsaKeySizeBytes"),
        (spec(bits=2**20), "rsaKeySizeBytes"),
        (spec(place=ObjectRef(name="relay-tls", namespace=ISTIO)), "named cacerts only"),
    ],
)
def test_a_spec_that_cannot_be_followed_is_told(world: World, wrong: object, text: str) -> None:
    world.cluster.want(wrong)  # type: ignore[arg-type]

    assert world.settle() is State.FAILED
    assert text in world.cluster.status().error
    assert world.cluster.keys_made == 0


def test_a_request_of_somebody_else_is_left_alone(world: World) -> None:
    world.cluster.put(Slot.REQUESTS, {"metadata": {"namespace": NAMESPACE, "name": NAME}, "spec": {}})

    assert world.settle() is State.FAILED
    assert "CertificateRequest gloo-mesh" in world.cluster.status().error


def test_without_a_place_for_it_nothing_is_done(world: World) -> None:
    """Vault's certificates are not the agent's business."""
    world.cluster.want(spec(place=None))
    before = world.cluster.version

    world.settle()
    assert world.cluster.version == before


def test_a_certificate_that_a_user_made_is_not_ours_to_issue() -> None:
    world = World()
    world.cluster.want(spec(), labels={})
    before = world.cluster.version

    world.settle()
    assert world.cluster.version == before


def test_what_cannot_be_read_is_told(world: World) -> None:
    machine = world.agent.machine.__class__("cluster1", NAMESPACE, Pods())
    machine.replaced(Slot.CERTIFICATES, world.cluster.objects[Slot.CERTIFICATES].values())
    assert machine.decide(NAME, world.now) == Decision()
    machine.refused(Slot.TARGETS, "secrets is forbidden")

    action = machine.decide(NAME, world.now).action
    assert isinstance(action, Tell)
    assert "secrets is forbidden" in action.status.error


@pytest.mark.parametrize("lost", [Slot.KEYS, Slot.REQUESTS, Slot.TARGETS])
def test_what_is_deleted_comes_back(world: World, lost: Slot) -> None:
    world.settle()
    world.cluster.delete(lost, TARGET_AT if lost is Slot.TARGETS else (NAMESPACE, NAME))

    assert world.settle() is State.FINISHED
    check(world)


def test_a_restored_secret_is_told_from_the_one_before(world: World) -> None:
    """Pods that started while it was missing may have other certificates."""
    world.settle()
    world.now += timedelta(hours=1)
    world.cluster.delete(Slot.TARGETS, TARGET_AT)
    world.settle()

    found = world.cluster.get(Slot.TARGETS, TARGET_AT)
    assert found is not None
    assert found["metadata"]["annotations"][ISSUED_AT] == "2026-05-01T13:00:00Z"


def test_an_answer_to_the_request_before_is_not_taken_for_one(world: World) -> None:
    """Between a new request and its answer the status says that it waits, not that something is wrong."""
    world.settle()
    world.cluster.want(spec(days=31))
    world.agent.settle(world.now)

    assert world.cluster.status().state is State.REQUESTED
    assert world.cluster.status().error == ""


def test_who_sees_late_overwrites_nothing(world: World) -> None:
    """Of two agents, as there are while a Deployment rolls, the slower one repeats nothing."""
    world.settle()
    slow = Agent(world.cluster, world.pods)
    world.cluster.want(spec(days=31))
    slow.see()
    world.settle()
    version = world.cluster.version
    for _ in range(5):
        slow.step(world.now)
    assert world.cluster.version == version

    slow.settle(world.now)
    assert world.cluster.version == version


def test_a_late_word_of_a_deletion_is_not_believed(world: World) -> None:
    """The object has been made again since, as the answer to our own write told."""
    world.settle()
    found = world.cluster.get(Slot.TARGETS, TARGET_AT)
    assert found is not None
    late = {**found, "metadata": {**found["metadata"], "resourceVersion": "1"}}
    world.agent.machine.removed(Slot.TARGETS, late)
    version = world.cluster.version
    world.agent.settle(world.now)

    assert world.cluster.version == version
    assert world.agent.last == Decision(wake=world.agent.last.wake)


# --- leaving ----------------------------------------------------------------------------------------------------------


def leave(world: World) -> None:
    world.cluster.delete(Slot.CERTIFICATES, (NAMESPACE, NAME))
    world.wants = False
    world.agent.see()
    world.signer.tell(world.agent, wants=False, complete=world.complete)
    world.agent.settle(world.now)


def test_leaving_deletes_what_was_made(world: World) -> None:
    world.settle()
    leave(world)

    assert not any(world.cluster.objects.values())


@pytest.mark.parametrize(("wants", "complete"), [(True, True), (False, False)])
def test_nothing_is_deleted_on_incomplete_knowledge(world: World, wants: bool, complete: bool) -> None:
    """Somebody deleted the IssuedCertificate, which is written again; or the server has just started."""
    world.settle()
    before = world.cluster.data()
    world.cluster.delete(Slot.CERTIFICATES, (NAMESPACE, NAME))
    world.agent.see()
    world.signer.tell(world.agent, wants=wants, complete=complete)
    world.agent.settle(world.now)
    assert world.cluster.data() == before

    world.cluster.want(spec())
    assert world.settle() is State.FINISHED
    assert world.cluster.data() == before
    assert world.cluster.keys_made == 1


def test_a_certificate_that_moves_leaves_nothing_behind(world: World) -> None:
    world.settle()
    world.cluster.want(spec(place=ObjectRef(name="cacerts", namespace="istio-2")))
    world.settle()

    assert set(world.cluster.objects[Slot.TARGETS]) == {("istio-2", "cacerts")}


def test_another_installations_objects_are_left_alone(world: World) -> None:
    """Two agents share a cluster: of what the other one made nothing is deleted or overwritten."""
    other = {"labels": ownership_labels("cluster1", "other"), "annotations": {HOLDER: f"other/{NAME}"}}
    world.cluster.put(Slot.TARGETS, secret(TARGET_AT, {CA_CERT: b"theirs"}, **other))
    assert world.settle() is State.FAILED
    leave(world)

    assert b64decode(world.cluster.data()[CA_CERT]) == b"theirs"


# --- any history ------------------------------------------------------------------------------------------------------

EVENTS = [
    *("step", "step", "step", "step", "see-one", "see", "kill", "answer", "look", "tell", "second-agent"),
    *("lose-key", "lose-request", "lose-cacerts", "lose-certificate", "spoil-cacerts", "spoil-request"),
    *("respec", "reroot", "refuse", "allow", "due", "minutes", "pods"),
]
HISTORIES = st.lists(st.sampled_from(EVENTS), max_size=40)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, st.booleans())
def test_any_history_ends_the_same(events: list[str], has_root: bool) -> None:
    """Whatever happens in whatever order, and wherever the agent is killed: one key, one request, one answer."""
    world = World()
    world.cluster.self_signed = self_signed() if has_root else {}
    world.cluster.want(spec())
    trust = "one"
    for event in events:
        cluster = world.cluster
        match event:
            case "step":
                world.agent.step(world.now)
            case "see-one":
                world.agent.see(1)
            case "see":
                world.agent.see()
            case "kill":
                world.restart()
            case "answer":
                world.answer()
            case "look":  # the answer is on its way, while other things happen
                world.signer.look(cluster.request(), world.now)
            case "tell":
                world.signer.tell(world.agent)
            case "lose-key":
                cluster.delete(Slot.KEYS, (NAMESPACE, NAME))
            case "lose-request":
                cluster.delete(Slot.REQUESTS, (NAMESPACE, NAME))
            case "lose-cacerts":
                cluster.delete(Slot.TARGETS, TARGET_AT)
            case "lose-certificate":
                cluster.delete(Slot.CERTIFICATES, (NAMESPACE, NAME))
                cluster.want(spec(trust=trust))
            case "spoil-cacerts":
                if (found := cluster.get(Slot.TARGETS, TARGET_AT)) is not None:
                    cluster.put(Slot.TARGETS, {**found, "data": {CA_CERT: "bm8="}})
            case "spoil-request":
                if (found := cluster.get(Slot.REQUESTS)) is not None:
                    metadata = {"namespace": NAMESPACE, "name": NAME, "labels": OURS}
                    cluster.put(Slot.REQUESTS, {"metadata": metadata, "spec": {"certificateSigningRequest": "bm8="}})
            case "respec":
                trust = "two" if trust == "one" else "one"
                cluster.want(spec(trust=trust))
            case "reroot":
                world.signer.trust = "two" if world.signer.trust == "one" else "one"
            case "refuse":
                world.signer.refuse = "no"
            case "allow":
                world.signer.refuse = ""
            case "due":
                world.now += timedelta(days=28)
            case "pods":  # have restarted, or have not
                world.pods.old = () if world.pods.old else ("default/reviews",)
            case "minutes":
                world.now += timedelta(minutes=11)
            case "second-agent":  # while a Deployment rolls there are two for a moment
                other = Agent(cluster, world.pods)
                world.signer.tell(other)
                other.step(world.now)
                other.step(world.now)

    world.signer.refuse = ""
    world.pods.old = ()
    world.settle()

    check(world)
    version = world.cluster.version
    world.restart()
    world.settle()
    assert world.cluster.version == version, "a restart of the agent writes something"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 30), st.integers(0, 30))
def test_a_kill_anywhere_makes_no_second_key(first: int, second: int) -> None:
    """Killed after any two steps, the agent goes on with the key and the request that are there."""
    world = World()
    world.cluster.want(spec())
    for steps in (first, second):
        for _ in range(steps):
            world.agent.see()
            if not world.agent.step(world.now):
                world.answer()
        world.restart()

    world.settle()

    check(world)
    assert world.cluster.keys_made == 1
    request = world.cluster.request()
    assert request is not None
    assert request.metadata.generation == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES)
def test_leaving_after_any_history_leaves_nothing(events: list[str]) -> None:
    world = World()
    world.cluster.want(spec())
    for event in events:
        match event:
            case "step":
                world.agent.step(world.now)
            case "see":
                world.agent.see()
            case "answer":
                world.answer()
            case "kill":
                world.restart()
    leave(world)

    assert not any(world.cluster.objects.values())
    assert not isinstance(world.agent.machine.decide(NAME, world.now).action, Delete | MakeKey)


def test_what_calls_for_a_new_certificate() -> None:
    step = msgspec.structs.replace(spec(), rotation_state=CertificateRotationState.PREVIOUS_CA)  # its trust is the same
    same = {spec_digest(each) for each in (spec(), spec(directive=True), spec(ratio=0.2), step)}
    others = {spec_digest(each) for each in (spec(trust="two"), spec(days=31), spec(bits=4096), spec(hosts=("a://b",)))}

    assert len(same) == 1
    assert len(others | same) == 5


# --- what pods present ------------------------------------------------------------------------------------------------


def test_what_is_in_place_is_to_be_seen_at_pods(world: World) -> None:
    """While the root before is trusted as well, it is not what they should present."""
    before = root("before")
    world.cluster.self_signed = {CA_CERT: before.certificate, CA_KEY: before.key}
    world.pods.old = ("default/a",)
    assert world.agent.machine.in_place() == ()
    assert world.settle() is State.ISSUED

    [place] = world.agent.machine.in_place()

    data = {key: b64decode(value) for key, value in world.cluster.data().items()}
    assert len(load_certificates(data[ROOT_CERT])) == 2
    assert (place.name, place.namespace, place.fingerprint) == (NAME, ISTIO, fingerprint(data))
    assert (place.trust, place.trust_domains) == ("one", frozenset({"cluster1"}))
    assert (place.roots, place.signer) == (root("one").certificate, data[CA_CERT])
    assert place.written == START

    world.cluster.want(spec(trust="two"))
    world.agent.see()
    assert world.agent.machine.in_place() == ()


def test_status_tells_what_pods_present_under_this_very_cacerts(world: World) -> None:
    assert world.settle() is State.FINISHED
    [place] = world.agent.machine.in_place()
    assert world.cluster.status().workloads is None

    seen = WorkloadCertificates(observed_trust="one", shared=3)
    world.pods.presented[NAME, place.fingerprint] = seen
    assert world.settle() is State.FINISHED
    assert world.cluster.status().workloads == seen

    world.cluster.want(spec(trust="two"))
    world.signer.trust = "two"
    assert world.settle() is State.FINISHED
    assert world.cluster.status().workloads is None
