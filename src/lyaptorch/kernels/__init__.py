"""Fused kernels: whole sequences in compiled code, for cells that are wholly described by a form."""

from lyaptorch.kernels.dispatch import Availability, Settings, available, cpu_refuses, triton_refuses
from lyaptorch.kernels.footprint import Need, footprint, scan_need, unroll_need
from lyaptorch.kernels.library import peak
from lyaptorch.kernels.scan import LARGEST_FRAME, scan_adjoint, scan_forward
from lyaptorch.kernels.unroll import FusedRecurrence, TritonRecurrence

__all__ = [
    "LARGEST_FRAME",
    "Availability",
    "FusedRecurrence",
    "Need",
    "Settings",
    "TritonRecurrence",
    "available",
    "cpu_refuses",
    "footprint",
    "peak",
    "scan_adjoint",
    "scan_forward",
    "scan_need",
    "triton_refuses",
    "unroll_need",
]
