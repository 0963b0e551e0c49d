"""One request to an agent's admin endpoint, by Python's own TLS and HTTP.

    python3 -m fencedrive.post HOST ADDRESS PORT IDENTITY PATH BODY

Prints the HTTP status and then the document.
"""

import http.client
import socket
import ssl
import sys

LIMIT_S = 20.0
#: Anything else is turned away in the handshake.
ALPN = "antipode-admin/1"


def main(host, address, port, identity, path, body):
    """Asks once. The agent's certificate must be the named host's."""
    context = ssl.create_default_context(cafile=f"{identity}/ca.pem")
    context.load_cert_chain(f"{identity}/identity.pem")
    context.set_alpn_protocols([ALPN])
    connection = http.client.HTTPConnection(host, timeout=LIMIT_S)
    plain = socket.create_connection((address, int(port)), LIMIT_S)
    with context.wrap_socket(plain, server_hostname=host) as connection.sock:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        print(answer.status)
        print(answer.read().decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
