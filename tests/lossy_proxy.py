"""A proxy before a server on loopback that loses one answer: twin of a line that breaks."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class LossyProxy:
    """Forwards bytes both ways. The n-th piece that the server answers with, over all connections,
    is lost with its connection: the server has done what it was asked."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.lost_at = 0  # 0: none
        self.answers = 0
        self._server = server
        self._counting = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._let_in, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _let_in(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._server)
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while (data := source.recv(1 << 16)) and not (is_answer and self._loses_this()):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _loses_this(self) -> bool:
        with self._counting:
            self.answers += 1
            return self.answers == self.lost_at
