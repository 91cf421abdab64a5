"""The same, fused: whole sequences in compiled code, for cells that are wholly described by a form."""

from lyaptorch.kernels.dispatch import Availability, available, cpu_refuses
from lyaptorch.kernels.peak import peak
from lyaptorch.kernels.scan import Settings, scan_adjoint, scan_forward
from lyaptorch.kernels.unroll import FusedRecurrence

__all__ = [
    "Availability",
    "FusedRecurrence",
    "Settings",
    "available",
    "cpu_refuses",
    "peak",
    "scan_adjoint",
    "scan_forward",
]
