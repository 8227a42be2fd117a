"""WHERE a worker comes from: spawned by this host, or run in its own process."""

from snakepit.launchers._base import CannotLaunchError as CannotLaunchError
from snakepit.launchers._base import Launched as Launched
from snakepit.launchers._base import Launcher as Launcher
from snakepit.launchers._in_process import InProcessLauncher as InProcessLauncher
from snakepit.launchers._spawned import SpawnLauncher as SpawnLauncher
