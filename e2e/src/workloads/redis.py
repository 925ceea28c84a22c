# A client that counts in redis and in its own memory. When its connection is closed it connects again, as clients do.
import socket


class Client:
    def __init__(self):
        self.connect()
        self.again = 0

    def connect(self):
        for _ in range(200):
            try:
                self.s = socket.create_connection(("127.0.0.1", 6379), 10)
                self.f = self.s.makefile("rb")
                return
            except OSError:
                time.sleep(0.05)
        check(False, "redis does not answer")

    def ask(self, *words):
        text = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        self.s.sendall(text.encode())
        line = self.f.readline()
        if not line:
            raise ConnectionResetError("closed")
        if line[:1] == b"$":
            return self.f.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:-2].decode()

    def increment(self, i):
        try:
            return int(self.ask("INCR", "k"))
        except OSError:
            self.again += 1
            with open("/data/reconnects", "w") as f:
                f.write(str(self.again))
            self.connect()
            # The lost answer may have been to a command that was carried out.
            return i if int(self.ask("GET", "k") or 0) == i else self.increment(i)


client = Client()


def step(i):
    got = client.increment(i)
    check(got == i, f"tick {i}: redis counts {got}")


run(step)
