"""What storage costs, and what a move to another class of storage saves. Pure arithmetic.

The prices are Amazon's list prices for us-east-1 as of :data:`LISTED`, first volume step, without
tax or discounts: estimates to compare classes by, not a bill. Other regions and other stores
differ in the numbers and hardly in their relations. One table, :data:`PRICES`, holds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: The price list that :data:`PRICES` was taken from (aws.amazon.com/s3/pricing, us-east-1).
LISTED = "2025-09"

#: Storage is billed by 2^30 bytes, whatever the price list calls them.
GIGABYTE = 1024**3

#: The month that prices are for: a year's days by twelve.
DAYS_PER_MONTH = 365 / 12

_KIBIBYTE = 1024


@dataclass(frozen=True, slots=True)
class ClassPrice:
    """What a class costs, in USD.

    ``storage`` per GB and month, ``put`` and ``restore_request`` per request, ``retrieval`` per
    GB read (for archives by a Standard restore). An object counts as ``minimum_bytes`` at least
    and is paid for ``minimum_days`` at least; to its size come ``own_overhead`` bytes at the
    class's own price and ``standard_overhead`` bytes at Standard's.
    """

    storage: float
    put: float
    retrieval: float = 0.0
    restore_request: float = 0.0
    minimum_bytes: int = 0
    minimum_days: int = 0
    own_overhead: int = 0
    standard_overhead: int = 0


_SMALLEST = 128 * _KIBIBYTE
_INDEX = {"own_overhead": 32 * _KIBIBYTE, "standard_overhead": 8 * _KIBIBYTE}

PRICES: Mapping[str, ClassPrice] = MappingProxyType(
    {
        "STANDARD": ClassPrice(storage=0.023, put=0.005e-3),
        "STANDARD_IA": ClassPrice(
            storage=0.0125, put=0.01e-3, retrieval=0.01, minimum_bytes=_SMALLEST, minimum_days=30
        ),
        "GLACIER_IR": ClassPrice(
            storage=0.004, put=0.02e-3, retrieval=0.03, minimum_bytes=_SMALLEST, minimum_days=90
        ),
        "GLACIER": ClassPrice(
            storage=0.0036,
            put=0.03e-3,
            retrieval=0.01,
            restore_request=0.05e-3,
            minimum_days=90,
            **_INDEX,
        ),
        "DEEP_ARCHIVE": ClassPrice(
            storage=0.00099,
            put=0.05e-3,
            retrieval=0.02,
            restore_request=0.10e-3,
            minimum_days=180,
            **_INDEX,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a move brings, in USD: ``monthly_saving`` from then on, the others once.

    ``request_cost`` is the request that moves the object and the reading of it from its old
    class, ``early_deletion_cost`` what is still owed to the old class, ``left_behind_cost`` what
    the old version costs for as long as the bucket keeps it.
    """

    monthly_saving: float
    request_cost: float
    early_deletion_cost: float
    left_behind_cost: float = 0.0

    @property
    def once(self) -> float:
        """What is paid for the move itself."""
        return self.request_cost + self.early_deletion_cost + self.left_behind_cost

    @property
    def payback_months(self) -> float:
        """After how many months the move has paid for itself; infinity if it never does."""
        return self.once / self.monthly_saving if self.monthly_saving > 0 else float("inf")


def monthly_cost(size: int, storage_class: str, prices: Mapping[str, ClassPrice] = PRICES) -> float:
    """USD a month for an object of ``size`` bytes. ``KeyError`` for a class without a price."""
    price = prices[storage_class]
    billed = max(size, price.minimum_bytes) + price.own_overhead
    indexed = price.standard_overhead * prices["STANDARD"].storage
    return (billed * price.storage + indexed) / GIGABYTE


def reading_cost(size: int, storage_class: str, prices: Mapping[str, ClassPrice] = PRICES) -> float:
    """USD for reading an object once, without the GET itself (below 0.00001 everywhere)."""
    price = prices[storage_class]
    return size / GIGABYTE * price.retrieval + price.restore_request


def early_deletion_cost(
    size: int, storage_class: str, days: float, prices: Mapping[str, ClassPrice] = PRICES
) -> float:
    """USD owed for an object that leaves its class after ``days`` in it."""
    left = max(0.0, prices[storage_class].minimum_days - days)
    return left / DAYS_PER_MONTH * monthly_cost(size, storage_class, prices)


def estimate(
    size: int,
    now_in: str,
    to: str,
    days: float,
    reads_a_year: float = 0.0,
    left_behind_days: float = 0.0,
    prices: Mapping[str, ClassPrice] = PRICES,
) -> Estimate:
    """What moving an object of ``size`` bytes, for ``days`` in its class, to another one brings.

    Each of ``reads_a_year`` lowers the saving by what it costs more in the new class. Moving is
    copying: unlike a transition by the bucket's own rules, it reads the object from its class. On
    a bucket that keeps versions the old one stays behind for ``left_behind_days``.
    """
    reads = reading_cost(size, to, prices) - reading_cost(size, now_in, prices)
    saving = monthly_cost(size, now_in, prices) - monthly_cost(size, to, prices)
    return Estimate(
        saving - reads * reads_a_year / 12,
        prices[to].put + reading_cost(size, now_in, prices),
        early_deletion_cost(size, now_in, days, prices),
        left_behind_days / DAYS_PER_MONTH * monthly_cost(size, now_in, prices),
    )
