"""What is taken home: an explanation's folder as one zip file."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.saving import safe_name
from gradtoken.explanation.style import Style


def archive(explanation: Explanation, style: Style) -> bytes:
    """The files of `Explanation.save` in a zip: overlays, summary, raw tokens, manifest."""
    with tempfile.TemporaryDirectory(prefix="gradtoken-") as folder:
        explanation.save(folder, style=style)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archived:
            for path in sorted(Path(folder).iterdir()):
                archived.write(path, path.name)
    return buffer.getvalue()


def file_name(explanation: Explanation) -> str:
    """What to call the zip file."""
    path = explanation.sources[0].path
    return f"gradtoken-{safe_name(path.stem)}.zip" if path else "gradtoken-scene.zip"
