"""An HTTPS server that plays an identity provider by a script, and notes what was asked.

For the answers a real provider gives once in a while; what Keycloak does is in
`tests/journeys/test_identity_provider.py`.
"""

import contextlib
import json
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers.tls import write_certificate


class ScriptedProvider:
    """`answers[path]` is a list of (status, bytes or JSON value); the last one is repeated.

    With the status None the bytes are all that is sent.
    """

    def __init__(self, folder):
        self.answers, self.asked = {}, []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(None)

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                self._answer(dict(urllib.parse.parse_qsl(self.rfile.read(length).decode())))

            def _answer(self, form):
                provider.asked.append((self.path, form))
                script = provider.answers.get(self.path, [(404, b"")])
                status, body = script.pop(0) if len(script) > 1 else script[0]
                if status is None:
                    self.wfile.write(body)
                    self.close_connection = True
                    return
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", provider.issuer + "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.ca, key = write_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.context = ssl.create_default_context(cafile=str(self.ca))
        self.issuer = f"https://localhost:{self._server.server_address[1]}"
        self.answers["/.well-known/openid-configuration"] = [(200, self.document())]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def document(self, **changes):
        """The discovery document."""
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "device_authorization_endpoint": f"{self.issuer}/device",
        } | changes

    def stop(self):
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def scripted_provider(folder):
    """Run one."""
    provider = ScriptedProvider(folder)
    try:
        yield provider
    finally:
        provider.stop()
