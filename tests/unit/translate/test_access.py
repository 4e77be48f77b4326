"""What changes under an access policy: services that come and go, trust domains; and lists of very many callers."""

from __future__ import annotations

import msgspec

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec, AccessPolicyStatus
from isthmus.api.base import Resource
from isthmus.api.common import ApprovalState, ClusterObjectRef, IdentitySelector, KubeServiceAccountRefs
from isthmus.api.discovery import Mesh
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.istio.objects import AuthorizationPolicy
from isthmus.translate import Engine, StatusKey, Translation
from isthmus.translate.access.rules import MOST_BYTES
from tests.unit.translate.fleets import engine_of, federated_pair, mesh, meta, service

ETCD_BYTES = 1_500_000  # of one request, https://etcd.io/docs/v3.5/dev-guide/limit/


def policy(*accounts: str, namespace: str = "default") -> AccessPolicy:
    """Lets service accounts of cluster1 call everything."""
    found = tuple(ClusterObjectRef(name=name, namespace=namespace, cluster_name="cluster1") for name in accounts)
    source = IdentitySelector(kube_service_account_refs=KubeServiceAccountRefs(service_accounts=found))
    return AccessPolicy(metadata=meta("callers"), spec=AccessPolicySpec(source_selector=(source,)))


def running(*found: Resource) -> Engine:
    engine = engine_of(found)
    engine.run()
    return engine


def written(delta: Translation) -> dict[tuple[str, str], AuthorizationPolicy | None]:
    """The AuthorizationPolicies that a run has changed, by cluster and name."""
    found = {}
    for key, output in delta.outputs.items():
        if key.object.kind == AUTHORIZATION_POLICY.kind:
            made = output.object if output is not None else None
            assert made is None or isinstance(made, AuthorizationPolicy)
            found[key.cluster, key.object.name] = made
    return found


def principals(made: AuthorizationPolicy | None) -> list[str]:
    assert made is not None
    return [name for rule in made.spec.rules for caller in rule.from_ for name in caller.source.principals]


def test_a_service_that_appears_later_is_covered_by_the_policies_there_are() -> None:
    """On whichever cluster, without a new write of the policy, and nothing else is written for it."""
    engine = running(*federated_pair(), policy("client"))

    engine.set(service("cluster2", "late"))
    delta = engine.run()

    found = written(delta)
    assert list(found) == [("cluster2", "late")]
    assert principals(found["cluster2", "late"]) == ["cluster1/ns/default/sa/client"]


def test_a_service_that_goes_takes_its_rules_along() -> None:
    engine = running(*federated_pair(), service("cluster2", "late"), policy("client"))

    gone = service("cluster2", "late")
    engine.remove(gone.KIND, gone.metadata.namespace, gone.metadata.name)

    assert written(engine.run()) == {("cluster2", "late"): None}


def test_a_trust_domain_that_changes_goes_into_every_rule_in_one_run() -> None:
    """With the old one beside it while it is an alias, so that pods that still show it are not refused."""
    engine = running(*federated_pair(), policy("client"))
    before = {key: made for key, made in written(everything(engine)).items() if made and made.spec.rules}
    assert {name for made in before.values() for name in principals(made)} == {"cluster1/ns/default/sa/client"}

    engine.set(with_domain("renewed", "cluster1"))
    during = written(engine.run())
    engine.set(with_domain("renewed"))
    after = written(engine.run())

    assert {*during} == {*before} == {*after}
    both = ["cluster1/ns/default/sa/client", "renewed/ns/default/sa/client"]
    assert all(principals(made) == both for made in during.values())
    assert all(principals(made) == ["renewed/ns/default/sa/client"] for made in after.values())


def test_cluster_local_names_nobody_where_proxies_take_it_for_their_own_domain() -> None:
    """There productpage of cluster2 would pass for that of cluster1, whose trust domain cluster.local is."""
    asked = policy("client")
    engine = running(*federated_pair(), asked, with_domain("cluster.local"))

    found = {cluster: made for (cluster, name), made in written(everything(engine)).items() if name == "reviews"}

    assert principals(found["cluster1"]) == ["cluster.local/ns/default/sa/client"]
    assert found["cluster2"] is not None
    assert found["cluster2"].spec.rules == ()  # nobody
    status = engine.status(StatusKey(AccessPolicy.KIND, asked.metadata.namespace, asked.metadata.name))
    assert isinstance(status, AccessPolicyStatus)
    assert status.destinations["reviews-default-cluster1.gloo-mesh."].state is ApprovalState.ACCEPTED
    refused = status.destinations["reviews-default-cluster2.gloo-mesh."]
    assert refused.state is ApprovalState.INVALID
    assert "set a trustDomain on cluster cluster1" in refused.errors[0]


def test_an_alias_cluster_local_is_left_out_where_proxies_take_it_for_their_own_domain() -> None:
    engine = running(*federated_pair(), policy("client"), with_domain("cluster1", "cluster.local"))

    found = {cluster: made for (cluster, name), made in written(everything(engine)).items() if name == "reviews"}

    assert principals(found["cluster1"]) == ["cluster.local/ns/default/sa/client", "cluster1/ns/default/sa/client"]
    assert principals(found["cluster2"]) == ["cluster1/ns/default/sa/client"]


def with_domain(domain: str, *aliases: str) -> Mesh:
    """The mesh of cluster1 with another trust domain."""
    found = mesh("cluster1", aliases=aliases)
    assert found.spec.istio is not None
    istio = msgspec.structs.replace(found.spec.istio, trust_domain=domain)
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, istio=istio))


def everything(engine: Engine) -> Translation:
    """Everything that *engine* wants, as if of one run."""
    return Translation(dict(engine.outputs()), (), None)


def test_five_thousand_accounts_are_split_into_objects_that_a_cluster_takes() -> None:
    names = tuple(f"{number:0200}" for number in range(5000))
    engine = running(*federated_pair(), policy(*names, namespace="n" * 63))

    found = {key: made for key, made in written(everything(engine)).items() if key[1].startswith("reviews")}

    of_cluster = {name: made for (cluster, name), made in found.items() if cluster == "cluster2"}
    assert set(of_cluster) >= {"reviews", "reviews.2"}
    assert sorted(name for made in of_cluster.values() for name in principals(made)) == [
        f"cluster1/ns/{'n' * 63}/sa/{name}" for name in names
    ]
    for made in of_cluster.values():
        assert made is not None
        assert len(made.payload()) < MOST_BYTES + 2_000 < ETCD_BYTES
        assert made.spec.selector == of_cluster["reviews"].spec.selector  # type: ignore[union-attr]
