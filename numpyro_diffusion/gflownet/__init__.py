"""Generative flow networks: environments, flows as densities over their objects, compositions, and samples."""

from . import molecules
from .bounds import bdmc
from .environment import Environment
from .files import load_flow, save_flow
from .flow import Composition, Flow
from .graph import every_state
from .grid import Hypergrid, circle, corners, cosines, diagonal_sigmoid, spheres, symmetric_shubert
from .guided import guided
from .policy import PolicyNetwork
from .reward import on_host
from .routing import routing
from .run import FlowRun
from .sample import sample
from .sequences import Sequences, motif_reward
from .train import FlowTraining, train

__all__ = [
    "Composition", "Environment", "Flow", "FlowRun", "FlowTraining", "Hypergrid", "PolicyNetwork", "Sequences", "bdmc",
    "circle", "corners", "cosines", "diagonal_sigmoid", "every_state", "guided", "load_flow", "molecules",
    "motif_reward", "on_host", "routing", "sample", "save_flow", "spheres", "symmetric_shubert", "train",
]  # fmt: skip
