"""Check an installation from outside the repository: ``python installed.py native|fallback``."""

import asyncio
import sys
import warnings
from importlib.metadata import entry_points, requires
from pathlib import Path

EXPECTED = sys.argv[1]

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import neuralcore
    from neuralcore import MessageBus

EVERYTHING = EXPECTED == "native"


async def deliver(url: str) -> str:
    greeted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with MessageBus(url) as bus:
        bus.subscribe("greeting", lambda message: greeted.set_result(message.payload), blocking=False, group="guests")
        await bus.publish("greeting", "hello")
        return await greeted


def check(what: str, ok: object) -> None:
    if not ok:
        raise SystemExit(f"{what}: wrong")


check("imported from the installation", Path(sys.prefix) in Path(neuralcore.__file__).parents)
check("typed", (Path(neuralcore.__file__).parent / "py.typed").is_file())
check(f"the {EXPECTED} core", neuralcore.is_native_available() is (EXPECTED == "native"))
check("one warning on the fallback, none otherwise", len(caught) == (EXPECTED == "fallback"))
for url in ("native://", "memory://"):
    check(f"delivers on {url}", asyncio.run(deliver(url)) == "hello")

schemes = {entry.name: entry.dist.name for entry in entry_points(group="neuralcore.transports")}
REDIS = ("redis", "redis+cluster", "redis+unix", "rediss", "rediss+cluster")
doors = ("kafka", "memory", "sqlite", *REDIS) if EVERYTHING else ()
owners = {"native": "neuralcore-runtime", **dict.fromkeys(doors, "neuralcore-transports")}
check(f"entry points {schemes}", schemes == owners)

needed = {line.split(">")[0].strip() for line in requires("neuralcore-runtime") if "extra ==" not in line}
check(f"runtime dependencies {needed}", needed == {"msgspec", "numpy"})

if EVERYTHING:
    from neuralcore_observability import BusCollector

    check("the collector", BusCollector)
