"""A certificate for "localhost" and the authority that signed it, for the upstream over TLS."""

from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Write them as PEM files: the authority, the server's certificate, its key."""
    import trustme  # only this scenario needs it, and it is slow to load

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    authority.cert_pem.write_to_path(files[0])
    issued.cert_chain_pems[0].write_to_path(files[1])
    issued.private_key_pem.write_to_path(files[2])
    return files
