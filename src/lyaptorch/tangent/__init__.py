"""How perturbations grow: QR, the scan, its adjoint, and the spectrum."""

from lyaptorch.tangent.growth import Growth
from lyaptorch.tangent.spectrum import Spectrum, lyapunov_spectrum

__all__ = ["Growth", "Spectrum", "lyapunov_spectrum"]
