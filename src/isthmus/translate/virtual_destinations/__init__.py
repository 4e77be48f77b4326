"""Virtual destinations: one host name for services of several clusters, the nearest healthy one answering."""
