"""A stand-in for vLLM with exact timing and faults on demand: `python -m mock_engine --port 0 --model coder`.

`python -m mock_engine --help` has its routes, knobs and control path. The load tests and the tests start it
with `MockEngine`; it runs in their environments and needs only what its requirements.in names.
"""

from mock_engine.process import MockEngine

__all__ = ["MockEngine"]
