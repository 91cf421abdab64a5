"""Growth of perturbations: QR, the scan, its adjoint, and the spectrum."""

from lyaptorch.tangent.covariant import CovariantVectors, covariant_vectors
from lyaptorch.tangent.growth import Growth, mean_over_trajectories
from lyaptorch.tangent.lyapunov import depth_spectrum, lyapunov_spectrum
from lyaptorch.tangent.spectrum import Spectrum
from lyaptorch.tangent.stepper import Stepper

__all__ = [
    "CovariantVectors",
    "Growth",
    "Spectrum",
    "Stepper",
    "covariant_vectors",
    "depth_spectrum",
    "lyapunov_spectrum",
    "mean_over_trajectories",
]
