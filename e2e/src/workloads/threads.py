# Four threads that take turns on a lock, and a child that reads numbers from a pipe, fifty of them always in flight.
import fcntl, struct, termios, threading

BEHIND = 50
r, w = os.pipe()


def reader():
    log = append("/data/read")
    expected = 1
    while True:
        waiting = struct.unpack("i", fcntl.ioctl(r, termios.FIONREAD, b"\0" * 4))[0]
        if waiting <= BEHIND * 8:
            time.sleep(0.01)
            continue
        got = int.from_bytes(os.read(r, 8), "little")
        check(got == expected, f"the pipe gave {got}, not {expected}")
        os.write(log, f"{got}\n".encode())
        expected += 1


child = os.fork()
if child == 0:
    reader()

counts = [0] * 4
lock = threading.Lock()


def worker(k):
    while True:
        with lock:
            counts[k] += 1
        time.sleep(0.02)


for k in range(4):
    threading.Thread(target=worker, args=(k,), daemon=True).start()
for i in range(BEHIND):
    os.write(w, (i + 1).to_bytes(8, "little"))

seen = [0] * 4


def step(i):
    global seen
    os.write(w, (BEHIND + i).to_bytes(8, "little"))
    check(os.waitpid(child, os.WNOHANG) == (0, 0), "the reading child has ended")
    if i % 40 == 0:
        with lock:
            now = counts[:]
        check(all(a > b for a, b in zip(now, seen)), f"a thread stands still: {seen} {now}")
        seen = now


run(step)
