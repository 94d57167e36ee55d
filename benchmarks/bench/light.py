"""A Flight SQL client that costs little: load comes from it where the clients share the server's processors.

ADBC's driver takes as much processor time for a point query as the server does, most of it to collect garbage. This
one knows what a load needs: statements, and prepared statements with parameters.
"""

import pyarrow
import pyarrow.flight as flight

TYPE_URL = "type.googleapis.com/arrow.flight.protocol.sql."


def field(number: int, value: bytes) -> bytes:
    """A field of bytes or text, as Protocol Buffers write it."""
    length, size = len(value), bytearray()
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes([number << 3 | 2]) + bytes(size) + value


def first_field(message: bytes) -> tuple[int, bytes, bytes]:
    """Its number, its bytes, and what follows."""
    place, length, shift = 1, 0, 0
    while True:
        length |= (message[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if message[place - 1] < 0x80:
            return message[0] >> 3, message[place : place + length], message[place + length :]


def command(name: str, value: bytes) -> bytes:
    """A message with one field, packed as Flight SQL wants it."""
    return field(1, (TYPE_URL + name).encode()) + field(2, field(1, value))


def handle(message: bytes) -> bytes:
    """The first field of a packed message."""
    _, _, rest = first_field(message)
    _, packed, _ = first_field(rest)
    return first_field(packed)[1]


class Light:
    """A connection of its own, and the session that belongs to it."""

    def __init__(self, address: str) -> None:
        # Connections to one server would be shared between clients.
        self.client = flight.connect(f"grpc://{address}", generic_options=[("grpc.use_local_subchannel_pool", 1)])

    def __enter__(self) -> "Light":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, sql: str) -> pyarrow.Table:
        return self._answer(command("CommandStatementQuery", sql.encode()))

    def prepare(self, sql: str) -> "Prepared":
        body = command("ActionCreatePreparedStatementRequest", sql.encode())
        (result,) = self.client.do_action(flight.Action("CreatePreparedStatement", body))
        return Prepared(self, handle(result.body.to_pybytes()))

    def _answer(self, message: bytes) -> pyarrow.Table:
        found = self.client.get_flight_info(flight.FlightDescriptor.for_command(message))
        tables = [self.client.do_get(endpoint.ticket).read_all() for endpoint in found.endpoints]
        return tables[0] if len(tables) == 1 else pyarrow.concat_tables(tables)


class Prepared:
    def __init__(self, light: Light, name: bytes) -> None:
        self.light, self.message = light, command("CommandPreparedStatementQuery", name)

    def ask(self, *parameters: int) -> pyarrow.Table:
        values = pyarrow.record_batch([[value] for value in parameters], [str(n) for n in range(len(parameters))])
        descriptor = flight.FlightDescriptor.for_command(self.message)
        writer, reader = self.light.client.do_put(descriptor, values.schema)
        writer.write_batch(values)
        writer.done_writing()
        bound = reader.read()
        writer.close()
        if bound is not None and bound.size:
            # The parameters travel in the handle.
            _, new, _ = first_field(bound.to_pybytes())
            self.message = command("CommandPreparedStatementQuery", new)
        return self.light._answer(self.message)
