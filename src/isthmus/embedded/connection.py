"""One HTTP connection, with the user that its client certificate names."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which does not hand the client certificate on, with the user in the scope's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        for part in certificate.get("subject", ()) if certificate else ():
            for key, value in part:
                if key == "commonName":
                    self.app_state = {"user": value}
