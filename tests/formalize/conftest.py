import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import scripted


@pytest.fixture
def models():
    started = []

    def start(rows, **options):
        players = scripted.Models(rows, **options)
        threading.Thread(target=players.server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(players)
        return players

    yield start
    for players in started:
        players.server.shutdown()
        players.server.server_close()
