# A shared writable mapping of a file that is never synced: its dirty pages are on no disk when the freeze comes.
import mmap

SLOTS = 4096
fd = os.open("/data/map", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, SLOTS * 8)
m = mmap.mmap(fd, SLOTS * 8)


def step(i):
    at = (i % SLOTS) * 8
    m[at : at + 8] = i.to_bytes(8, "little")
    for n in range(max(1, i - SLOTS + 1), i + 1):
        at = (n % SLOTS) * 8
        got = int.from_bytes(m[at : at + 8], "little")
        check(got == n, f"tick {i}: slot {n} of the mapping holds {got}")
    check(os.pread(fd, SLOTS * 8, 0) == m[:], f"tick {i}: file and mapping differ")


run(step)
