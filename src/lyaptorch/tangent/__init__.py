"""Growth of perturbations: from the arguments of `lyapunov_spectrum` to a `Spectrum`.

`lyapunov` checks its arguments (`start`), has an engine scan (`engine`), and reports (`growth`, `spectrum`).
In torch `scan.sweep` pushes state and frame (`dynamics`), and after every span `qr.orthonormalise` factors
the frame and declares columns dead, which `scan.stack_growth` makes -inf; `adjoint` goes back.
"""

from lyaptorch.tangent.covariant import CovariantVectors, covariant_vectors
from lyaptorch.tangent.engine import engines
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
    "engines",
    "lyapunov_spectrum",
    "mean_over_trajectories",
]
