"""A server whose answers are right as often as a row says, and a checkpoint that nobody trained."""

import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from answering import Scripted

from trl_onevision.data.writer import write_dataset
from trl_onevision.quickstart.model import build_model, build_processor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    processor = build_processor()
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def server():
    server = Scripted()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def data(tmp_path):
    """Writes rows to a folder."""

    def write(rows, name="data"):
        return str(write_dataset(rows, tmp_path / name))

    return write
