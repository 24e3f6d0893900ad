"""The study loads fast."""

import subprocess
import sys
from pathlib import Path

import batchscape


def test_study_loads_no_numeric_library():
    code = """
import sys
import batchscape.study.study, batchscape.study.fingerprint
heavy = {"numpy", "torch", "pandas", "pytorch_lightning", "optuna", "sklearn", "safetensors"} & set(sys.modules)
sys.exit(f"loaded: {sorted(heavy)}" if heavy else 0)
"""
    library = str(Path(batchscape.__file__).parents[1])
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {library!r})\n{code}"], check=True)
