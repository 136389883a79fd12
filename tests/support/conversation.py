"""The client's and the server's machine in one conversation: what is under way between them, and who may go wrong in it.

A test says in which order things happen: `Conversation.run` takes a number for the next thing again and again.
"""

from collections import deque
from collections.abc import Callable, Iterator

from moderation.server_session import Close, Feed, Finish, Send, ServerSession, ServerState
from moderation.session import ENDED, ClientSession, State
from transcripts import BYTES_PER_MS, ERROR, HEARTBEAT, NOISE, RAW, done, done_of, item_of

RANK = {State.UPLOADING: 0, State.DRAINING: 1, State.BROKEN: 2, State.REFUSED: 3, State.DONE: 4}
"""No state is ever left for one of lower rank."""
MISCHIEF, RARE_MISCHIEF = 128, 250
"""The choice from which something goes wrong, where it may: seldom with nothing under way, which leaves but the coarsest deeds."""
CLOSE_CODES = (1000, 1001, 1002, 1003, 1006, 1011, 4002, 4003, 4029, 4777, None)


class Conversation:
    """A client with some audio in chunks, a server whose analysis finds an item every item_ms, and the messages between them.

    refusal is (after so many items, code, text). As often as `trouble` says, the connection may break or be closed with any code, and
    messages get lost, doubled, delayed, damaged or invented on their way down.
    """

    def __init__(self, endpoint, chunks, *, refusal=None, trouble=0):
        self.endpoint = endpoint
        self.client = ClientSession(endpoint, RAW, expected_ms=sum(chunks) // BYTES_PER_MS)
        self.server = ServerSession(endpoint.shapes[0])
        self.chunks = deque(chunks)
        self.total = sum(chunks)
        self.refusal = refusal
        self.trouble = trouble
        self.up: deque[str | bytes] = deque()
        self.down: deque[Send | Close] = deque()
        self.fed = self.found = 0
        self.finished = False
        self.closed = False
        self.closes = 0
        """How often the server's machine closed."""
        self.heard: list[str | None] = []
        """What the client was told, in order; None stands for the end that it sent."""

    @property
    def ready(self):
        """Items that the analysis has enough audio for."""
        return self.fed // BYTES_PER_MS // self.endpoint.item_ms

    def run(self, choices: Iterator[int]) -> None:
        """Let things happen, as the choices (0 to 255) say, until nothing can; after each, nothing may be illegal."""
        while steps := self.steps():
            before = self.client.state, self.client.acknowledged_ms, self.server.state
            choice = next(choices, 0)
            if self.trouble and choice >= (MISCHIEF if self.down else RARE_MISCHIEF):
                self.trouble -= 1
                steps = self.mischief()
            steps[choice % len(steps)]()
            self.check(*before)

    def check(self, state: State, acknowledged_ms: int, server_state: ServerState) -> None:
        client = self.client
        assert RANK[client.state] >= RANK[state]
        assert client.acknowledged_ms >= acknowledged_ms
        assert client.over == (client.state in ENDED)
        assert client.state is not State.DONE or client.end_sent
        assert client.state is not State.UPLOADING or not client.end_sent
        assert list(ServerState).index(self.server.state) >= list(ServerState).index(server_state)
        assert self.server.state is not ServerState.RECEIVING or not self.finished
        assert self.server.state is not ServerState.FINISHING or self.finished
        assert self.closes == (self.server.state is ServerState.CLOSED)

    def steps(self) -> list[Callable[[], None]]:
        """What could happen next in a good conversation; each leads on."""
        possible = {
            self.client_sends: not self.client.end_sent and not self.closed,
            self.server_takes: bool(self.up),
            self.server_finds: self.server.state is not ServerState.CLOSED and (self.found < self.ready or self.finished),
            self.client_hears: bool(self.down) and not self.closed,
        }
        return [step for step, can in possible.items() if can]

    def client_sends(self):
        if self.chunks:
            audio = bytes(self.chunks.popleft())
            self.client.sending(len(audio))
            self.up.append(audio)
        else:
            self.client.end_of_stream()
            self.heard.append(None)
            self.up.append("")

    def server_takes(self):
        self.act(self.server.receive(self.up.popleft()))

    def server_finds(self):
        if self.refusal is not None and self.found >= self.refusal[0]:
            self.act(self.server.refuse(*self.refusal[1:]))
        elif self.found < self.ready:
            self.found += 1
            self.act(self.server.found(item_of(self.endpoint, self.found - 1)))
        else:
            self.act(self.server.found(done_of(self.endpoint, self.found)))

    def client_hears(self):
        match self.down.popleft():
            case Send(text):
                self.client.receive(text)
                self.heard.append(text)
            case Close(code):
                self.client.closed(code)
                self.closed = True

    def act(self, actions):
        for action in actions:
            match action:
                case Feed(audio):
                    self.fed += len(audio)
                case Finish():
                    self.finished = True
                case _:
                    self.closes += isinstance(action, Close)
                    self.down.append(action)

    def mischief(self) -> list[Callable[[], None]]:
        """What a server or a network could do next that it should not."""
        if not self.down:
            return [self.invents_message, self.ends_anyhow]
        with_messages = [self.loses_message, self.doubles_message, self.delays_message, self.damages_message]
        return [*with_messages, *with_messages, self.invents_message, self.ends_anyhow]

    def invents_message(self):
        texts = [ERROR.text, NOISE.text, HEARTBEAT.text, done(self.endpoint, self.found).text, '{"type": "done"}', ""]
        self.down.append(Send(texts[(self.fed + self.trouble) % len(texts)]))

    def ends_anyhow(self):
        self.down.append(Close(CLOSE_CODES[(self.fed + self.trouble) % len(CLOSE_CODES)]))

    def loses_message(self):
        self.down.popleft()

    def doubles_message(self):
        self.down.append(self.down[0])

    def delays_message(self):
        self.down.rotate(-1)

    def damages_message(self):
        if isinstance(self.down[0], Send):
            text = self.down[0].text
            at = (self.fed + 7 * self.trouble) % max(1, len(text))
            self.down[0] = Send(text[:at] + text[at + 1 :])
