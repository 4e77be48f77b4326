"""What a test may tell one pod of bookinfo, and ask of it: how to answer the next requests, and which ones it got.

Below `/lab/`, for who is in the pod itself:

    kubectl exec deploy/reviews-v1 -- python -m isthmus.lab.client call http://127.0.0.1:9080/lab/fault --method PUT \
      --data '{"status": 500, "requests": 2}'

- `PUT /lab/fault`: answer the next *requests* (all if left out) with *status*, or *seconds* later, or both;
- `DELETE /lab/fault`: answer as usual;
- `GET /lab/requests`: `requests`, each with `at` (since the epoch), `method`, `path`, `query`, `headers` and `status`;
- `DELETE /lab/requests`: forget them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

from isthmus.lab.bookinfo.serving import Answer, Exchange, Request, Service

FAULT, REQUESTS = "/lab/fault", "/lab/requests"
REMEMBERED = 10_000
"""How many requests a pod remembers, the latest."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the next answers."""

    status: int | None = None
    seconds: float = 0.0
    requests: int | None = None
    """How many answers; None for all."""


NONE = Fault()


def directed(service: Service) -> Service:
    """*service*, which also does what it is told below `/lab/`."""
    return _Directed(service).answer


class _Directed:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._fault = NONE
        self._seen: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def answer(self, exchange: Exchange) -> Answer:
        request = exchange.request
        if request.path == FAULT:
            return self._direct(request)
        if request.path == REQUESTS:
            return self._tell(request)
        at, fault = time.time(), self._take_fault()
        time.sleep(fault.seconds)
        failed = fault.status and Answer(fault.status, {"error": "told to fail"})
        answer = failed or self._service(exchange)
        seen = {"at": at, "method": request.method, "path": request.path, "query": request.query}
        with self._lock:
            self._seen.append(seen | {"headers": dict(request.headers), "status": answer.status})
        return answer

    def _take_fault(self) -> Fault:
        with self._lock:
            fault = self._fault
            if fault.requests is not None:
                self._fault = replace(fault, requests=fault.requests - 1) if fault.requests > 1 else NONE
            return fault

    def _direct(self, request: Request) -> Answer:
        try:
            fault = Fault(**json.loads(request.body)) if request.method == "PUT" else NONE
        except (TypeError, ValueError) as error:
            return Answer(400, {"error": str(error)})
        with self._lock:
            self._fault = fault
        return Answer(200, asdict(fault))

    def _tell(self, request: Request) -> Answer:
        with self._lock:
            seen = list(self._seen)
            if request.method == "DELETE":
                self._seen.clear()
        return Answer(200, {"requests": seen})
