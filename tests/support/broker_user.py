"""A process that uses the embedded broker until it is told to stop: ``python -m support.broker_user``."""

from __future__ import annotations

import json
import signal
import threading

from penstock.config.redis import connect
from penstock.config.settings import load_settings
from penstock.workers.embedded.broker import embedded_broker


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with embedded_broker(load_settings()) as url:
        client = connect(url)
        print(json.dumps({"url": url, "server": client.info("server")["process_id"]}), flush=True)
        client.close()
        stop.wait()


if __name__ == "__main__":
    main()
