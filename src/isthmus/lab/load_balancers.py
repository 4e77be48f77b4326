"""Gives Services of type LoadBalancer an address, as a cloud would; kube-proxy then takes what is sent there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.errors import Conflict, KubeError, NotFound
from isthmus.kube.events import Manifest, Removed, Replaced
from isthmus.model.kinds import SERVICE

RETRY_SECONDS = 1.0

log = structlog.get_logger("isthmus.lab")
Key = tuple[str, str]


class LoadBalancers:
    """Keeps ``status.loadBalancer`` of one cluster's Services."""

    def __init__(self, kube: KubeClient, addresses: IPv4Network) -> None:
        self._kube = kube
        self._addresses = addresses
        self._services: dict[Key, Manifest] = {}
        self._before: dict[Key, IPv4Address] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._give())

    async def _follow(self) -> None:
        async for told in self._kube.watch(SERVICE):
            if isinstance(told, Replaced):
                self._services = {_key(item): item for item in told.items}
            elif isinstance(told, Removed):
                self._services.pop(_key(told.item), None)
            else:
                self._services[_key(told.item)] = told.item
            self._news.set()

    async def _give(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            given = give(self._services, self._before, self._addresses)
            self._before |= given
            for key, service in list(self._services.items()):
                wanted = [{"ip": str(given[key])}] if key in given else []
                if [{"ip": each.get("ip")} for each in _ingress(service)] == wanted:
                    continue
                patch = {
                    "metadata": {"uid": service["metadata"]["uid"]},
                    "status": {"loadBalancer": {"ingress": wanted}},
                }
                try:
                    await self._kube.patch(SERVICE, *key, patch, subresource="status")
                except (NotFound, Conflict):
                    continue  # deleted meanwhile, or made anew: the watch tells
                except KubeError as error:
                    log.warning("no address written", service="/".join(key), error=str(error))
                    await asyncio.sleep(RETRY_SECONDS)
                    self._news.set()


def give(
    services: Mapping[Key, Manifest], before: Mapping[Key, IPv4Address], addresses: IPv4Network
) -> dict[Key, IPv4Address]:
    """The address of each Service of type LoadBalancer, as far as they go.

    First comes the address that a Service asks for, then the one it has, then the one that it (or an earlier Service
    of its name) had, then a free one.
    """
    asking = {
        key: service for key, service in sorted(services.items()) if service["spec"].get("type") == "LoadBalancer"
    }
    given: dict[Key, IPv4Address] = {}
    free = dict.fromkeys(addresses.hosts())
    wishes = (
        lambda key: asking[key]["spec"].get("loadBalancerIP"),
        lambda key: next((each.get("ip") for each in _ingress(asking[key])), None),
        lambda key: before.get(key),
    )
    for wish in wishes:
        for key in asking:
            address = _address(wish(key))
            if key not in given and address in free:
                given[key] = address
                del free[address]
    # An address that another Service had is the last one to be given away.
    left = sorted(free, key=lambda address: (address in before.values(), address))
    for key, address in zip([key for key in asking if key not in given], left, strict=False):
        given[key] = address
    return given


def _address(text: object) -> IPv4Address | None:
    try:
        return IPv4Address(str(text)) if text else None
    except AddressValueError:
        return None


def _ingress(service: Manifest) -> list[dict[str, str]]:
    return ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def _key(service: Manifest) -> Key:
    return service["metadata"]["namespace"], service["metadata"]["name"]
