"""What the names of settings consist of, such as `bs64-lr0.01-beta2_0.99-warmup5`."""

# The parts of the name of a setting, in their order: `bs64-lr0.01-beta2_0.99-warmup5`.
CHANGE_PREFIXES = {
    "beta1": "beta1_",
    "beta2": "beta2_",
    "eps": "eps",
    "weight_decay": "wd",
    "momentum": "momentum",
}
WARMUP_SUFFIXES = {"epochs": "", "steps": "steps", "examples": "examples", "fraction": "pct"}
_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
# The end of the name of a setting whose batch size follows the measured critical one.
BATCH_WARMUP = "-batchwarmup"
SETTING_PATTERN = (
    rf"bs\d+-lr(?:{_NUMBER}|tuned)"
    + "".join(f"(?:-{prefix}{_NUMBER})?" for prefix in CHANGE_PREFIXES.values())
    + rf"(?:-warmup{_NUMBER}(?:steps|examples|pct)?)?"
    + rf"(?:-x\d+at{_NUMBER}(?:steps|examples|pct)?(?:lr{_NUMBER})?)*"
    + r"(?:-grow\d+(?:max\d+)?(?:sqrt)?)?"
    + rf"(?:{BATCH_WARMUP})?"
)
"""What the names of all settings match: the wildcards of rules are constrained to it."""
