"""``redis://``: durable across hosts, on Redis Streams.

::

    transport.py   the contract, on the bus's loop          options.py    what a URL says
    news.py        what the server tells goes where         format.py     which format the keys have
    background.py  work that nobody waits for               layout.py     the names of keys
    tidying.py     what is kept no longer goes              deadline.py   waiting for so long and no longer
    consumer.py    readers of groups and broadcasts         coverage.py   which places one reads from
    poller.py      which are asked, and for how much        agenda.py     where it looks next
    fetcher.py     how messages of a place come             turns.py      the order of what it is handed
    prefetched.py  handed out, and not yet asked for        releasing.py  what is unwanted goes back
    membership.py  joining and leaving channels             reclaiming.py what the silent had goes to others
    inbox.py       where replies arrive                     entries.py    envelopes and stream entries
    client.py      what is asked of the servers             errors.py     what can be wrong with a server
    committing.py  a commit as the server reads it          known.py      noticing that the server lost something
    places.py      where reading starts; browsing           leases.py     what this client has in flight
    servers.py     the servers behind a URL; one of them    keeper.py     the thread that keeps a client alive
    cluster.py     several, that share the keys             blocking.py   their connections, for that thread
    durability.py  what a server can promise                scripts.py    what they are taught
    pipe.py        one connection, many callers             bells.py      the connection on which it tells
    lua/           the logic: it runs in the server, in one step each
"""

from neuralcore_transports.redis.errors import NotOurs, RedisRefused, ServerBusy
from neuralcore_transports.redis.options import Durability, RedisOptions
from neuralcore_transports.redis.transport import RedisTransport

__all__ = ["Durability", "NotOurs", "RedisOptions", "RedisRefused", "RedisTransport", "ServerBusy"]
