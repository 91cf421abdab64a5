"""How perturbations grow: QR, the scan, its adjoint, and the spectrum."""

from lyaptorch.tangent.covariant import CovariantVectors, covariant_vectors
from lyaptorch.tangent.growth import Growth
from lyaptorch.tangent.spectrum import Spectrum, lyapunov_spectrum

__all__ = ["CovariantVectors", "Growth", "Spectrum", "covariant_vectors", "lyapunov_spectrum"]
