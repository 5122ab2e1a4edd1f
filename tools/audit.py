"""Look the installed packages up among known security holes, with pip-audit.

    python tools/audit.py --seconds 120

The exit code is 1 if a package has a known hole, 0 if none has, and also 0, with the reason
printed, where the service that knows them cannot be reached within the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

_INSTALLER = "pip"
"""Comes with Python; nothing here asks for it."""


def audit(seconds: float) -> tuple[list[str], str | None]:
    """The known holes, one line each, and why there is no answer, if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable"]
        command += ["--format", "json", "--output", str(report), "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                [*command, "--timeout", "10"], capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return [], f"no answer within {seconds:g} s"
        if not report.exists() or not report.read_text().strip():
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            return [], lines[-1]
        packages = json.loads(report.read_text())["dependencies"]
    packages = [package for package in packages if package["name"] != _INSTALLER]
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return [], f"the service knows none of {len(packages)} packages"
    print(f"looked up {len(known)} of {len(packages)} packages")
    return [
        f"{package['name']} {package['version']}: {hole['id']}, mended in "
        f"{', '.join(hole['fix_versions']) or 'no release'}"
        for package in known
        for hole in package["vulns"]
    ], None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    holes, unknown = audit(parser.parse_args().seconds)
    if unknown is not None:
        print(f"skipped: known holes could not be looked up ({unknown})")
        return 0
    print("\n".join(holes) or "none of them has a known hole")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
