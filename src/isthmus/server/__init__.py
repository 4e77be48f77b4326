"""`isthmus-server`: the management plane.

`fleet` holds what the clusters reported, `policies` what users wrote, `stored` what the management cluster has of
either; these and `ledger` decide without I/O. `plane` runs the engine on them and publishes; `writer` keeps discovered
objects and statuses on the management cluster; `main` reads the command line and runs them together.
"""
