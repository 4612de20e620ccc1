"""Load tests: Locust suites, the SLO gate, the benchmark and its report (`python -m loadtests -h`)."""
