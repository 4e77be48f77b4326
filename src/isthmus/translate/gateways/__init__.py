"""Gateways for requests from outside: VirtualGateways, VirtualHosts and RouteTables, as Istio's objects."""
