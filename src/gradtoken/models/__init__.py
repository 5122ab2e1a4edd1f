"""How a Vision Transformer is read: `load` by name, `wrap` your own."""

from gradtoken.models.load import describes_itself, load
from gradtoken.models.model import Model
from gradtoken.models.wrap import wrap
from gradtoken.models.zero_shot import zero_shot

__all__ = ["Model", "describes_itself", "load", "wrap", "zero_shot"]
