"""Writes config/grafana/dashboards: `.envs/dev/bin/python -m services.monitoring`."""

from services.monitoring.overview import FILE, as_json

FILE.write_text(as_json())
print(f"Wrote {FILE}")
