"""The page served on this machine, until it is ended."""

import atexit
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from zsteer.explore.studio import Commands, Studio
from zsteer.status import exit_code

PORTS = range(7860, 7960)  # of which the first that is free is taken
WAIT = 2.0  # seconds that the server has to end, and then what is being steered


def serve(cfg: DictConfig, commands: Commands, folder: Path) -> None:
    """Serve the page of a checked config until Ctrl-C or SIGTERM comes; what is kept goes into the folder.

    Raises:
        ValueError, FileNotFoundError: the port cannot be had, or a network or a setting does not fit.
    """
    with closing(listening(cfg.host, cfg.port)) as door:
        import uvicorn

        from zsteer.explore.page import application  # Gradio, which takes seconds

        studio = Studio(cfg, commands)
        config = uvicorn.Config(application(studio, folder), log_level="critical", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        ended, reasons = threading.Event(), []

        def run() -> None:
            try:
                server.run([door])
            except Exception as error:  # whatever ends it, which this thread would print and nobody else know
                reasons.append(f" ({error})")
            finally:
                ended.set()

        # A daemon, as then are the threads in which it steers: none of them outlives this one.
        threading.Thread(target=run, daemon=True).start()
        host, port = door.getsockname()[:2]
        print(f"the page is at http://{f'[{host}]' if ':' in host else host}:{port} until Ctrl-C", flush=True)
        try:
            ended.wait()
            raise ValueError(f"the server of the page has ended{''.join(reasons)}")
        except BaseException as error:
            studio.close()
            server.should_exit = True
            ended.wait(WAIT)
            if not studio.lock.acquire(timeout=WAIT):
                # Something long, which no longer matters; that it goes on while Python ends would make Python abort.
                atexit.register(os._exit, exit_code(error))
            raise


def listening(host: str, port: int | None) -> socket.socket:
    """A socket that listens there, on the first free port from 7860 on if none is named.

    Raises:
        ValueError: there is none.
    """
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        raise ValueError(f"host={host} is no name or address of this machine ({error.strerror})") from error
    reasons = []
    for number in PORTS if port is None else (port,):
        try:
            return socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            reasons.append(os.strerror(error.errno) if error.errno else str(error))
    what = f"host={host} has no free port" if port is None else f"host={host}, port={port} cannot be listened on"
    raise ValueError(f"{what} ({reasons[-1]}); name another")
