# Two processes that append to one log; the size is checked with each line, as CRIU does at restore.
import struct

LINE = 16
child = os.fork()
me = "c" if child == 0 else "p"
log = append("/data/log")


def record(i):
    before = os.fstat(log).st_size
    os.write(log, f"{me} {i:013}\n".encode())
    check(os.fstat(log).st_size >= before + LINE, f"{me} {i}: the log became shorter")


if child == 0:
    n = 0
    while True:
        n += 1
        record(n)
        time.sleep(0.03)


def step(i):
    record(i)
    check(os.waitpid(child, os.WNOHANG) == (0, 0), "the second writer has ended")
    if i % 20 == 0:
        with open("/data/log", "rb") as f:
            lines = f.read().decode().split("\n")[:-1]
        for who in "pc":
            mine = [int(line[2:]) for line in lines if line[0] == who]
            check(mine == list(range(1, len(mine) + 1)), f"lines of {who} repeat or lack")


run(step)
