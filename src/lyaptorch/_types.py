"""Shape aliases: what the letters in every public signature mean.

`*e` ensemble dimensions (independent networks), `b` trajectories, `t` steps, `m` input size,
`n` state size, `k` tangent vectors, `s` reorthonormalisation intervals.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Number: TypeAlias = float | Tensor
"""A hyperparameter: one number for all members, or a tensor of shape `*e`."""

Input: TypeAlias = Float[Tensor, "*#e b m"]
Inputs: TypeAlias = Float[Tensor, "t *#e b m"]
Tokens: TypeAlias = Int[Tensor, "b tokens"]
State: TypeAlias = Float[Tensor, "*e b n"]
States: TypeAlias = Float[Tensor, "t *e b n"]
LastStates: TypeAlias = Float[Tensor, "_ *e b n"]
Frame: TypeAlias = Float[Tensor, "*e b n k"]
InputFrame: TypeAlias = Float[Tensor, "*#e b m k"]
Exponents: TypeAlias = Float[Tensor, "*e b k"]
LogR: TypeAlias = Float[Tensor, "s *e b k"]
Healthy: TypeAlias = Bool[Tensor, "s *e b k"]
Steps: TypeAlias = Int[Tensor, " s"] | Int[Tensor, "s *e b"]
PerMember: TypeAlias = Float[Tensor, " *e"]
