"""A certificate authority of the tests' own, with a server's and a client's certificate for 127.0.0.1 and localhost."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificates"]

CERTIFICATE = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

# Of their own, as each system's openssl.cnf adds something else, and strict as Python 3.13 demands.
EXTENSIONS = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
"""


@dataclass(frozen=True)
class Certificates:
    """PEM files: ``ca.crt``, and ``server`` and ``client`` as ``.crt`` and ``.key``."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Made with openssl, 0.1 s, unless they are there."""
        made = cls(folder)
        if not made.client_key.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "openssl.cnf").write_text(EXTENSIONS)
            made._certify("ca", "ca")
            for name in ("server", "client"):
                made._certify(name, "leaf", "-CA", "ca.crt", "-CAkey", "ca.key")
            made.server_chain.write_text(made.server_key.read_text() + made.server.read_text())
        return made

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def server(self) -> Path:
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.folder / "server.key"

    @property
    def server_chain(self) -> Path:
        """Key and certificate in one file, as Kafka wants them."""
        return self.folder / "server.pem"

    @property
    def client(self) -> Path:
        return self.folder / "client.crt"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"

    def _certify(self, name: str, extensions: str, *more: str) -> None:
        chosen = ("-config", "openssl.cnf", "-extensions", extensions, "-subj", f"/CN=tests {name}")
        command = ["openssl", *CERTIFICATE, *chosen, *more, "-keyout", f"{name}.key", "-out", f"{name}.crt"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert not done.returncode, f"{' '.join(command)}:\n{done.stderr}"
