"""What is done with the services of tenants: cleaning their settings, checking them, watching upstreams."""
