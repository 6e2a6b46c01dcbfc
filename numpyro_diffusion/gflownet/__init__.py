"""Generative flow networks: environments, flows as densities over their objects, compositions, and samples."""

from . import molecules
from .environment import Environment
from .flow import Composition, Flow
from .graph import every_state
from .grid import Hypergrid, circle, corners, cosines, diagonal_sigmoid, spheres, symmetric_shubert
from .policy import PolicyNetwork
from .reward import on_host
from .routing import routing
from .run import FlowRun
from .sample import sample
from .sequences import Sequences, motif_reward
from .train import FlowTraining, train

__all__ = [
    "Composition", "Environment", "Flow", "FlowRun", "FlowTraining", "Hypergrid", "PolicyNetwork", "Sequences",
    "circle", "corners", "cosines", "diagonal_sigmoid", "every_state", "molecules", "motif_reward", "on_host",
    "routing", "sample", "spheres", "symmetric_shubert", "train",
]  # fmt: skip
