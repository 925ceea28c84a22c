# An established connection over loopback that echoes one number per tick. With keep it has to go on as it is; with
# close the client sees an error and connects again.
import socket, threading

KEEP = os.environ["TCP"] == "keep"
listener = socket.create_server(("127.0.0.1", 7000))


def serve(connection):
    try:
        while data := connection.recv(8):
            connection.sendall(data)
    except OSError:
        pass


def accept():
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            continue
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
again = 0


def connect():
    s = socket.create_connection(("127.0.0.1", 7000), 10)
    s.settimeout(10)
    return s


client = connect()


def step(i):
    global client, again
    try:
        client.sendall(i.to_bytes(8, "little"))
        got = client.recv(8, socket.MSG_WAITALL)
        if len(got) != 8:
            raise ConnectionResetError("closed")
    except OSError as e:
        again += 1
        check(not KEEP, f"tick {i}: the connection broke: {e!r}")
        check(again < 3, f"tick {i}: the connection broke {again} times")
        with open("/data/reconnects", "w") as f:
            f.write(str(again))
        client = connect()
        return
    check(int.from_bytes(got, "little") == i, f"tick {i}: the echo is {got!r}")


run(step)
