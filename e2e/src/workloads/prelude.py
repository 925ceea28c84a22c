# What every workload shares: ticks that are counted in memory and in /data/count ("number token" per line), and a
# word in /data/error when something is not as the memory of the process says it must be.
import os, sys, time

os.makedirs("/data", exist_ok=True)
TOKEN = os.urandom(4).hex()


def check(ok, why):
    if ok:
        return
    with open("/data/error", "a") as f:
        f.write(f"{why}\n")
    os._exit(9)


def append(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def run(step, pause=0.05):
    out = append("/data/count")
    i = 0
    while True:
        i += 1
        try:
            step(i)
        except Exception as e:
            check(False, f"tick {i}: {e!r}")
        os.write(out, f"{i} {TOKEN}\n".encode())
        time.sleep(pause)
