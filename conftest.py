"""What cannot be imported without a library of an extra is not searched for doctests."""

from importlib.util import find_spec

INTEGRATIONS = {"lightning": "lightning", "transformers": "transformers"}

collect_ignore = [
    f"src/lyaptorch/integrations/{module}.py"
    for module, library in INTEGRATIONS.items()
    if find_spec(library) is None
]
collect_ignore_glob = (
    [] if find_spec("triton") else ["src/lyaptorch/kernels/triton/*.py", "tests/triton_compile.py"]
)
