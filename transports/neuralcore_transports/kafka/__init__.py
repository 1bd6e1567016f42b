"""``kafka://``: durable across hosts, on Kafka.

::

    transport.py    the contract, on the bus's loop         options.py     what a URL says
    member.py       one process's part in a group           topics.py      channels and topics, both ways
    session.py      the thread's half of that               records.py     envelopes and records
    broadcast.py    who gets every message                  paging.py      browsing
    inbox.py        where replies arrive                    errors.py      what can be wrong with the brokers
    partition.py    what is out, and what waits             registry.py    channels, groups, where these start
    window.py       what is settled, out of order           registrar.py   this client's copy of it
    runs.py         sets of offsets                         positions.py   from cursors to offsets
    keys.py         one message of a key at a time          trimming.py    where all groups are; what may go
    dedup.py        which messages came twice               browser.py     reads here and there
    serving.py      partitions share a demand
    committing.py   one commit at a time                    administration.py  topics and groups
    together.py     what has to be committed together       transactions.py    a block of publishes, all or nothing
    transactor.py   one transactional producer              statistics.py      what the client library counts
    poller.py       the thread that reads                   making.py      the topics of channels
    reader.py       partitions that are no group's          sending.py     envelopes become records
    clients.py      the client library's objects            publisher.py   records go to the brokers
    fan.py          one partition, for all who listen       settling.py    settlements go to their owners
    declaring.py    channels come, grow and go              upkeep.py      deletes what nobody needs, and counts
    complaints.py   tells of commits that fail              silence.py     clients that have lost all brokers
"""

from neuralcore_transports.kafka.errors import KafkaRefused, NotOurs
from neuralcore_transports.kafka.options import KafkaOptions
from neuralcore_transports.kafka.transport import KafkaTransport

__all__ = ["KafkaOptions", "KafkaRefused", "KafkaTransport", "NotOurs"]
