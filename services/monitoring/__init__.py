"""The Grafana dashboard, as code. Entry point: __main__.py."""
