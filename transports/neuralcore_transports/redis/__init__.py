"""``redis://``: durable across hosts, on Redis Streams.

::

    transport.py   the contract, on the bus's loop          options.py    what a URL says
    consumer.py    readers of groups and broadcasts         layout.py     the names of keys
    agenda.py      where a reader looks next                deadline.py   waiting for so long and no longer
    turns.py       the order of what it is handed           membership.py joining and leaving channels
    inbox.py       where replies arrive                     entries.py    envelopes and stream entries
    client.py      what is asked of the servers             errors.py     what can be wrong with a server
    committing.py  a commit as the server reads it          known.py      noticing that the server lost something
    places.py      where reading starts; browsing           leases.py     what this client has in flight
    servers.py     the servers behind a URL; one of them    keeper.py     the thread that keeps a client alive
    cluster.py     several, that share the keys             scripts.py    what they are taught
    durability.py  what a server can promise
    pipe.py        one connection, many callers             bells.py      what the server tells
    lua/           the logic: it runs in the server, in one step each
"""

from neuralcore_transports.redis.errors import NotOurs, RedisRefused, ServerBusy
from neuralcore_transports.redis.options import Durability, RedisOptions
from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["Durability", "NotOurs", "RedisOptions", "RedisRefused", "RedisTransport", "ServerBusy"]
