"""The store in ZooKeeper.

client    kazoo, tamed: the only file that imports it
mirror    what has been read, and is read again when a watch says so
session   an agent's session, kept for its next process
lease     how an agent claims its lease, renews it, or leaves it to the leader's grants
leadership  how a leader is elected, and proves that it leads
store     ZooKeeperStore, our Store
connect   how a command gets one
tick      how long ZooKeeper's ticks really are
"""

from failover.zookeeper.connect import connect, read_credentials
from failover.zookeeper.store import ZooKeeperStore

__all__ = ["ZooKeeperStore", "connect", "read_credentials"]
