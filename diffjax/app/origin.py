"""Which requests come from the page itself, and not from another site in a visitor's browser.

A browser sends requests for any site that its user visits. It says in the headers Host, Origin and
Sec-Fetch-Site for whom. Host is checked too, because a site can let its own name mean this machine
(DNS rebinding); then its requests have one origin with the page.
"""

import dataclasses
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

Headers = Iterable[tuple[bytes, bytes]]

# What is added to each answer: no other site may show the page in a frame, use its files, or keep
# hold of a window in which it opened the page.
ADDED = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


@dataclasses.dataclass(frozen=True)
class Origins:
    """The names under which the page is served.

    names: host names, in lower case and without ports. addresses: also any IP address, which no
    other site can have for a name. behind: names of a proxy in front of the page, whose requests
    may come with the proxy's own Host.
    """

    names: frozenset[str]
    addresses: bool = False
    behind: frozenset[str] = frozenset()

    def fault(self, headers: Headers, method: str, path: str) -> str:
        """Why a request is refused; "" if it comes from the page, from a program or by a link."""
        host = one(headers, b"host")
        if not host or not self._serves(name_of(host)):
            return "this page is not served under that name; --name NAME allows one"
        origin, site = one(headers, b"origin"), one(headers, b"sec-fetch-site")
        if origin is None or site is None:
            return "a header is there twice"
        if origin and not self._is_own(origin, host):
            return "another site may not use this page"
        if not origin and site not in ("", "none", "same-origin"):
            by_link = one(headers, b"sec-fetch-mode") == "navigate"
            whole = one(headers, b"sec-fetch-dest") == "document"
            if not (method in ("GET", "HEAD") and path == "/" and by_link and whole):
                return "another site may not use this page"
        return ""

    def _serves(self, name: str) -> bool:
        if name in self.names | self.behind:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.addresses or address.is_loopback

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, _, place = origin.partition("://")
        if scheme not in ("http", "https"):  # "null" too, which any page in a sandbox has
            return False
        return place.lower() == host.lower() or name_of(place) in self.behind


def one(headers: Headers, name: bytes) -> str | None:
    """The value of a header, "" if it is not there, None if it is there twice."""
    found = [value for key, value in headers if key.lower() == name]
    return None if len(found) > 1 else found[0].decode("latin-1") if found else ""


def name_of(place: str) -> str:
    """The host name of "HOST:PORT", in lower case; "" if it is not of this form."""
    try:
        parts = urlsplit(f"//{place}")
        return (parts.hostname or "") if parts.netloc == place and "@" not in place else ""
    except ValueError:
        return ""


def origins_of(host: str, behind: Iterable[str] = ()) -> Origins:
    """The names of a page that listens at the address `host`."""
    names = {"localhost", host.strip("[]").lower()}
    here = Origins(frozenset(names))
    try:
        inside = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = False
    also = frozenset(name.lower() for name in behind)
    if inside:
        return dataclasses.replace(here, behind=also)
    names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return Origins(frozenset(names), addresses=True, behind=also)


def own_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, of which no other site may read or keep anything.

    Cookies are sent to this page only when the request comes from it (SameSite=Strict).
    """
    kept = []
    for key, value in headers:
        lower = key.lower()
        if lower.startswith(b"access-control-") or any(lower == name for name, _ in ADDED):
            continue
        kept.append((key, _strict(value) if lower == b"set-cookie" else value))
    return [*kept, *ADDED]


def _strict(cookie: bytes) -> bytes:
    parts = [part.strip() for part in cookie.split(b";")]
    kept = [part for part in parts if not part.lower().startswith(b"samesite")]
    return b"; ".join([*kept, b"SameSite=Strict"])
