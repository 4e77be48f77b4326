"""Traffic policies: how requests to a destination travel, from every cluster whose workloads may send them."""
