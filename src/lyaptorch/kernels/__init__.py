"""Fused kernels: whole sequences in compiled code, for cells that are wholly described by a form."""

from lyaptorch.kernels.arguments import Saved, Settings, spread
from lyaptorch.kernels.dispatch import LARGEST_FRAME, Availability, available, preferred, refusal
from lyaptorch.kernels.footprint import Need, footprint, scan_need, unroll_need
from lyaptorch.kernels.fused import FusedRecurrence, scan_adjoint, scan_forward
from lyaptorch.kernels.library import peak

__all__ = [
    "LARGEST_FRAME",
    "Availability",
    "FusedRecurrence",
    "Need",
    "Saved",
    "Settings",
    "available",
    "footprint",
    "peak",
    "preferred",
    "refusal",
    "scan_adjoint",
    "scan_forward",
    "scan_need",
    "spread",
    "unroll_need",
]
