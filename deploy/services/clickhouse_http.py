"""ClickHouse's HTTP interface over chdb, the ClickHouse engine as a library.

    request -> body spooled to a file -> [unpack blocks] -> INSERT ... FROM INFILE -> status
                                    \\-> any other statement -> whole result -> status, body

For tests and demos on loopback. The engine, its tables, its deduplication and its errors are
ClickHouse's own; this file is only the way in. What it cannot do it refuses, and a statement
that failed is never answered with 200: a result is complete before its status line is sent.

Every request gets a connection of its own (about a millisecond), so that settings, database
and parameters end with the request, and requests run at the same time, as on a server.
"""

import argparse
import base64
import email
import hmac
import json
import os
import re
import shutil
import signal
import struct
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow

# ClickHouse's numbers, and the statuses that its server gives them; all others are 500.
BAD_ARGUMENTS, NOT_IMPLEMENTED, AUTHENTICATION_FAILED, UNKNOWN_EXCEPTION = 36, 48, 516, 1002
CANNOT_DECOMPRESS = 271
STATUS = {
    403: {192, 193, 194, 497, AUTHENTICATION_FAILED},
    404: {16, 46, 47, 50, 56, 60, 63, 81, 115},
    400: {6, 26, 27, 38, 41, 43, 53, 62, 69, 70, 72, 86, BAD_ARGUMENTS, 457},
    501: {NOT_IMPLEMENTED},
}

# URL parameters that are the protocol's own. Every other one is a setting of the engine.
PROTOCOL = {
    "query", "database", "default_format", "compress", "decompress", "user", "password",
    "query_id", "quota_key", "wait_end_of_query", "buffer_size", "client_protocol_version",
}  # fmt: skip
REFUSED = {"session_id": "sessions", "role": "roles"}

# INSERT INTO t (a, b) [SETTINGS ...] {FORMAT name | VALUES}, with the data after it.
INSERT = re.compile(
    r"\s*(?P<into>INSERT\s+INTO\s.*?)(?P<settings>\sSETTINGS\s+\w+\s*=.*?)?"
    r"\s(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES))\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
# The same, when statement and data are both in the body: the statement ends its line.
INSERT_LINE = re.compile(rb"\s*INSERT\s+INTO\s[^\n]*\sFORMAT\s+\w+[ \t]*\r?\n", re.IGNORECASE)


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"Code: {code}. DB::Exception: {text}")


def literal(value):
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def read_exactly(source, size):
    data = source.read(size)
    if len(data) != size:
        raise EOFError(f"the body ended {size - len(data)} bytes too early")
    return data


def unpack(packed, plain):
    """ClickHouse's own blocks: CityHash128, method, packed size with these 9 bytes, plain size.

    The hash is not checked: on loopback it guards against nothing, and no package here has it.
    """
    codecs = {0x82: pyarrow.Codec("lz4_raw"), 0x90: pyarrow.Codec("zstd")}
    while packed.read(16):
        method, packed_size, plain_size = struct.unpack("<BII", read_exactly(packed, 9))
        data = read_exactly(packed, packed_size - 9)
        if method in codecs:
            data = codecs[method].decompress(data, decompressed_size=plain_size)
        elif method != 0x02:
            raise ValueError(f"unknown compression method {method:#x}")
        plain.write(data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tidemill-clickhouse-http"
    # A small answer is two writes; without this the second waits for the client's delayed ack.
    disable_nagle_algorithm = True

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/ping" or (url.path == "/" and not url.query):
            self.answer(200, b"Ok.\n")
        else:
            self.statement()

    def do_POST(self):
        self.statement()

    def statement(self):
        with tempfile.NamedTemporaryFile(dir=self.server.spool) as body:
            try:
                self.receive(body)
            except (EOFError, ValueError, OSError) as error:
                # The client gave up in the middle: what came must not be inserted.
                self.log_message("request given up: %s", error)
                self.close_connection = True
                return
            try:
                self.answer(200, *self.run(body))
            except Exception as error:  # the engine's errors have one untyped class
                self.fail(str(error))

    def receive(self, body):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length", 0))
            while left:
                left -= body.write(read_exactly(self.rfile, min(left, 1 << 20)))
        else:
            while size := int(self.rfile.readline(1024).split(b";")[0], 16):
                body.write(read_exactly(self.rfile, size))
                read_exactly(self.rfile, 2)
            while self.rfile.readline(65536).strip():
                pass  # trailers
        body.flush()
        body.seek(0)

    def run(self, body):
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        self.authenticate(parameters)
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise Refused(NOT_IMPLEMENTED, f"no Content-Encoding {encoding} here; send it plain")
        if parameters.get("compress", "0") != "0":
            raise Refused(NOT_IMPLEMENTED, "no compress=1 here; leave it out")
        for name in REFUSED.keys() & parameters.keys():
            raise Refused(NOT_IMPLEMENTED, f"no {REFUSED[name]} here; leave out {name}")

        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            head = f"Content-Type: {content_type}\r\n\r\n".encode()
            for part in email.message_from_bytes(head + body.read()).get_payload():
                name = part.get_param("name", header="content-disposition")
                parameters[name] = part.get_payload(decode=True).decode()
            body = tempfile.NamedTemporaryFile(dir=self.server.spool)

        if parameters.get("decompress", "0") != "0":
            plain = tempfile.NamedTemporaryFile(dir=self.server.spool)
            try:
                unpack(body, plain)
            except (EOFError, ValueError, OSError, struct.error) as error:
                raise Refused(CANNOT_DECOMPRESS, f"cannot decompress the body: {error}") from error
            plain.flush()
            plain.seek(0)
            body = plain

        connection = chdb.connect(self.server.data)
        try:
            self.apply(connection, parameters)
            return self.execute(connection, parameters, body)
        finally:
            connection.close()

    def authenticate(self, parameters):
        user = self.headers.get("X-ClickHouse-User", parameters.get("user", "default"))
        password = self.headers.get("X-ClickHouse-Key", parameters.get("password", ""))
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(credentials).decode().partition(":")
        right = hmac.compare_digest(password.encode(), self.server.password.encode())
        if user != "default" or not right or scheme.lower() == "bearer":
            raise Refused(
                AUTHENTICATION_FAILED,
                f"{user}: Authentication failed: password is incorrect, or there is no user "
                "with such name. (AUTHENTICATION_FAILED)",
            )

    def apply(self, connection, parameters):
        if database := parameters.get("database"):
            connection.query(f"USE {identifier(database)}")
        for name, value in parameters.items():
            if name not in PROTOCOL:
                if not re.fullmatch(r"\w+", name):
                    raise Refused(BAD_ARGUMENTS, f"{name!r} cannot be the name of a setting")
                connection.query(f"SET {name} = {literal(value)}")

    def execute(self, connection, parameters, body):
        sql, data_at = parameters.get("query", ""), 0
        if not sql.strip() and (line := INSERT_LINE.match(body.read(1 << 16))):
            sql, data_at = line[0].decode(), line.end()
        has_data = os.fstat(body.fileno()).st_size > data_at
        body.seek(data_at)

        insert = INSERT.fullmatch(sql) if has_data else None
        if insert:
            if data_at:
                rest = tempfile.NamedTemporaryFile(dir=self.server.spool)
                shutil.copyfileobj(body, rest)
                rest.flush()
                body = rest
            # Always FROM INFILE before SETTINGS: the parser takes it in that order only.
            sql = (
                f"{insert['into']} FROM INFILE {literal(body.name)} COMPRESSION 'none' "
                f"{insert['settings'] or ''} FORMAT {insert['format'] or 'Values'}"
            )
        elif has_data:
            sql = (sql + "\n" if sql else "") + body.read().decode()
        if not sql.strip():
            raise Refused(62, "Syntax error: empty query. (SYNTAX_ERROR)")

        wanted = self.headers.get("X-ClickHouse-Format", "TabSeparated")
        result = connection.query(sql, parameters.get("default_format", wanted))
        if result.has_error():
            raise RuntimeError(result.error_message())
        counts = {
            "read_rows": result.rows_read(),
            "read_bytes": result.bytes_read(),
            "written_rows": result.rows_written(),
            "written_bytes": result.bytes_written(),
            "elapsed_ns": int(result.elapsed() * 1e9),
        }
        summary = json.dumps({name: str(count) for name, count in counts.items()})
        return result.bytes() or b"", {"X-ClickHouse-Summary": summary}

    def fail(self, text):
        found = re.match(r"Code: (\d+)", text)
        code = int(found[1]) if found else UNKNOWN_EXCEPTION
        status = next((status for status, codes in STATUS.items() if code in codes), 500)
        # Of the parameters the statement alone: among the others may be a password.
        sql = dict(parse_qsl(urlsplit(self.path).query)).get("query", "")
        self.log_message("%s: %s", sql[:500], text)
        self.answer(status, text.encode() + b"\n", {"X-ClickHouse-Exception-Code": str(code)})

    def answer(self, status, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        pass  # only failures are worth a line


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--data", required=True, help="folder of the tables; kept between starts")
    options = parser.parse_args()

    # What a killed process left half-received.
    spool = os.path.join(options.data, "spool")
    shutil.rmtree(spool, ignore_errors=True)
    os.makedirs(spool)

    server = Server(("127.0.0.1", options.port), Handler)
    server.spool = spool
    server.data = os.path.join(options.data, "store")
    server.password = os.environ.get("TIDEMILL_CLICKHOUSE_PASSWORD", "tidemill")
    # The engine lives as long as one connection does; this one is held, not used.
    server.engine = chdb.connect(server.data)
    # No orderly end: what was answered with 200 is in files already, as after kill -9.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


if __name__ == "__main__":
    main()
