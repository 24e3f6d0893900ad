"""The report of a study that is not complete: what it is made of, what it says is missing, and why."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from batchscape.files import write_json
from batchscape.frames import write_frame
from batchscape.partial_report import Collector, write_partial_report
from batchscape.study import Study
from tests.unit.test_analysis import write_run
from tests.unit.test_page import Page
from tests.unit.test_report import STUDY_OF_RUNS, made_up_analyses

SETTINGS = {
    "name": "s",
    "grid": {"batch_sizes": [32, 64], "learning_rates": [0.1], "seeds": [0, 1]},
    "comparison": {"fixed_lr": 0.1, "high_lr": 0.1},
    "arms": {"linear": {"enabled": False}, "sqrt": {"enabled": False}, "tuned": {"enabled": False}},
    "tuning": {"enabled": False},
    **{name: {"enabled": False} for name in ("interpolation", "landscape", "gradient_alignment", "device_timing")},
}
