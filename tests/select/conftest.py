"""A server whose answers are right as often as a row says."""

import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from answering import Scripted

from trl_onevision.data.writer import write_dataset


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
