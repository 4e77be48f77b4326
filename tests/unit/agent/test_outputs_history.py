"""Whatever happens in whatever order, the cluster ends as desired, and nobody else's object is ever touched."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isthmus.agent.outputs import Batch, Outputs, Prune, Write
from isthmus.istio.kinds import SERVICE_ENTRY
from isthmus.model.ref import ObjectKey
from isthmus.program.work import WorkQueue
from tests.unit.agent.test_outputs import OURS, entry, key, record

NAMES = st.sampled_from("abc")
HOSTS = st.sampled_from(["x.global", "y.global"])
Manifest = dict[str, Any]


class History(RuleBasedStateMachine):
    """A server that sends, users that meddle, a watch that lags and breaks, and the agent in between."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Manifest] = {}
        self.version = 0
        self.news: list[tuple[str, Manifest]] = []  # what the watch has still to tell
        self.wanted: dict[str, str] = {}
        self.complete = False
        self.listed = False
        self.restart()

    # --- the cluster ---

    def store(self, name: str, manifest: Manifest) -> Manifest:
        self.version += 1
        before = self.objects.get(name)
        uid = before["metadata"]["uid"] if before else f"{name}-{self.version}"
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version), "uid": uid}
        self.objects[name] = {**manifest, "metadata": metadata}
        self.news.append(("changed", self.objects[name]))
        return self.objects[name]

    def drop(self, name: str) -> None:
        gone = self.objects.pop(name, None)
        if gone is not None:
            self.version += 1
            metadata = {**gone["metadata"], "resourceVersion": str(self.version)}
            self.news.append(("removed", {**gone, "metadata": metadata}))

    # --- the agent ---

    def add(self, batch: Batch) -> None:
        self.queue.add(batch, 0)

    def work(self) -> bool:
        name = self.queue.take(0)
        if name is None:
            return False
        action = self.outputs.decide(name)
        there = self.objects.get(name.name)
        # The watch lags, so that the agent may not know yet that a user took the name. That is the one race that
        # server-side apply can't exclude; it is left out here.
        if isinstance(action, Write) and (there is None or owned(there)):
            self.outputs.wrote(name, action, self.store(name.name, action.manifest))
        elif isinstance(action, Prune):
            assert self.listed
            assert self.complete
            assert name.name not in self.wanted
            meta = there["metadata"] if there else {}
            if (meta.get("uid"), meta.get("resourceVersion")) == (action.uid, action.resource_version):
                assert there is not None
                assert owned(there)
                self.drop(name.name)
        self.queue.done(name)
        return True

    @rule()
    def restart(self) -> None:
        """The agent starts anew: it knows neither the cluster nor what is wanted."""
        self.outputs = Outputs("cluster1", "gloo-mesh")
        self.queue: WorkQueue[ObjectKey] = WorkQueue()
        self.listed = False
        self.complete = False
        self.news = []

    @rule()
    def list_again(self) -> None:
        self.news = []
        self.listed = True
        self.add(self.outputs.replaced(SERVICE_ENTRY, list(self.objects.values())))

    @rule()
    def watch(self) -> None:
        if self.listed and self.news:
            verb, item = self.news.pop(0)
            tell = self.outputs.changed if verb == "changed" else self.outputs.removed
            self.add(tell(SERVICE_ENTRY, item))

    @rule(changes=st.dictionaries(NAMES, st.none() | HOSTS), complete=st.booleans())
    def receive(self, changes: dict[str, str | None], complete: bool) -> None:
        for name, host in changes.items():
            if host is None:
                self.wanted.pop(name, None)
            else:
                self.wanted[name] = host
        if complete and not self.complete:  # after a restart the relay sends everything once
            delta: dict[str, bytes | None] = dict.fromkeys(self.outputs.records())
            for name, host in self.wanted.items():
                delta |= record(name, host)
        else:
            delta = {}
            for name, host in changes.items():
                delta |= record(name, host) if host else {str(key(name)): None}
        self.complete = complete
        self.add(self.outputs.receive(delta, complete=complete))

    @rule()
    def work_a_little(self) -> None:
        self.work()

    @rule(name=NAMES, host=HOSTS, ours=st.booleans())
    def meddle(self, name: str, host: str, ours: bool) -> None:
        self.store(name, entry(name, host, labels={**OURS} if ours else {}))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.drop(name)

    @invariant()
    def others_are_only_touched_by_others(self) -> None:
        for name, item in self.objects.items():
            assert owned(item) or item["metadata"]["labels"] == {}, name

    def teardown(self) -> None:
        self.receive({}, complete=True)
        self.list_again()
        while self.work() or self.news:
            self.watch()
        ours = {name: item["spec"]["hosts"][0] for name, item in self.objects.items() if owned(item)}
        others = {name for name, item in self.objects.items() if not owned(item)}
        assert ours == {name: host for name, host in self.wanted.items() if name not in others}


def owned(item: Manifest) -> bool:
    return bool(OURS.items() <= item["metadata"]["labels"].items())


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=200, stateful_step_count=40)
