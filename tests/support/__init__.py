"""What tests share: clients, servers, upstreams, and checks. It contains no tests and no fixtures."""
