"""The learned decision whether a small cluster joins a larger one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faceclust_spark.kernels.graph_convolution import fixed_blocks
from faceclust_spark.kernels.meetings import MEETING_INPUTS
from faceclust_spark.kernels.refine import ROWS_AT_ONCE, round_log_odds

MEMBERS = 3


class Joiner(nn.Module):
    """Log-odds that visitor and host are one person: the mean of MEMBERS small networks.

    Args:
        inputs: width of what describes a meeting (kernels.meetings).
        width: of the first hidden layer; the second has half of it.

    """

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int = MEETING_INPUTS, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, width),
                nn.ReLU(),
                nn.Linear(width, width // 2),
                nn.ReLU(),
                nn.Linear(width // 2, 1),
            )
            for _ in range(MEMBERS)
        )

    def forward(self, meetings: Tensor) -> Tensor:
        """Give the log-odds of each member of the ensemble, `(p, inputs)` to `(p, MEMBERS)`."""
        scaled = (meetings - self.mean) / self.scale
        return torch.cat([member(scaled) for member in self.members], 1)


def join_log_odds(joiner: Joiner, inputs: NDArray[np.float32]) -> NDArray[np.int16]:
    """Give the log-odds of each meeting, in steps of 1/256: int16 `(p,)`, the same in any company.

    Shapes: float32 `(p, MEETING_INPUTS)`. Runs torch on one thread where the caller holds it to one.
    """
    with torch.inference_mode():
        answers = fixed_blocks(ROWS_AT_ONCE)(joiner, torch.from_numpy(inputs)).numpy()
    total = answers[:, 0] + answers[:, 1] + answers[:, 2]  # in this order for any number of rows
    return round_log_odds(total / np.float32(MEMBERS))
