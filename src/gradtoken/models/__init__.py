"""How a Vision Transformer is read: `load` by name, `wrap` your own."""

from gradtoken.models.load import load, wrap
from gradtoken.models.model import Model, Stream

__all__ = ["Model", "Stream", "load", "wrap"]
