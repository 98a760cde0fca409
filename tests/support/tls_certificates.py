"""Certificates of an authority, a server and a client on loopback, made by openssl."""

import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> dict[str, str]:
    names = ["ca", "server", "client"]
    files = {
        f"{name}.{kind}": str(folder / f"{name}.{kind}") for name in names for kind in ("key", "crt", "csr")
    }
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-x509", *new_key, "-subj", "/CN=ca", "-keyout", files["ca.key"], "-out", files["ca.crt"])
    for name in ("server", "client"):
        key, request, certificate = (files[f"{name}.{kind}"] for kind in ("key", "csr", "crt"))
        openssl("req", *new_key, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signed_by = ["-CA", files["ca.crt"], "-CAkey", files["ca.key"], "-CAcreateserial"]
        openssl("x509", "-req", "-in", request, *signed_by, "-extfile", str(extensions), "-out", certificate)
    return files


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
