"""The store in ZooKeeper.

client    kazoo, tamed: the only file that imports it
mirror    what has been read, and is read again when a watch says so
session   an agent's session, kept for its next process
store     ZooKeeperStore, our Store
connect   how a command gets one
"""

from failover.zookeeper.connect import connect, read_credentials
from failover.zookeeper.store import ZooKeeperStore

__all__ = ["ZooKeeperStore", "connect", "read_credentials"]
