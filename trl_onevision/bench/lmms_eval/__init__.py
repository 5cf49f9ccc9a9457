"""R1-Onevision-Bench as a task of lmms-eval: give this folder as `--include_path`."""
