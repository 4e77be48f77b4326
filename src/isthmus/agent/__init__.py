"""`isthmus-agent`: reports what a cluster has, and writes what the management plane wants it to have.

`outputs` decides, without I/O, what to write and what to prune; `apply` does it; `report` feeds discovery;
`credentials` keeps the secrets; `main` reads the command line and runs them together.
"""
