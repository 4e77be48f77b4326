"""`meshctl access`: answers with exit codes, matrices in every format, and what a change would open."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.agent.ownership import ownership_labels
from isthmus.embedded.istio_crds import istio_definitions
from tests.golden import CASES, Golden, load_yaml
from tests.unit.cli.meshctl import Clusters, meshctl, with_our_kinds

CASE = CASES / "cli" / "access"
FLEET = ("--from", str(CASES / "cli" / "walkthrough" / "in.yaml"), "--from", str(CASE / "policy.yaml"))
CHANGE = ("-f", str(CASE / "change.yaml"))
PRODUCTPAGE, REVIEWS = "default/productpage@cluster1", "default/reviews@cluster2"


def access(*words: str, **more: Any) -> Any:
    """`meshctl access` *words* on the saved fleet."""
    return meshctl("access", *words, *FLEET, **more)


# --- can --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "golden_name"),
    [
        ((PRODUCTPAGE, REVIEWS, "--port", "9080", "--method", "GET", "--path", "/reviews/0"), 0, "yes"),
        (("default/ratings@cluster1", REVIEWS), 1, "no"),
        ((PRODUCTPAGE, REVIEWS, *CHANGE), 3, "depends"),
        ((PRODUCTPAGE, REVIEWS, *CHANGE, "--path", "/admin/x"), 1, "denied"),
        ((PRODUCTPAGE, REVIEWS, "--port", "1"), 1, "no-port"),
        (("default/reviews-v1@cluster1", "default/ratings-v1@cluster2", *CHANGE, "--method", "GET"), 0, "workloads"),
    ],
)
def test_an_answer_says_why_and_its_exit_code_says_which(
    words: tuple[str, ...], code: int, golden_name: str, golden: Golden
) -> None:
    result = access("can", *words)

    assert result.exit_code == code
    golden.check(CASE / f"out.can-{golden_name}.txt", result.output)


def test_an_answer_as_data_names_policies_and_what_they_come_from() -> None:
    result = access("can", PRODUCTPAGE, REVIEWS, "-o", "json")

    assert json.loads(result.stdout) == {
        "caller": PRODUCTPAGE,
        "callee": REVIEWS,
        "answer": "yes",
        "reason": "an ALLOW policy matches",
        "grounds": [
            {
                "about": "",
                "answer": "yes",
                "reason": "an ALLOW policy matches",
                "policies": [
                    {"name": "default/reviews", "action": "ALLOW", "from": ["AccessPolicy gloo-mesh/productpage"]}
                ],
                "dependsOn": [],
            }
        ],
        "unseen": [],
    }
    assert yaml.safe_load(access("can", PRODUCTPAGE, REVIEWS, "-o", "yaml").stdout) == json.loads(result.stdout)


def test_headers_that_are_given_settle_conditions(tmp_path: Path) -> None:
    by_team = {"key": "request.headers[X-Team]", "values": ["web"]}
    write(tmp_path / "own.yaml", own("by-team", "cluster2", {"app": "reviews"}, rules=[{"when": [by_team]}]))
    asked = ("can", "default/details@cluster1", REVIEWS, "-f", str(tmp_path / "own.yaml"))

    codes = [access(*asked, *more).exit_code for more in ((), ("--header", "x-team=web"), ("--header", "x-team=db"))]

    assert codes == [3, 0, 1]


@pytest.mark.parametrize(("port", "code"), [("http", 0), ("9080", 0), ("https", 1)])
def test_a_port_has_a_number_and_a_name(port: str, code: int) -> None:
    result = access("can", PRODUCTPAGE, REVIEWS, "--port", port)

    assert result.exit_code == code
    assert ("has no port https; its ports: 9080 (http)" in result.output) is (code == 1)


def test_a_port_by_name_is_asked_of_every_service_that_has_it() -> None:
    answers = json.loads(access("matrix", "default", "--port", "https", "-o", "json").stdout)["answers"]

    assert {each["answer"] for each in answers} == {"not known there"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reviews", REVIEWS), "'reviews' does not name one object of a cluster"),
        (
            (PRODUCTPAGE, "default/review@cluster2"),
            "called default/review@cluster2; did you mean default/reviews@cluster",
        ),
        ((PRODUCTPAGE, REVIEWS, "--port", "0"), "0 is no port from 1 to 65535"),
        ((PRODUCTPAGE, REVIEWS, "--port", "70000"), "70000 is no port from 1 to 65535"),
        ((PRODUCTPAGE, REVIEWS, "--method", "get"), "'get' is no HTTP method such as GET"),
        ((PRODUCTPAGE, REVIEWS, "--method", "G T"), "'G T' is no HTTP method such as GET"),
        ((PRODUCTPAGE, REVIEWS, "--header", "X-A=1", "--header", "x-a=2"), "x-a is given twice"),
        ((PRODUCTPAGE, REVIEWS, "--delete", "authorizationpolicy/x"), "'x' does not name one object of a cluster"),
        (
            (PRODUCTPAGE, REVIEWS, "--delete", "authorizationpolicy/default/x@cluster2"),
            "no AuthorizationPolicy default/x of a user is known on cluster cluster2",
        ),
        (("default/nobody@cluster1", REVIEWS), "no workload or service is called default/nobody@cluster1"),
        ((PRODUCTPAGE, "default/nothing@cluster2"), "no workload or service is called default/nothing@cluster2"),
        ((PRODUCTPAGE, REVIEWS, "-f", "nowhere.yaml"), "nowhere.yaml: no such file or folder"),
        ((PRODUCTPAGE, REVIEWS, "--delete", "ap/nothing"), "there is no AccessPolicy gloo-mesh/nothing to take away"),
        ((PRODUCTPAGE, REVIEWS, "--delete", "accesspolicy"), "no object is named"),
        ((PRODUCTPAGE, REVIEWS, "--delete", "pod/x"), "'pod' is not a kind of Isthmus"),
        ((PRODUCTPAGE, REVIEWS, "--path", "reviews"), "'reviews' does not begin with /"),
        ((PRODUCTPAGE, REVIEWS, "--header", "x"), "'x' is not of the form NAME=VALUE"),
    ],
)
def test_an_error_is_no_answer(words: tuple[str, ...], message: str) -> None:
    """1 is an answer, so errors have 2."""
    result = access("can", *words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


# --- matrix -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("default", *CHANGE), "matrix.txt"),
        (("default", *CHANGE, "-o", "json"), "matrix.json"),
        (("--cluster", "cluster2", "--callers", "default", "-o", "yaml"), "matrix.yaml"),
        (("default", *CHANGE, "-o", "svg"), "matrix.svg"),
        (("default", *CHANGE, "-o", "html"), "matrix.html"),
    ],
)
def test_a_matrix_in_every_format(words: tuple[str, ...], name: str, golden: Golden) -> None:
    result = access("matrix", *words)

    assert result.exit_code == 0, result.output
    golden.check(CASE / f"out.{name}", result.stdout)


def test_the_picture_has_a_cell_for_every_pair_and_says_what_it_means() -> None:
    answers = json.loads(access("matrix", "default", *CHANGE, "-o", "json").stdout)["answers"]

    drawn = ET.fromstring(access("matrix", "default", *CHANGE, "-o", "svg").stdout)

    space = "{http://www.w3.org/2000/svg}"
    titles = [
        cell.findtext(f"{space}title") or "" for cell in drawn.iter(f"{space}rect") if cell.get("class") == "cell"
    ]
    pairs = sum(len(each["callers"]) * len(each["callees"]) for each in answers if each["answer"] == "yes")
    assert sum(title.endswith(": yes") for title in titles) == pairs > 0
    assert "ratings-v1 → reviews: no" in titles


def test_of_very_many_those_that_are_alike_share_a_line() -> None:
    many = [workload(f"client-{number}") for number in range(70)]

    plain = meshctl("access", "matrix", "default", *FLEET, "--from", "-", "-o", "svg", input=yaml.safe_dump_all(many))

    assert plain.exit_code == 0
    assert "client-0 +" in plain.stdout
    assert "client-69" not in plain.stdout


def test_a_namespace_without_services_is_said_to_be_empty() -> None:
    result = access("matrix", "nowhere")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No services found.\n")


# --- diff -------------------------------------------------------------------------------------------------------------


def test_a_change_that_opens_something_has_exit_code_2(golden: Golden) -> None:
    result = access("matrix", "--diff", *CHANGE)

    assert result.exit_code == 2
    golden.check(CASE / "out.diff.txt", result.stdout)


def test_a_change_that_only_closes_has_exit_code_0() -> None:
    result = access("matrix", "--diff", "--delete", "accesspolicy/productpage", "-o", "json")

    data = json.loads(result.stdout)
    assert (result.exit_code, data["opens"], data["closes"]) == (0, False, True)
    assert data["changes"] == [
        {
            "opens": False,
            "closes": True,
            "before": "yes",
            "after": "no",
            "callers": ["default/productpage-v1@cluster1"],
            "callees": [
                f"default/{name}@{cluster}" for cluster in ("cluster1", "cluster2") for name in ("details", "reviews")
            ],
        }
    ]


def test_what_is_applied_already_changes_nothing() -> None:
    result = access("matrix", "--diff", "-f", str(CASE / "policy.yaml"))

    assert (result.exit_code, result.stdout) == (0, "Nothing opens and nothing closes.\n")


def test_a_virtual_mesh_that_no_longer_denies_opens_all_that_no_policy_guards(tmp_path: Path) -> None:
    virtual_mesh = next(each for each in load_yaml(CASES / "cli/walkthrough/in.yaml") if each["kind"] == "VirtualMesh")
    write(tmp_path / "open.yaml", {**virtual_mesh, "spec": {**virtual_mesh["spec"], "globalAccessPolicy": "DISABLED"}})

    result = access("matrix", "default", "--diff", "-f", str(tmp_path / "open.yaml"), "-o", "json")

    opened = {callee for change in json.loads(result.stdout)["changes"] for callee in change["callees"]}
    assert result.exit_code == 2
    assert opened == {f"default/{n}@{c}" for n in ("productpage", "ratings") for c in ("cluster1", "cluster2")}


def test_a_policy_with_a_fault_of_its_own_is_told(tmp_path: Path) -> None:
    """It closes its destinations, whatever else it says."""
    policy = load_yaml(CASE / "policy.yaml")[0]
    faulty = {**policy, "spec": {**policy["spec"], "allowedMethods": ["get"]}}
    write(tmp_path / "faulty.yaml", faulty)

    result = access("matrix", "--diff", "-f", str(tmp_path / "faulty.yaml"), "-o", "json")

    name = policy["metadata"]["name"]
    assert (result.exit_code, json.loads(result.stdout)["closes"]) == (0, True)
    assert f"note: AccessPolicy gloo-mesh/{name} has a fault and allows nobody: spec.allowedMethods[0]" in result.stderr


def test_a_virtual_gateway_opens_the_pods_of_the_services_that_it_selects(tmp_path: Path) -> None:
    gateway = {
        "apiVersion": "networking.enterprise.mesh.gloo.solo.io/v1beta1",
        "kind": "VirtualGateway",
        "metadata": {"name": "front", "namespace": "gloo-mesh"},
        "spec": {
            "ingressGatewaySelectors": [
                {
                    "portName": "http",
                    "destinationSelectors": [
                        {"kubeServiceMatcher": {"labels": {"app": "ratings"}, "clusters": ["cluster1"]}}
                    ],
                }
            ],
            "connectionHandlers": [{"http": {"routeConfig": [{"virtualHostSelector": {"namespaces": ["*"]}}]}}],
        },
    }
    write(tmp_path / "gateway.yaml", gateway)

    result = access("matrix", "default", "--diff", "-f", str(tmp_path / "gateway.yaml"), "-o", "json")
    taken = access(
        "matrix", "--diff", "--delete", "virtualgateway/front", "--from", str(tmp_path / "gateway.yaml"), "-o", "json"
    )

    opened = {callee for change in json.loads(result.stdout)["changes"] for callee in change["callees"]}
    closed = {callee for change in json.loads(taken.stdout)["changes"] for callee in change["callees"]}
    assert (result.exit_code, taken.exit_code) == (2, 0)
    assert opened == closed == {"default/ratings@cluster1"}


def test_a_comparison_of_some_destinations_says_what_one_of_all_would(tmp_path: Path) -> None:
    """Changes of AccessPolicies read only what they select; with a VirtualMesh among them everything is read."""
    virtual_mesh = next(each for each in load_yaml(CASES / "cli/walkthrough/in.yaml") if each["kind"] == "VirtualMesh")
    write(tmp_path / "same.yaml", virtual_mesh)

    some = access("matrix", "--diff", *CHANGE, "-o", "json")
    every = access("matrix", "--diff", *CHANGE, "-f", str(tmp_path / "same.yaml"), "-o", "json")

    assert some.exit_code == every.exit_code == 2
    assert some.stdout == every.stdout


def test_a_service_beside_the_one_that_is_selected_may_have_its_pods(tmp_path: Path) -> None:
    """And a port that the selected one has not."""
    reviews = next(
        each
        for each in load_yaml(CASES / "cli/walkthrough/in.yaml")
        if each["metadata"]["name"] == "reviews-default-cluster1"
    )
    service = reviews["spec"]["kubeService"]
    port = {**service["ports"][0], "port": 9090, "targetPortNumber": 9090}
    beside = {**service, "ref": {**service["ref"], "name": "beside"}, "labels": {}, "ports": [port]}
    write(
        tmp_path / "beside.yaml",
        {
            **reviews,
            "metadata": {"name": "beside", "namespace": "gloo-mesh"},
            "spec": {**reviews["spec"], "kubeService": beside},
        },
    )
    policy = {
        "apiVersion": "networking.mesh.gloo.solo.io/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": "more", "namespace": "gloo-mesh"},
        "spec": {
            "destinationSelector": [{"kubeServiceMatcher": {"labels": {"app": "reviews"}, "clusters": ["cluster1"]}}],
            "allowedPorts": [9090],
        },
    }
    write(tmp_path / "more.yaml", policy)

    result = access(
        "matrix", "--diff", "-f", str(tmp_path / "more.yaml"), "--from", str(tmp_path / "beside.yaml"), "-o", "json"
    )

    opened = {callee for change in json.loads(result.stdout)["changes"] for callee in change["callees"]}
    assert (result.exit_code, opened) == (2, {"default/beside@cluster1"})


def test_a_policy_on_a_service_of_the_root_namespace_counts_for_its_labels_everywhere(tmp_path: Path) -> None:
    """Also where only another namespace is asked about."""
    reviews = next(
        each
        for each in load_yaml(CASES / "cli/walkthrough/in.yaml")
        if each["metadata"]["name"] == "reviews-default-cluster1"
    )
    service = reviews["spec"]["kubeService"]
    root = {**service, "ref": {**service["ref"], "namespace": "istio-system"}, "labels": {"only": "root"}}
    write(
        tmp_path / "root.yaml",
        {
            **reviews,
            "metadata": {"name": "root", "namespace": "gloo-mesh"},
            "spec": {**reviews["spec"], "kubeService": root},
        },
    )
    policy = {
        "apiVersion": "networking.mesh.gloo.solo.io/v1",
        "kind": "AccessPolicy",
        "metadata": {"name": "root", "namespace": "gloo-mesh"},
        "spec": {"destinationSelector": [{"kubeServiceMatcher": {"labels": {"only": "root"}}}]},
    }
    write(tmp_path / "policy.yaml", policy)
    change = ("-f", str(tmp_path / "policy.yaml"), "--from", str(tmp_path / "root.yaml"))

    diff = access("matrix", "default", "--diff", *change, "-o", "json")
    can = access("can", "default/ratings@cluster1", "default/reviews@cluster1", *change)

    opened = {callee for each in json.loads(diff.stdout)["changes"] for callee in each["callees"]}
    assert (diff.exit_code, opened, can.exit_code) == (2, {"default/reviews@cluster1"}, 0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--diff",), 2, "needs a change"),
        (("--diff", *CHANGE, "-o", "svg"), 2, "svg draws a whole matrix"),
        (("--diff", "-f", str(CASES / "cli/walkthrough/in.yaml")), 1, "KubernetesCluster is none of the kinds"),
        (("nowhere", "--diff", *CHANGE), 1, "no services are chosen, so nothing can be compared"),
        (("--cluster", "cluster9", "--diff", *CHANGE), 1, "no services are chosen, so nothing can be compared"),
        (("--callers", "nowhere", "--diff", *CHANGE), 1, "no callers are chosen, so nothing can be compared"),
        (("--diff", *CHANGE, *CHANGE), 1, "AccessPolicy gloo-mesh/ratings stands twice"),
    ],
)
def test_a_comparison_that_cannot_be_made(words: tuple[str, ...], code: int, message: str) -> None:
    result = access("matrix", *words)

    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no object in"),
        ("---\n---\n", "there is no object in"),
        ("a: [b\n", "change.yaml: line 2, column 1"),
        ("just text\n", "a Kubernetes object was expected, found str"),
        ("metadata: {name: x}\n", "what has no kind is none of the kinds"),
        (
            "apiVersion: networking.mesh.gloo.solo.io/v9\nkind: AccessPolicy\nmetadata: {name: x}\n",
            "v9 has no AccessPolicy",
        ),
        ("apiVersion: example.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\n", "has no AuthorizationPolicy"),
    ],
)
def test_what_is_no_change_does_not_pass_for_one_that_opens_nothing(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "change.yaml").write_text(text)

    result = access("matrix", "--diff", "-f", str(tmp_path / "change.yaml"))

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in " ".join(result.stderr.split())


def test_a_policy_of_a_user_is_for_a_cluster_that_is_known_and_stands_once(tmp_path: Path) -> None:
    write(tmp_path / "nowhere.yaml", own("mine", "cluster9", {}))
    write(tmp_path / "twice.yaml", own("mine", "cluster2", {}), own("mine", "cluster2", {}))

    nowhere, twice = (access("matrix", "--diff", "-f", str(tmp_path / f"{name}.yaml")) for name in ("nowhere", "twice"))

    assert (nowhere.exit_code, twice.exit_code) == (1, 1)
    assert "AuthorizationPolicies are for cluster cluster9, of which no mesh is known" in nowhere.stderr
    assert "AuthorizationPolicy default/mine on cluster cluster2 stands twice" in twice.stderr


def test_a_policy_of_a_user_that_is_taken_away_opens_what_it_denied(tmp_path: Path) -> None:
    """Of whatever namespaces is asked; it is read from files here, from clusters elsewhere."""
    denying = own("mine", "cluster2", {"app": "reviews"}, action="DENY", rules=[{}])
    write(tmp_path / "own.yaml", denying)

    result = access(
        "matrix", "--diff", "--delete", "AuthorizationPolicy/default/mine@cluster2",
        "--from", str(tmp_path / "own.yaml"), "-o", "json",
    )  # fmt: skip

    changes = json.loads(result.stdout)["changes"]
    assert result.exit_code == 2
    assert [(each["callers"], each["callees"]) for each in changes] == [
        (["default/productpage-v1@cluster1"], ["default/reviews@cluster2"])
    ]


def test_a_policy_of_a_user_must_name_its_cluster(tmp_path: Path) -> None:
    lost = own("lost", "", {})
    del lost["metadata"]["annotations"]
    write(tmp_path / "lost.yaml", lost)

    result = access("matrix", "--diff", "-f", str(tmp_path / "lost.yaml"))

    assert result.exit_code == 1
    assert "AuthorizationPolicy default/lost does not say on which cluster it is" in result.stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rules": {}}, "Expected `array | null`, got `object` - at `$.spec.rules`"),
        ({"action": "PERMIT"}, "Invalid enum value 'PERMIT' - at `$.spec.action`"),
        ({"rules": [{"form": []}]}, "unknown field `form` - at `$.spec.rules[0]`"),
        ({"rules": [{"from": [{"source": {"principal": ["x"]}}]}]}, "unknown field `principal`"),
        ({"rules": [{"to": [{"operation": {"notMethod": ["x"]}}]}]}, "unknown field `notMethod`"),
        ({"rules": [{"to": [{"operation": {"ports": [80]}}]}]}, "Expected `str`, got `int`"),
    ],
)
def test_a_policy_of_a_user_that_cannot_be_read_is_an_error(spec: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What an API server would leave out may be all that a rule asks for."""
    write(tmp_path / "own.yaml", own("bad", "cluster1", {}, **spec))

    result = access("matrix", "--diff", "-f", str(tmp_path / "own.yaml"))

    assert (result.exit_code, result.stdout) == (1, "")
    assert message in " ".join(result.stderr.split())


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """The walk-through's management cluster with a policy, and cluster2 with a policy of ours and one of a user's."""
    ours = own("reviews", "cluster2", {"app": "reviews"})
    ours["metadata"]["labels"] = ownership_labels("cluster2", "gloo-mesh")
    theirs = own(
        "mine", "cluster2", {"app": "reviews"}, action="DENY", rules=[{"to": [{"operation": {"paths": ["/x"]}}]}]
    )
    with Clusters(tmp_path_factory.mktemp("access"), ["mgmt", "cluster2"]).running() as clusters:
        with_our_kinds(clusters, "mgmt")
        clusters.load("mgmt", *load_yaml(CASES / "cli/walkthrough/in.yaml"), *load_yaml(CASE / "policy.yaml"))
        clusters.load("cluster2", *istio_definitions(), ours, theirs)
        yield clusters


def test_clusters_are_asked_for_policies_that_users_wrote(running: Clusters) -> None:
    """Ours are those that the management plane wants, not those that happen to be there."""
    words = ("access", "can", PRODUCTPAGE, REVIEWS, "--kubecontext", "mgmt")

    plain = meshctl(*words, "--path", "/reviews/0", kubeconfig=running.kubeconfig)
    denied = meshctl(*words, "--path", "/x", kubeconfig=running.kubeconfig)

    assert plain.exit_code == 0
    assert denied.exit_code == 1
    assert "DENY default/mine" in denied.stdout
    assert plain.stderr == (
        "note: AuthorizationPolicies that users wrote are not counted in on cluster cluster1: "
        "no context leads there (--cluster-context)\n"
    )


def test_a_context_can_be_named_and_trouble_with_it_is_told(running: Clusters) -> None:
    named = ("--cluster-context", "cluster1=cluster2", "--cluster-context", "cluster2=nowhere")

    result = meshctl(
        "access", "matrix", "default", *named, "--kubecontext", "mgmt", "-o", "json", kubeconfig=running.kubeconfig
    )

    assert result.exit_code == 0
    (unseen,) = json.loads(result.stdout)["unseen"]
    assert unseen.startswith("cluster2: ")
    assert "nowhere" in unseen


def test_names_are_completed(running: Clusters) -> None:
    words = f"meshctl access can --kubeconfig {running.kubeconfig} --kubecontext mgmt default/pro"
    asked = {"_MESHCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}

    ran = subprocess.run([Path(sys.executable).with_name("meshctl")], env=asked, capture_output=True, text=True)

    assert ran.stdout.split() == [
        "default/productpage-v1@cluster1",
        "default/productpage-v1@cluster2",
        "default/productpage@cluster1",
        "default/productpage@cluster2",
    ]


# --- objects ----------------------------------------------------------------------------------------------------------


def own(name: str, cluster: str, labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    """An AuthorizationPolicy of a user for pods with *labels* on *cluster*."""
    return {
        "apiVersion": "security.istio.io/v1beta1",
        "kind": "AuthorizationPolicy",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"cluster.multicluster.solo.io/name": cluster},
        },
        "spec": {"selector": {"matchLabels": labels}, **spec},
    }


def workload(name: str) -> dict[str, Any]:
    """A Deployment of cluster1."""
    return {
        "apiVersion": "discovery.mesh.gloo.solo.io/v1",
        "kind": "Workload",
        "metadata": {"name": f"{name}-default-cluster1", "namespace": "gloo-mesh"},
        "spec": {
            "kubernetes": {
                "controller": {"name": name, "namespace": "default", "clusterName": "cluster1"},
                "serviceAccountName": name,
            },
            "mesh": {"name": "istiod-istio-system-cluster1", "namespace": "gloo-mesh"},
        },
    }


def write(path: Path, *objects: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump_all(objects))
