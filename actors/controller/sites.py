"""Sites: numbers in the producer ids of brokers that copy topics from one another, so that no two have the same id. Pure.

    not linked                              0
    linked: has a mirror, or had one        the number that follows from the catalog's id, from 1 to 31
    a linked broker has that number         another one that no linked broker has, stored

A mirror names the sites that its source knows, by catalog, with each topic that it asks for. Of two brokers that mirror
each other both may change; the numbers that each tries differ, so this ends. Called by `mirrors.py`, `producers.py`.
"""

from ...transport.producer_ids import SITE_BITS, site_from
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .catalog import Catalog

MAX_SITES = 2**SITE_BITS - 1


def site_of(catalog: Catalog) -> int:
    """Return the site in this broker's producer ids: 0 unless it has copies of another broker's topics."""
    is_linked = bool(catalog.mirrors) or any(entry.mirror is not None for entry in catalog.topics.values())
    return (catalog.site or _tried(catalog, 0)) if is_linked else 0


def sites_of(catalog: Catalog) -> dict[str, int]:
    """Return the sites that this broker knows, its own included, by the ids of catalogs."""
    own = site_of(catalog)
    return {**catalog.sites, catalog.catalog_id: own} if own else catalog.sites


def with_sites(catalog: Catalog, found: dict[str, int]) -> Catalog:
    """Take the sites that a source knows, and another one for this broker if its own is among them.

    Raises ProtocolError if all are taken.
    """
    others = {**catalog.sites, **found}
    others.pop(catalog.catalog_id, None)
    taken = set(others.values())
    if len(taken) >= MAX_SITES:
        message = f"the source is connected with {len(taken)} brokers, and no range of producer ids is left for this one"
        raise ProtocolError(ErrorCode.LIMIT_REACHED, message)
    site, attempt = catalog.site or _tried(catalog, 0), 0
    while site in taken:
        attempt += 1
        site = _tried(catalog, attempt)
    changed = 0 if site == _tried(catalog, 0) else site
    if (changed, others) == (catalog.site, catalog.sites):
        return catalog
    return catalog.with_sites(changed, others)


def _tried(catalog: Catalog, attempt: int) -> int:
    return site_from(
        catalog.catalog_id.encode() + b"/%d" % attempt if attempt else catalog.catalog_id.encode()
    )
