# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run a minimal server for webhooks, with which the webhook benchmark compares our receiver.

The server has one FastAPI route, which reads a JSON body and commits one row to SQLite. The command is
``python -m benchmarks.receiving DATABASE``. The server runs until its standard input ends.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool


def _application(database: str) -> FastAPI:
    app = FastAPI()
    # All webhook requests share one SQLite connection. When the last open connection is closed, SQLite writes the
    # write-ahead log back to the database. With one connection for each request, the measurement would include this
    # work.
    opened = sqlite3.connect(database, check_same_thread=False)
    opened.execute("PRAGMA journal_mode=WAL")  # Airflow uses the same mode for its own SQLite database.
    opened.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, request_id TEXT, status TEXT)")
    lock = threading.Lock()

    def insert(said: dict[str, str]) -> None:
        with lock, opened:
            opened.execute(
                "INSERT INTO event (request_id, status) VALUES (?, ?)", (said["requestId"], said["status"])
            )

    @app.post("/")
    async def receive(request: Request) -> dict[str, str]:
        await run_in_threadpool(insert, await request.json())
        return {"status": "stored"}

    return app


def main() -> None:
    """Start the server, print its port, and serve until the standard input ends."""
    server = uvicorn.Server(uvicorn.Config(_application(sys.argv[1]), "127.0.0.1", 0, log_level="warning"))
    threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    threading.Thread(target=_tell_port, args=(server,), daemon=True).start()
    server.run()


def _tell_port(server: uvicorn.Server) -> None:
    while not server.started:
        threading.Event().wait(0.05)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)


def _end_with_input(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
