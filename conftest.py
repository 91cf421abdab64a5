"""Before all imports: Triton interpreted where there is no GPU; and what is searched for doctests."""

import os
from importlib.util import find_spec
from pathlib import Path

# whoever imports triton first, be it torch, decides for the whole process
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# what cannot be imported without a library of an extra
INTEGRATIONS = {"lightning": "lightning", "transformers": "transformers"}

collect_ignore = [
    f"src/lyaptorch/integrations/{module}.py"
    for module, library in INTEGRATIONS.items()
    if find_spec(library) is None
]
collect_ignore_glob = (
    [] if find_spec("triton") else ["src/lyaptorch/kernels/triton/*.py", "tests/kernels/triton_compile.py"]
)
