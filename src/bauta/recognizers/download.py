"""Fetching cards and weights over https: downloads that can go on, checked by size and SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bauta.errors import UsageError, WeightsCorrupt, WeightsMissing
from bauta.progress import Steps
from bauta.recognizers.cards import LARGEST_WEIGHTS, LOOPBACK
from bauta.tables import LARGEST_TEXT

TIMEOUT = 30  # seconds without a byte

_GOES_ON = "run the command again: a download goes on where it stopped."


def fetch_text(address: str, *, insecure_loopback: bool = False) -> str:
    """A small text file.

    Args:
        address: Where it is; https, also after redirects.
        insecure_loopback: Allow http to this machine itself.

    Raises:
        UsageError: when the address is not https, or gives no text or more than 64 KiB.
        WeightsMissing: when it cannot be fetched.
    """
    import httpx

    try:
        with _client(insecure_loopback) as client, client.stream("GET", address) as response:
            response.raise_for_status()
            content = b""
            for block in response.iter_bytes():
                content += block
                if len(content) > LARGEST_TEXT:
                    raise UsageError(f"{address} is too large for a card.", hint="Give the address of a TOML file.")
            return content.decode()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(address, error) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{address} is not text.", hint="Give the address of a TOML file.") from error


def fetch_file(
    address: str,
    part: Path,
    *,
    sha256: str,
    size: int = 0,
    insecure_loopback: bool = False,
    progress: Steps | None = None,
) -> None:
    """Download into a file, after what is in it already; it stays there when the download is interrupted.

    Args:
        address: Where to fetch from; https, also after redirects.
        part: Where to write. Its folder exists.
        sha256: What the whole file must have; if not, `part` is deleted.
        size: The same, in bytes; 0 when unknown, and then at most 1 GiB.
        insecure_loopback: Allow http to this machine itself.
        progress: Called with bytes done and bytes in all (0 when unknown).

    Raises:
        UsageError: when the address is not https.
        WeightsMissing: when the file, or the rest of it, cannot be fetched.
        WeightsCorrupt: when it has another size or SHA-256.
        OSError: when `part` cannot be written.
    """
    import httpx

    done = part.stat().st_size if part.exists() else 0
    if done and done >= size:
        if sha256 == digest(part):
            return
        done = 0 if size else done
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        with _client(insecure_loopback) as client, client.stream("GET", address, headers=headers) as response:
            if done and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                fetch_file(
                    address, part, sha256=sha256, size=size, insecure_loopback=insecure_loopback, progress=progress
                )
                return
            response.raise_for_status()
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if not resumed or response.status_code != httpx.codes.PARTIAL_CONTENT:
                done = 0  # the server knows no ranges, and sends all of it
            length = None if "Content-Encoding" in response.headers else response.headers.get("Content-Length")
            total = size if length is None else done + int(length)
            if size and total != size:  # said before a byte is fetched
                raise _wrong(part, f"{address} has {total} bytes, the card says {size}.")
            with part.open("ab" if done else "wb") as file:
                for block in response.iter_bytes():
                    done += len(block)
                    if done > (size or LARGEST_WEIGHTS):
                        break
                    file.write(block)
                    if progress is not None:
                        progress(done, total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(address, error) from error
    if done > (size or LARGEST_WEIGHTS):
        raise _wrong(part, f"{address} has more than {size or LARGEST_WEIGHTS} bytes.")
    if done < size:  # a server that tells no length cannot be caught cutting off
        raise WeightsMissing(f"{address} ended after {done} of {size} bytes.", hint=_GOES_ON.capitalize())
    found = digest(part)
    if found != sha256:
        raise _wrong(part, f"{address} gave a file with SHA-256 {found}, the card says {sha256}.")


def digest(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _client(insecure_loopback: bool) -> Any:
    import httpx

    def only_https(request: httpx.Request) -> None:  # asked again for every redirect
        url = request.url
        if url.scheme != "https" and not (insecure_loopback and url.scheme == "http" and url.host in LOOPBACK):
            raise UsageError(f"{url} is not an https address.", hint="Use https.")

    return httpx.Client(follow_redirects=True, timeout=TIMEOUT, event_hooks={"request": [only_https]})


def _wrong(part: Path, message: str) -> WeightsCorrupt:
    part.unlink(missing_ok=True)
    return WeightsCorrupt(message, hint="The download was deleted: check the card and the address, then try again.")


def _unreachable(address: str, error: Exception) -> WeightsMissing:
    import httpx

    if not isinstance(error, httpx.HTTPStatusError):
        reason = str(error).rstrip(".") or type(error).__name__
        hint = f"Check the connection and {_GOES_ON} A file fetched elsewhere is given with --from."
    else:
        reason = f"the server answered {error.response.status_code} {error.response.reason_phrase}".rstrip()
        hint = "Is the address right? Another place can be given with --mirror, a file that is here with --from."
        if error.response.is_server_error or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            hint = f"Wait a little, then {_GOES_ON}"
    return WeightsMissing(f"{address} cannot be fetched: {reason}.", hint=hint)
