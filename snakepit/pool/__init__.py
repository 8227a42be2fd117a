"""THE HOST: scheduler, workers, calls, streams, and the `Pool` that callers hold."""

from snakepit.pool._map import Results as Results
from snakepit.pool._open import open_pool as open_pool
from snakepit.pool._open import run_pool as run_pool
from snakepit.pool._pool import Pool as Pool
from snakepit.pool._session import Session as Session
from snakepit.pool._slot import WorkerInfo as WorkerInfo
from snakepit.pool._stats import PoolStats as PoolStats
from snakepit.pool._stats import SharedMemoryStats as SharedMemoryStats
from snakepit.pool._stats import WorkerMemoryStats as WorkerMemoryStats
from snakepit.pool._stream import Stream as Stream
from snakepit.pool._sync import SyncPool as SyncPool
from snakepit.pool._sync import open_pool_sync as open_pool_sync
from snakepit.pool._sync_session import SyncSession as SyncSession
from snakepit.pool._sync_views import SyncBoundPool as SyncBoundPool
from snakepit.pool._tools import ToolSpec as ToolSpec
from snakepit.pool._views import BoundPool as BoundPool
