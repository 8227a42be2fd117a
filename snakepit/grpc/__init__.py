"""What both ends of gRPC share: the codec of `Connect`, its limits, and the server as it has to be.

Imported by nothing before gRPC is used: it needs the extra `[grpc]`. `_generated/` comes from protos/.
"""

from snakepit.grpc._answer import answer_at_once as answer_at_once
from snakepit.grpc._bulk import hold_if_lost as hold_if_lost
from snakepit.grpc._bulk import send_in_pieces as send_in_pieces
from snakepit.grpc._codec import Codec as Codec
from snakepit.grpc._codec import fields_of as fields_of
from snakepit.grpc._codec import frames_from as frames_from
from snakepit.grpc._codec import frames_with as frames_with
from snakepit.grpc._codec import head_of as head_of
from snakepit.grpc._codec import parts_of as parts_of
from snakepit.grpc._files import load_authorities as load_authorities
from snakepit.grpc._files import load_identity as load_identity
from snakepit.grpc._files import read_token as read_token
from snakepit.grpc._incoming import Incoming as Incoming
from snakepit.grpc._incoming import end_tasks as end_tasks
from snakepit.grpc._limits import CONNECT as CONNECT
from snakepit.grpc._limits import FRAMES_BYTES_MAX as FRAMES_BYTES_MAX
from snakepit.grpc._limits import PID_KEY as PID_KEY
from snakepit.grpc._limits import POOL_KEY as POOL_KEY
from snakepit.grpc._limits import STREAM_WINDOW_BYTES as STREAM_WINDOW_BYTES
from snakepit.grpc._limits import TOKEN_BYTES as TOKEN_BYTES
from snakepit.grpc._limits import TOKEN_KEY as TOKEN_KEY
from snakepit.grpc._limits import configuration as configuration
from snakepit.grpc._limits import keep_alive as keep_alive
from snakepit.grpc._protocol import WideProtocol as WideProtocol
from snakepit.grpc._pulse import silence as silence
from snakepit.grpc._pulse import until_silent as until_silent
from snakepit.grpc._refusals import receive as receive
from snakepit.grpc._server import SoundServer as SoundServer
