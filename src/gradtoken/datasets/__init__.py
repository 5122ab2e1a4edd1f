"""Pictures with known answers: endless procedural scenes of drawn objects."""

from gradtoken.datasets.scenes import Scene, Scenes

__all__ = ["Scene", "Scenes"]
